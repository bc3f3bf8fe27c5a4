"""Noise on what images look like, strong at first and gone later, so that geometry is learned before appearance.

The idea is that of GEM (arXiv 2508.14042, version 2). Shapes: B windows, S image side.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.config import AppearanceSettings
from pretrain.randomness import WindowRandom

_TILE_MARGIN = 64  # positions along each axis from which a window's noise is taken


def strength(settings: AppearanceSettings, progress: float) -> float:
    """1 at the start, then straight down to ``final`` at ``until``."""
    return settings.final + (1 - settings.final) * max(0.0, 1 - progress / settings.until)


def disturbed(image_B3SS: Tensor, settings: AppearanceSettings, amount: float, random: WindowRandom) -> Tensor:
    """Pictures f32 [B,3,S,S] of 0..255 with other colours, brightness and contrast, blurred, noisy, and with patches of
    one colour; each window as much of each as it draws. May leave 0..255. amount: 0..1, of what the settings allow."""
    x, device = image_B3SS, image_B3SS.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return random.uniform(low, high, *shape).to(device)

    gain_B3 = 1 + uniform(-amount, amount, 3) * settings.color
    contrast_B1 = 1 + uniform(-amount, amount, 1) * settings.contrast
    brightness_B1 = uniform(-amount, amount, 1) * settings.brightness
    offset_B3 = gain_B3 * x.mean((2, 3)) * (1 - contrast_B1) + 255 * brightness_B1
    x = (x * (gain_B3 * contrast_B1)[..., None, None]).add_(offset_B3[..., None, None])
    if settings.blur:
        share_B = uniform(0, amount) * settings.blur
        x = x.lerp_(_smoothed(x), share_B[:, None, None, None])
    if settings.noise:
        deviation_B = uniform(0, amount) * settings.noise * 255
        x = x.addcmul_(_noise(random.uniform(0, 1, 2), x), deviation_B[:, None, None, None])
    for _ in range(settings.patches):
        _cover(x, random.uniform(0, 1, 2), random.uniform(0, amount, 2) * settings.patch_size, uniform(0, 255, 3))
    return x


def _cover(x_B3SS: Tensor, middle_B2: Tensor, side_B2: Tensor, colour_B3: Tensor) -> None:
    """Fills a rectangle of each picture. middle and side: shares of the image, across and down, on the CPU."""
    size = x_B3SS.shape[-1]
    first_B2 = ((middle_B2 - side_B2 / 2) * size).round().long().clamp(min=0)
    end_B2 = ((middle_B2 + side_B2 / 2) * size).round().long()
    for x_3SS, (left, top), (right, bottom), colour_3 in zip(
        x_B3SS, first_B2.tolist(), end_B2.tolist(), colour_B3, strict=True
    ):
        x_3SS[:, top:bottom, left:right] = colour_3[:, None, None]


def _smoothed(x_B3SS: Tensor) -> Tensor:
    """A picture of an eighth of the sharpness: means of 8 x 8 pixels, interpolated."""
    coarse = F.avg_pool2d(x_B3SS, 8, ceil_mode=True)
    return F.interpolate(coarse, x_B3SS.shape[-2:], mode="bilinear")


def _noise(place_B2: Tensor, like_B3SS: Tensor) -> Tensor:
    """Normal noise: each window's part of one large picture of noise. Drawing anew would take longer than all else."""
    size = like_B3SS.shape[-1]
    tile = _tile(size, like_B3SS.device)
    places = (place_B2 * _TILE_MARGIN).long().clamp(max=_TILE_MARGIN - 1).tolist()
    return torch.stack([tile[:, row : row + size, column : column + size] for row, column in places])


@lru_cache(4)
def _tile(size: int, device: torch.device) -> Tensor:
    side = size + _TILE_MARGIN
    return torch.randn(3, side, side, generator=torch.Generator().manual_seed(size)).to(device)
