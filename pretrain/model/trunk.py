"""What a trunk is: it reads an image and an instruction once, and thinks about motion tokens that see them.

Tokens come in segments; each sees the context, itself and the segments before it, and nothing sees what comes later:
the context is blind to the predictor, the present cloud to the noised future, the predictor to the policy.

Shapes: B batch, T tokens of a segment, D width, C channels of the feature map.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from .geometry import CloudGeometry

Text = Sequence[str] | Tensor


@dataclass
class Context:
    """An observation as a trunk has read it.

    features_BCHW: map of image features that points look up where they are, over the whole square image.
    tokens: what the trunk wants to remember. memory: keys and values per layer once remembered, else None.
    gist_BD: the instruction as one vector that all motion tokens begin with, or None.
    """

    features_BCHW: Tensor
    tokens: Any
    memory: Any = None
    gist_BD: Tensor | None = None


class Trunk(nn.Module, ABC):
    """Interface of the compact Transformer and of the mixture. width: of motion tokens; channels: of the features."""

    width: int
    channels: int

    def train(self, mode: bool = True) -> Trunk:
        """As always, but encoders that learn nothing stay as in evaluation: frozen parts have no dropout."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, PreTrainedModel) and not any(p.requires_grad for p in module.parameters()):
                module.eval()
        return self

    @abstractmethod
    def read(self, image_B3SS: Tensor, present_B: Tensor, geometry: CloudGeometry, text: Text) -> Context:
        """Encodes image (u8, RGB) and instruction (lines, or ids as its encoder takes them); where ``present`` is false
        the image must not matter."""

    @abstractmethod
    def remember(self, context: Context) -> Context:
        """The same context with its keys and values computed, for several calls of ``think``."""

    @abstractmethod
    def think(self, context: Context, segments: Sequence[Tensor]) -> list[Tensor]:
        """Motion tokens [B,T,D] per segment -> the same after the trunk's last layer and norm."""
