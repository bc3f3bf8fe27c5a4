"""Latent actions, a baseline without point supervision of the representation (after LAPO, Schmidt and Jiang 2024, and
LAPA, Ye et al. 2025): what happens between two images is squeezed into a small discrete code by an inverse model that
sees both and a forward model that must make the second from the first; the predictor's trunk learns to guess the code
from the present alone. So that its predictions can be measured in millimetres, a small readout turns a code and the
effector's present motion into motion of the points; no gradient of the readout reaches code or trunk.

The code is a finite scalar quantisation (Mentzer et al. 2024): 5 numbers with 5 values each, 3125 codes.

Shapes: B batch, S image side, H horizons, D width, Z numbers of a code, Q values of each.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .configuration_kinecloud import KinecloudConfig
from .layers import mlp

Z, Q = 5, 5
_SEEN, _MADE = 64, 32  # sides of the images that the inverse model sees and the forward model makes


class LatentAction(nn.Module):
    """Inverse model, forward model, guess and readout."""

    def __init__(self, config: KinecloudConfig, width: int, situation: int):
        super().__init__()
        horizons = len(config.horizons)
        self.inverse = nn.Sequential(
            nn.Conv2d(6, 32, 3, 2, 1), nn.GELU(), nn.Conv2d(32, 64, 3, 2, 1), nn.GELU(),
            nn.Conv2d(64, 32, 3, 2, 1), nn.GELU(), nn.Flatten(), mlp(32 * (_SEEN // 8) ** 2, width, Z),
        )  # fmt: skip
        self.see = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1), nn.GELU(), nn.Conv2d(32, 64, 3, 2, 1), nn.GELU())
        self.act = nn.Linear(Z, 64 * (_MADE // 4) ** 2)
        self.make = nn.Sequential(
            nn.Conv2d(64, 64, 3, 1, 1), nn.GELU(), nn.Upsample(scale_factor=2), nn.Conv2d(64, 32, 3, 1, 1), nn.GELU(),
            nn.Upsample(scale_factor=2), nn.Conv2d(32, 3, 3, 1, 1),
        )  # fmt: skip
        self.guess = nn.Linear(horizons * width, Z * Q)
        self.queries = nn.Parameter(torch.empty(horizons, width))
        self.readout = mlp(Z + situation, 2 * width, width)

    def forward(
        self, thought_BHD: Tensor, situation_BF: Tensor, pair: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor | None]:
        """Tokens for the motion heads [B,H,D], and per window the cost of making and guessing the code [B].

        thought: what the trunk made of the future. situation: the effector's present motion. pair: the images now and
        later, u8 [B,3,S,S]; without them the code is the guessed one and costs nothing.
        """
        logits_BZQ = self.guess(thought_BHD.flatten(1)).float().unflatten(1, (Z, Q))
        if pair is None:
            code_BZ, cost_B = quantised(logits_BZQ.argmax(-1)), None
        else:
            now, later = (_small(image, _SEEN) for image in pair)
            code_BZ = _rounded(self.inverse(torch.cat([now, later], 1)).float())
            known, wanted = (F.interpolate(image, (_MADE, _MADE), mode="area") for image in (now, later))
            told = self.act(code_BZ).unflatten(1, (64, _MADE // 4, _MADE // 4))
            made = known + self.make(self.see(known) + told)
            change = (wanted - known).square().flatten(1).mean(1).mean().clamp(min=1e-3)
            making_B = (made.float() - wanted).square().flatten(1).mean(1) / change
            target_BZ = (code_BZ.detach() + (Q - 1) / 2).round().long()
            guessing_BZ = F.cross_entropy(logits_BZQ.transpose(1, 2), target_BZ, reduction="none")
            cost_B = making_B + guessing_BZ.mean(1)
        told_BD = self.readout(torch.cat([code_BZ.detach().to(situation_BF), situation_BF], -1))
        return self.queries + told_BD[:, None], cost_B


def quantised(index_BZ: Tensor) -> Tensor:
    """Indices 0..Q-1 -> the values of a code, from -(Q-1)/2 to (Q-1)/2."""
    return index_BZ.float() - (Q - 1) / 2


def _rounded(raw_BZ: Tensor) -> Tensor:
    """The nearest code, with the gradient of the bounded number before rounding."""
    bounded = torch.tanh(raw_BZ) * (Q - 1) / 2
    return bounded + (bounded.round() - bounded).detach()


def _small(image_B3SS: Tensor, side: int) -> Tensor:
    return F.interpolate(image_B3SS.float() / 127.5 - 1, (side, side), mode="area")
