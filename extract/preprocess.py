"""Pictures to a network's input, for models whose image processors need torchvision.

Done here in one fixed way, because torchvision's build must match torch's (its package-index build loads CUDA libraries
and fails beside a CPU-only torch), and because results must not depend on which optional packages are installed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch


def pixel_values(
    images: Sequence[np.ndarray],
    size: tuple[int, int],
    values: Mapping[str, Any],
    default_mean: Sequence[float],
    default_std: Sequence[float],
    like: torch.Tensor,
    antialias: bool,
) -> torch.Tensor:
    """u8 [H,W,3] RGB pictures of one size to [B,3,h,w], resized bilinearly to ``size`` (h, w) and normalised.

    values: the checkpoint's image processing; its image_mean and image_std (of 0..1 values) go before the defaults.
    like: a parameter of the network, whose device and precision the result has.
    """
    import torch

    stacked = torch.from_numpy(np.stack(images)).to(like.device).permute(0, 3, 1, 2).float() / 255
    mean = torch.tensor(values.get("image_mean") or default_mean, device=like.device).view(1, 3, 1, 1)
    std = torch.tensor(values.get("image_std") or default_std, device=like.device).view(1, 3, 1, 1)
    resized = torch.nn.functional.interpolate(
        (stacked - mean) / std, size=size, mode="bilinear", align_corners=False, antialias=antialias
    )
    return resized.to(like.dtype)
