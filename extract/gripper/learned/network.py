"""The network: a crop in, and out whether the gripper is there, where its keypoints are, how far it is, how open.

Symbols: B crops, K keypoints.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from extract.gripper.learned.gaze import SIDE

WIDTHS = (24, 48, 96, 128)
HIDDEN = 128
LEAST_LOG, MOST_LOG = -7.0, 1.0  # of the spreads
COLOUR = 255.0


@dataclass(frozen=True)
class Seen:
    """present_B: logit. places_BK2: in the crop, its middle 0, its sides +-0.5. behind_BK: crop widths, how

    much further than the anchor along the axis. further_B: logarithm of the anchor's distance over the gaze's.
    opening_B: share of the widest. across_B, along_B: logarithm of the spread (mean absolute error) of the first
    keypoint's place and of ``further``.
    """

    present_B: Tensor
    places_BK2: Tensor
    behind_BK: Tensor
    further_B: Tensor
    opening_B: Tensor
    across_B: Tensor
    along_B: Tensor


class Block(nn.Module):
    """Two convolutions beside a shortcut (He et al., 2016)."""

    def __init__(self, width: int):
        super().__init__()
        self.first, self.second = convolution(width, width), convolution(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x))


def convolution(inward: int, outward: int, stride: int = 1) -> nn.Sequential:
    """3x3, normalised, rectified."""
    return nn.Sequential(
        nn.Conv2d(inward, outward, 3, stride, 1, bias=False), nn.BatchNorm2d(outward), nn.ReLU(inplace=True)
    )


class GripperNet(nn.Module):
    """Places are the mean of a heat map per keypoint (Sun et al., 2018) plus what all of the crop says about them."""

    def __init__(self, keypoints: int):
        super().__init__()
        a, b, c, d = WIDTHS
        self.keypoints = keypoints
        self.fine = nn.Sequential(convolution(3, a, 2), convolution(a, b, 2), Block(b))
        self.coarse = nn.Sequential(convolution(b, c, 2), Block(c))
        self.whole = nn.Sequential(
            convolution(c, d, 2), nn.Flatten(), nn.Linear(d * (SIDE // 16) ** 2, HIDDEN), nn.ReLU(inplace=True)
        )
        self.lateral = nn.Conv2d(c, b, 1)
        self.heat = nn.Sequential(convolution(b, b), nn.Conv2d(b, keypoints, 1))
        self.read = nn.Linear(HIDDEN, 5 + 3 * keypoints)

    def forward(self, crops_B3SS: Tensor) -> Seen:
        """crops_B3SS: f32, 0..255."""
        fine = self.fine(crops_B3SS / (COLOUR / 2) - 1)
        coarse = self.coarse(fine)
        said = self.read(self.whole(coarse))
        heat = self.heat(fine + functional.interpolate(self.lateral(coarse), scale_factor=2.0, mode="nearest"))
        count = self.keypoints
        return Seen(
            present_B=said[:, 0],
            places_BK2=means(heat) + 0.1 * said[:, 5 : 5 + 2 * count].unflatten(1, (count, 2)),
            behind_BK=0.1 * said[:, 5 + 2 * count :],
            further_B=0.1 * said[:, 1],
            opening_B=said[:, 2],
            across_B=said[:, 3].clamp(LEAST_LOG, MOST_LOG),
            along_B=said[:, 4].clamp(LEAST_LOG, MOST_LOG),
        )


def means(heat_BKSS: Tensor) -> Tensor:
    """[B,K,2]: the mean place of every heat map, its middle 0, its sides +-0.5."""
    side = heat_BKSS.shape[-1]
    share = heat_BKSS.flatten(2).softmax(-1).unflatten(2, (side, side))
    at = (torch.arange(side, device=share.device) + 0.5) / side - 0.5
    return torch.stack([(share.sum(2) * at).sum(-1), (share.sum(3) * at).sum(-1)], -1)
