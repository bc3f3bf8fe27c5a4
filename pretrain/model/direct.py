"""Heads that learn actions directly: new projections on the predictor's trunk, by regression, flow matching or bins.

Shapes: B batch, P past clouds, N points, H horizons, D width, K actions in a chunk, A action dimensions,
Q proprioception dimensions, C bins.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .configuration_kinecloud import KinecloudConfig
from .flow import beside, integrate
from .geometry import rigid_motion
from .layers import mlp, waves, zero
from .modeling_kinecloud import KinecloudPrediction, Observed

BINS = 256  # between -1 and 1
_PRECISION = math.log(12.5)  # before training, likely bins lie within 0.2 of the linear map
_PACE = 3  # displacements up to 0.3 s ahead are a third of a length unit


def bins_of(actions: Tensor) -> Tensor:
    """The bins into which normalised actions fall, i64; what is beyond -1 or 1 falls into the last."""
    return ((actions + 1) * (BINS / 2)).long().clamp(0, BINS - 1)


class DirectHead(nn.Module):
    """Regression. Proprioception and action queries are tokens that see everything and are seen by nothing, so the
    predicted clouds stay those of the predictor.

    An action is a linear map of the predicted motion, plus what the tokens make of all there is. The latter is withheld
    in half of the windows of training: few labels are soon known by heart, and only the former holds for motions that
    no label shows.
    """

    withheld = 0.5

    def __init__(self, config: KinecloudConfig, width: int, outputs: int = 1):
        """outputs: numbers that the tokens give for each of an action."""
        super().__init__()
        actions, proprio = len(config.action_names), len(config.proprio_names)
        self.unit, self.shape = config.length_unit_m, (config.action_chunk, actions)
        plan = 7 * len(config.horizons) + 4 * len(config.past_times) + proprio
        self.straight = zero(nn.Linear(plan, config.action_chunk * actions))
        self.proprio_in = nn.Linear(proprio, width)
        self.action_queries = nn.Parameter(torch.empty(config.action_chunk, width))
        self.plan_in = mlp(plan, 2 * width, width)
        self.action_mlp = mlp(width, 2 * width, width)
        self.action_out = zero(nn.Linear(width, actions * outputs))

    def tokens(self, observed: Observed, state_BQ: Tensor) -> Tensor:
        """What the trunk is to think about along with the future, [B,1+K,D]. state: normalised proprioception."""
        queries_BKD = self.action_queries + observed.present_BTD[:, :1]
        return torch.cat([self.proprio_in(state_BQ)[:, None], queries_BKD], 1)

    def forward(
        self, prediction: KinecloudPrediction, observed: Observed, state_BQ: Tensor, thought_BTD: Tensor, **_: Any
    ) -> dict[str, Tensor]:
        """actions: normalised, [B,K,A]."""
        straight_BKA, action_BKD, kept_B11 = self.read(prediction, observed, state_BQ, thought_BTD)
        return {"actions": straight_BKA + kept_B11 * self.rest(action_BKD)}

    def read(
        self, prediction: KinecloudPrediction, observed: Observed, state_BQ: Tensor, thought_BTD: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The linear map of the plan [B,K,A], the tokens of the actions [B,K,D], and what to multiply with that which
        they give [B,1,1]: 0 or 2 in training."""
        g = observed.geometry
        moves = rigid_motion(g.offsets_BPN3[:, -1], (prediction.points - g.now_BN3[:, None]) / self.unit)
        plan = [*moves, prediction.opening[..., None] / self.unit, g.path_BP3, g.opening_BP, state_BQ]
        plan_BF = torch.cat([part.flatten(1) for part in plan], -1)
        straight_BKA = self.straight(_PACE * plan_BF).unflatten(1, self.shape)
        kept_B11 = F.dropout(torch.ones_like(straight_BKA[:, :1, :1]), self.withheld, self.training)
        return straight_BKA, thought_BTD[:, 1:] + self.plan_in(plan_BF)[:, None], kept_B11

    def rest(self, action_BKD: Tensor) -> Tensor:
        """What the tokens of the actions give, [B,K,A * outputs]."""
        return self.action_out(F.gelu(action_BKD + self.action_mlp(action_BKD)))


class FlowHead(DirectHead):
    """Flow matching (flow.py): samples actions instead of their mean. The tokens are told noised actions and estimate
    those without noise, which is the velocity in other words: (estimate - noised) / (1 - tau)."""

    def __init__(self, config: KinecloudConfig, width: int):
        super().__init__(config, width)
        self.steps = config.flow_steps
        self.noise_in = nn.Linear(self.shape[1] + waves(torch.zeros(1)).shape[-1], width)

    def forward(
        self,
        prediction: KinecloudPrediction,
        observed: Observed,
        state_BQ: Tensor,
        thought_BTD: Tensor,
        noised_BKA: Tensor | None = None,
        tau_B: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """actions: normalised, [B,K,A]; the estimate for noised ones of that time, or a sample that begins with them;
        without them always with the same noise."""
        straight_BKA, action_BKD, kept_B11 = self.read(prediction, observed, state_BQ, thought_BTD)

        def estimate(noised_BKA: Tensor, tau_B: Tensor) -> Tensor:
            time_BK1 = beside(tau_B, noised_BKA).expand_as(noised_BKA[..., :1])
            told_BKD = self.noise_in(torch.cat([noised_BKA, waves(time_BK1)], -1))
            return straight_BKA + kept_B11 * self.rest(action_BKD + told_BKD)

        if noised_BKA is not None and tau_B is not None:
            return {"actions": estimate(noised_BKA, tau_B)}
        if noised_BKA is None:
            noise_KA = torch.randn(self.shape, generator=torch.Generator().manual_seed(0)).to(straight_BKA)
            noised_BKA = noise_KA.expand_as(straight_BKA)

        def velocity(noised_BKA: Tensor, tau_B: Tensor) -> Tensor:
            return (estimate(noised_BKA, tau_B) - noised_BKA) / (1 - beside(tau_B, noised_BKA))

        return {"actions": integrate(velocity, noised_BKA, self.steps)}


class BinnedHead(DirectHead):
    """Classification: each number of an action falls into one of its bins. The linear map of the plan
    is where likely bins lie; the tokens say more. An action is the mean over bins."""

    def __init__(self, config: KinecloudConfig, width: int):
        super().__init__(config, width, BINS)
        self.log_precision = nn.Parameter(torch.full((self.shape[1], 1), _PRECISION))
        self.register_buffer("centres", (torch.arange(BINS) + 0.5) * 2 / BINS - 1)

    def forward(
        self, prediction: KinecloudPrediction, observed: Observed, state_BQ: Tensor, thought_BTD: Tensor, **_: Any
    ) -> dict[str, Tensor]:
        """actions: normalised, [B,K,A]. action_logits: of each bin, [B,K,A,C]."""
        straight_BKA, action_BKD, kept_B11 = self.read(prediction, observed, state_BQ, thought_BTD)
        apart_BKAC = straight_BKA[..., None] - self.get_buffer("centres")
        rest_BKAC = self.rest(action_BKD).unflatten(-1, (self.shape[1], BINS))
        logits_BKAC = kept_B11[..., None] * rest_BKAC - self.log_precision.exp() * apart_BKAC.square()
        return {"actions": logits_BKAC.softmax(-1) @ self.get_buffer("centres"), "action_logits": logits_BKAC}
