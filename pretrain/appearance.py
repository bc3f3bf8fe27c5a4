"""Noise on what images look like, strong at first and gone later, so that geometry is learned before appearance.

The idea is that of GEM (arXiv 2508.14042, version 2). Shapes: B windows, S image side. Grey levels are 0..1 here.
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
    """u8 [B,3,S,S] -> the same pictures with other colours, brightness and contrast, blurred, noisy, and with patches
    of one colour; each window as much of each as it draws. amount: 0..1, of what the settings allow."""
    device = image_B3SS.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return random.uniform(low, high, *shape).to(device)

    gain_B3 = 1 + uniform(-amount, amount, 3) * settings.color
    contrast_B1 = 1 + uniform(-amount, amount, 1) * settings.contrast
    brightness_B1 = uniform(-amount, amount, 1) * settings.brightness
    x = image_B3SS.float()
    mean_B3 = x.mean((2, 3))
    slope_B3 = gain_B3 * contrast_B1
    offset_B3 = gain_B3 * mean_B3 * (1 - contrast_B1) + 255 * brightness_B1
    x = torch.addcmul(offset_B3[..., None, None], x, slope_B3[..., None, None])
    if settings.blur:
        share_B = uniform(0, amount) * settings.blur
        x = torch.lerp(x, _smoothed(x), share_B[:, None, None, None])
    if settings.noise:
        deviation_B = uniform(0, amount) * settings.noise * 255
        x = x.addcmul_(_noise(uniform(0, 1, 2), x), deviation_B[:, None, None, None])
    for _ in range(settings.patches):
        middle_B2, side_B2, colour_B3 = uniform(0, 1, 2), uniform(0, amount, 2) * settings.patch_size, uniform(0, 1, 3)
        inside = [_between(middle_B2[:, a], side_B2[:, a], x.shape[-1]) for a in (0, 1)]
        patch_B1SS = (inside[0][:, :, None] & inside[1][:, None])[:, None]
        x = torch.where(patch_B1SS, 255 * colour_B3[..., None, None], x)
    return x.round_().clamp_(0, 255).to(torch.uint8)


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


def _between(middle_B: Tensor, length_B: Tensor, size: int) -> Tensor:
    """Which of ``size`` pixels lie in an interval, bool [B,size]. middle, length: shares of the image."""
    along_S = (torch.arange(size, device=middle_B.device) + 0.5) / size
    return (along_S - middle_B[:, None]).abs() < length_B[:, None] / 2
