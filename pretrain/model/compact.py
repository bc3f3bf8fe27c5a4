"""The compact trunk: one Transformer for context and motion, with encoders that are small or come from transformers.

Shapes: B batch, T tokens, L context tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from .configuration_kinecloud import KinecloudConfig
from .encoders import ByteText, PretrainedText, PretrainedVision, SmallVision
from .geometry import CloudGeometry
from .layers import Block
from .trunk import Context, Text, Trunk


class CompactTrunk(Trunk):
    """See ``Trunk``. Context tokens are those of text and image."""

    def __init__(self, config: KinecloudConfig):
        super().__init__()
        self.vision = PretrainedVision(config) if config.vision else SmallVision(config)
        self.text = PretrainedText(config) if config.text else ByteText(config)
        self.blocks = nn.ModuleList(Block(config.width, config.heads, config.mlp_ratio) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.width, self.channels = config.width, self.vision.channels
        self.points = config.waypoints > 0

    def read(self, image_B3SS: Tensor, present_B: Tensor, geometry: CloudGeometry, text: Text) -> Context:
        text_BLD = self.text(text)
        gist_BD = text_BLD.mean(1) if self.points else None
        tokens_BTD, features = self.vision(image_B3SS, present_B, geometry, gist_BD)
        return Context(features, torch.cat([text_BLD, tokens_BTD], 1), gist_BD=gist_BD)

    def remember(self, context: Context) -> Context:
        x_BLD, memory = context.tokens, []
        for block in self.blocks:
            x_BLD, seen = block(x_BLD, [x_BLD.shape[1]])
            memory.append(seen)
        return replace(context, memory=memory)

    def think(self, context: Context, segments: Sequence[Tensor]) -> list[Tensor]:
        if context.gist_BD is not None:
            segments = [segment + context.gist_BD[:, None] for segment in segments]
        lengths = [segment.shape[1] for segment in segments]
        if context.memory is not None:
            x_BTD = torch.cat(list(segments), 1)
            for block, seen in zip(self.blocks, context.memory, strict=True):
                x_BTD, _ = block(x_BTD, lengths, seen)
        else:
            known = context.tokens.shape[1]
            x_BTD = torch.cat([context.tokens, *segments], 1)
            for number, block in enumerate(self.blocks):
                # what the last layer would make of the context, nobody reads
                skip = known if number == len(self.blocks) - 1 else 0
                x_BTD, _ = block(x_BTD, [known, *lengths], skip=skip)
        return list(self.norm(x_BTD).split(lengths, 1))
