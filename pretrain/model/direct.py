"""Heads that learn actions directly: new projections on the predictor's trunk, by regression, flow matching or bins.

Shapes: B batch, P past clouds, N points, H horizons, D width, K actions in a chunk, A action dimensions,
Q proprioception dimensions, C bins.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .configuration_kinecloud import KinecloudConfig
from .flow import beside, integrate
from .geometry import CloudGeometry, flattened, rigid_motion
from .layers import mlp, waves, zero
from .modeling_kinecloud import KinecloudPrediction, Observed

BINS = 256  # between -1 and 1
_PRECISION = math.log(12.5)  # before training, likely bins lie within 0.2 of the linear map
_QUICK = 8  # trust is settled within a part of the training


def bins_of(actions: Tensor) -> Tensor:
    """The bins into which normalised actions fall, i64; what is beyond -1 or 1 falls into the last."""
    return ((actions + 1) * (BINS / 2)).long().clamp(0, BINS - 1)


class Trust(nn.Module):
    """How much that counts which tokens say of each number of an action: a factor between 0 and 2, at first 1.

    It is learned in windows that the tokens are not taught; in the others what they say counts as it is.
    """

    def __init__(self, actions: int, outputs: int):
        """outputs: numbers that the tokens give for each of an action."""
        super().__init__()
        self.outputs, self.logit = outputs, zero(nn.Linear(1, actions, bias=False))

    def factors(self) -> Tensor:
        """[A]."""
        return 2 * torch.sigmoid(_QUICK * self.logit.weight[:, 0])

    def forward(self, said_BKV: Tensor, untaught_B: Tensor | None) -> Tensor:
        """untaught: in training."""
        factor_V = self.factors().repeat_interleave(self.outputs)
        if untaught_B is None:
            return factor_V * said_BKV
        return torch.where(untaught_B[:, None, None], factor_V * said_BKV.detach(), said_BKV)


class DirectHead(nn.Module):
    """Regression. Proprioception and action queries are tokens that see everything and are seen by nothing, so the
    predicted clouds stay those of the predictor.

    An action is a linear map of what is planned, solved before training, plus what the tokens make of all there is.
    Few labels are soon known by heart, and then the tokens mislead in tasks that no label shows: how much they count is
    learned where they are not taught (Trust).
    """

    def __init__(self, config: KinecloudConfig, width: int, outputs: int = 1):
        """outputs: numbers that the tokens give for each of an action."""
        super().__init__()
        actions, proprio = len(config.action_names), len(config.proprio_names)
        self.unit, self.shape = config.length_unit_m, (config.action_chunk, actions)
        plan = 7 * len(config.horizons) + 4 * len(config.past_times) + proprio
        self.two, self.times, self.past = config.dimensions == 2, tuple(config.horizons), len(config.past_times)
        self.straight = zero(nn.Linear(plan, config.action_chunk * actions)).requires_grad_(False)
        self.proprio_in = nn.Linear(proprio, width)
        self.action_queries = nn.Parameter(torch.empty(config.action_chunk, width))
        self.plan_in = mlp(plan, 2 * width, width)
        self.action_mlp = mlp(width, 2 * width, width)
        self.action_out = zero(nn.Linear(width, actions * outputs))
        self.trust = Trust(actions, outputs)

    def tokens(self, observed: Observed, state_BQ: Tensor) -> Tensor:
        """What the trunk is to think about along with the future, [B,1+K,D]. state: normalised proprioception."""
        queries_BKD = self.action_queries + observed.present_BTD[:, :1]
        return torch.cat([self.proprio_in(state_BQ)[:, None], queries_BKD], 1)

    def forward(
        self,
        prediction: KinecloudPrediction,
        observed: Observed,
        state_BQ: Tensor,
        thought_BTD: Tensor,
        untaught_B: Tensor | None = None,
        **noised: Tensor | None,
    ) -> dict[str, Tensor]:
        """actions: normalised, [B,K,A]. untaught: in training, windows that the tokens are not taught."""
        plan_BF = self.plan(prediction, observed.geometry, state_BQ)
        straight_BKA = self.straight(plan_BF).unflatten(1, self.shape)
        action_BKD = thought_BTD[:, 1:] + self.plan_in(plan_BF)[:, None]
        return self.decide(straight_BKA, action_BKD, untaught_B, **noised)

    def decide(
        self, straight_BKA: Tensor, action_BKD: Tensor, untaught_B: Tensor | None, **_: Tensor | None
    ) -> dict[str, Tensor]:
        """straight: what the linear map of the plan says. action: the tokens."""
        return {"actions": straight_BKA + self.rest(action_BKD, untaught_B)}

    def plan(self, prediction: KinecloudPrediction, geometry: CloudGeometry, state_BQ: Tensor) -> Tensor:
        """What is planned, what was, and proprioception, [B,F], in length units and radians."""
        points_BHN3 = flattened(prediction.points) if self.two else prediction.points
        ahead_BHN3 = (points_BHN3 - geometry.now_BN3[:, None]) / self.unit
        moves_BH3, turns_BH3 = rigid_motion(geometry.offsets_BPN3[:, -1], ahead_BHN3)
        parts = [moves_BH3, turns_BH3, prediction.opening / self.unit, geometry.path_BP3, geometry.opening_BP, state_BQ]
        return torch.cat([part.flatten(1) for part in parts], -1)

    def readings(self) -> dict[str, Tensor]:
        """What the linear map may be told of ``plan``, bool [F] by name: the last steps and the plan up to each
        horizon, alone, with its turns or with proprioception; openings alone; proprioception alone."""
        steps, past = range(1, len(self.times) + 1), range(self.past)
        told = [(kind, step) for kind in ("moves", "turns") for step in steps for _ in range(3)]
        told += [("openings", step) for step in steps]
        told += [("moves" if at >= self.past - 3 else "", 0) for at in past for _ in range(3)]
        told += [("openings" if at >= self.past - 2 else "", 0) for at in past]
        told += [("proprio", 0)] * self.proprio_in.in_features

        def part(last: int, *kinds: str) -> Tensor:
            return torch.tensor([kind in kinds and step <= last for kind, step in told])

        readings = {"proprio": part(0, "proprio")}
        for step, seconds in zip(steps, self.times, strict=True):
            readings[f"{seconds:g} s"] = part(step, "moves")
            readings[f"{seconds:g} s with turns"] = part(step, "moves", "turns")
            readings[f"{seconds:g} s with proprio"] = part(step, "moves", "proprio")
            readings[f"openings {seconds:g} s"] = part(step, "openings")
        return readings

    def rest(self, action_BKD: Tensor, untaught_B: Tensor | None) -> Tensor:
        """What the tokens of the actions give, [B,K,A * outputs]."""
        return self.trust(self.action_out(F.gelu(action_BKD + self.action_mlp(action_BKD))), untaught_B)


class FlowHead(DirectHead):
    """Flow matching (flow.py): samples actions instead of their mean. The tokens are told noised actions and estimate
    those without noise, which is the velocity in other words: (estimate - noised) / (1 - tau)."""

    def __init__(self, config: KinecloudConfig, width: int):
        super().__init__(config, width)
        self.steps = config.flow_steps
        self.noise_in = nn.Linear(self.shape[1] + waves(torch.zeros(1)).shape[-1], width)

    def decide(
        self,
        straight_BKA: Tensor,
        action_BKD: Tensor,
        untaught_B: Tensor | None,
        noised_BKA: Tensor | None = None,
        tau_B: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """actions: normalised, [B,K,A]; the estimate for noised ones of that time, or a sample that begins with them;
        without them always with the same noise."""

        def estimate(noised_BKA: Tensor, tau_B: Tensor) -> Tensor:
            time_BK1 = beside(tau_B, noised_BKA).expand_as(noised_BKA[..., :1])
            told_BKD = self.noise_in(torch.cat([noised_BKA, waves(time_BK1)], -1))
            return straight_BKA + self.rest(action_BKD + told_BKD, untaught_B)

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
        self.log_precision = zero(nn.Linear(1, self.shape[1], bias=False))  # beyond that of before training
        self.register_buffer("centres", (torch.arange(BINS) + 0.5) * 2 / BINS - 1)

    def decide(
        self, straight_BKA: Tensor, action_BKD: Tensor, untaught_B: Tensor | None, **_: Tensor | None
    ) -> dict[str, Tensor]:
        """actions: normalised, [B,K,A]. action_logits: of each bin, [B,K,A,C]."""
        apart_BKAC = straight_BKA[..., None] - self.get_buffer("centres")
        rest_BKAC = self.rest(action_BKD, untaught_B).unflatten(-1, (self.shape[1], BINS))
        logits_BKAC = rest_BKAC - (_PRECISION + self.log_precision.weight).exp() * apart_BKAC.square()
        return {"actions": logits_BKAC.softmax(-1) @ self.get_buffer("centres"), "action_logits": logits_BKAC}
