"""The building blocks of the predictor.

Shapes: B batch, T tokens, L context tokens, D width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KeysValues = tuple[Tensor, Tensor]


class Attention(nn.Module):
    """Multi-head attention of queries over a context."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width)

    def split(self, x_BTD: Tensor) -> Tensor:
        """[B,T,D] -> [B,heads,T,D/heads]"""
        return x_BTD.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def keys_values(self, context_BLD: Tensor) -> KeysValues:
        """Of a context, split by head."""
        keys, values = self.key_value(context_BLD).chunk(2, -1)
        return self.split(keys), self.split(values)

    def join(self, mixed: Tensor) -> Tensor:
        """[B,heads,T,D/heads] -> [B,T,D]"""
        return self.output(mixed.transpose(1, 2).flatten(2))

    def forward(self, query_BTD: Tensor, context_BLD: Tensor, mask_BL: Tensor | None = None) -> Tensor:
        keys, values = self.keys_values(context_BLD)
        mask = None if mask_BL is None else mask_BL[:, None, None, :]
        return self.join(F.scaled_dot_product_attention(self.split(self.query(query_BTD)), keys, values, mask))


class Block(nn.Module):
    """Pre-norm Transformer block (Xiong et al. 2020) over tokens in segments: each segment sees itself and those
    before it, so what comes first can be computed once and kept."""

    def __init__(self, width: int, heads: int, mlp_ratio: int):
        super().__init__()
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp = mlp(width, mlp_ratio * width, width)

    def forward(
        self, x_BTD: Tensor, lengths: Sequence[int], before: KeysValues | None = None, skip: int = 0
    ) -> tuple[Tensor, KeysValues]:
        """lengths: of the segments in x. before: keys and values of earlier tokens, seen by all.
        skip: the first so many tokens are only seen; the result does not hold them.
        Returns the new tokens, and keys and values of all tokens so far."""
        normed_BTD = self.norm_attention(x_BTD)
        keys, values = self.attention.keys_values(normed_BTD)
        if before is not None:
            keys, values = torch.cat([before[0], keys], 2), torch.cat([before[1], values], 2)
        queries = self.attention.split(self.attention.query(normed_BTD[:, skip:]))
        earlier, mixed, end = keys.shape[2] - x_BTD.shape[1], [], 0
        for length in lengths:
            start, end = end, end + length
            if end > skip:
                seen = earlier + end
                part = queries[:, :, max(start - skip, 0) : end - skip]
                mixed.append(F.scaled_dot_product_attention(part, keys[:, :, :seen], values[:, :, :seen]))
        x_BTD = x_BTD[:, skip:] + self.attention.join(torch.cat(mixed, 2))
        return x_BTD + self.mlp(self.norm_mlp(x_BTD)), (keys, values)


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Two layers with a GELU between."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs))


def zero(layer: nn.Linear) -> nn.Linear:
    """A layer that ``init_weights`` starts at zero."""
    layer.starts_at_zero = True  # pyright: ignore[reportArgumentType]
    return layer


def init_weights(module: nn.Module) -> None:
    """Initial weights of this project's own modules."""
    if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d)):
        if getattr(module, "starts_at_zero", False):
            nn.init.zeros_(module.weight)
        else:
            nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.5)
    elif isinstance(module, (nn.LayerNorm, nn.GroupNorm)):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
    else:
        for parameter in module.parameters(recurse=False):  # learned tokens
            nn.init.normal_(parameter, std=0.5)


def waves(x: Tensor, octaves: int = 4) -> Tensor:
    """[...,C] -> [...,2*octaves*C]: sine and cosine at octaves from half a period per unit."""
    frequencies = math.pi * 2.0 ** torch.arange(octaves, device=x.device, dtype=x.dtype)
    angles = (x[..., None] * frequencies).flatten(-2)
    return torch.cat([angles.sin(), angles.cos()], -1)
