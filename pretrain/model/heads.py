"""From predicted motion to actions: the heads of a policy by name, and the one that inverts motion in closed form.

Shapes: B batch, P past clouds, N points, H horizons, D width, K actions in a chunk, A action dimensions,
Q proprioception dimensions, M remembered windows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .configuration_kinecloud import KinecloudConfig
from .direct import BinnedHead, DirectHead, FlowHead
from .geometry import CloudGeometry, flattened, rigid_motion
from .modeling_kinecloud import KinecloudPrediction, Observed

NEAR_S = 0.3  # what is further ahead says nothing about the next action
GRASP_S = 0.15  # the same for the effort of a grasp: what openings do later may be another effort's doing
LEVELS = 9  # of an action, from -1 to 1, among which openings decide
ALIKE = 0.1  # length units: openings that differ by less are alike, before and after
DIRECT_HEADS = {"direct": DirectHead, "direct_flow_matching": FlowHead, "direct_binned": BinnedHead}


def head_of(config: KinecloudConfig, width: int) -> DirectHead | InverseDynamics:
    """The head that the configuration names. width: of the predictor's tokens."""
    if config.head in DIRECT_HEADS:
        return DIRECT_HEADS[config.head](config, width)
    if config.head == "inverse_dynamics":
        return InverseDynamics(config)
    known = ", ".join([*DIRECT_HEADS, "inverse_dynamics"])
    raise ValueError(f"config.json: head is {config.head!r}; known: {known}")


class InverseDynamics(nn.Module):
    """Which action makes the effector move like this? Fitted in closed form, to recorded motion and its actions.

    Motion decides through a linear map of the last two steps and the planned displacements and turns; the effort of a
    grasp, which no motion shows, is the one after which recorded openings went as it is planned now. Which of the two
    answers for which number of an action is part of the fit, and so is how far ahead the plan is read: what a recorded
    motion did later tells of later actions, too, and a map that listens to it brakes too late.
    """

    def __init__(self, config: KinecloudConfig):
        super().__init__()
        actions = config.action_chunk * len(config.action_names)
        self.shape = config.action_chunk, len(config.action_names)
        self.unit, self.near = config.length_unit_m, max(1, sum(h <= NEAR_S + 1e-6 for h in config.horizons))
        self.two, self.horizons = config.dimensions == 2, tuple(config.horizons)
        self.soon = max(1, sum(h <= GRASP_S + 1e-6 for h in config.horizons))
        motion, grasp = 1 + 6 + 6 * self.near, 2 + self.soon
        self.register_buffer("linear", torch.zeros(motion, actions))
        self.register_buffer("openings", torch.zeros(config.remembered, grasp))
        self.register_buffer("actions", torch.zeros(config.remembered, actions))
        self.register_buffer("by_opening", torch.zeros(actions, dtype=torch.bool))

    def motion(self, prediction: KinecloudPrediction, geometry: CloudGeometry) -> Tensor:
        """What the linear map reads, [B,F], in length units and radians."""
        near, path_BP3 = slice(self.near), geometry.path_BP3
        path_BP3 = torch.cat([path_BP3[:, :1].expand(-1, max(3 - path_BP3.shape[1], 0), -1), path_BP3], 1)
        steps = torch.diff(path_BP3[:, -3:], dim=1)
        grasp_BH3, points_BHN3 = (
            flattened(ahead[:, near]) if self.two else ahead[:, near] for ahead in (prediction.grasp, prediction.points)
        )
        planned = (grasp_BH3 - geometry.centre_B3[:, None]) / self.unit
        _, turned = rigid_motion(geometry.offsets_BPN3[:, -1], (points_BHN3 - geometry.now_BN3[:, None]) / self.unit)
        one = torch.ones_like(path_BP3[:, 0, :1])
        return torch.cat([one, steps.flatten(1), planned.flatten(1), turned.flatten(1)], 1)

    def readings(self) -> dict[str, Tensor]:
        """What the linear map may be told of ``motion``, bool [F] by name: the last steps, and the plan up to each of
        the near horizons, without its turns or with them."""
        step = 1 + torch.arange(self.near).repeat_interleave(3)
        ahead = torch.cat([torch.zeros(7, dtype=step.dtype), step, step])
        turns = torch.arange(len(ahead)) >= 7 + 3 * self.near
        return {
            f"{seconds:g} s{' with turns' if turned else ''}": (ahead <= steps) & (turned | ~turns)
            for turned in (False, True)
            for steps, seconds in enumerate(self.horizons[: self.near], start=1)
        }

    def grasp(self, prediction: KinecloudPrediction, geometry: CloudGeometry) -> Tensor:
        """What is compared with recorded windows, [B,2+H], in length units: openings before, now and planned."""
        before = geometry.opening_BP[:, -2:]
        before = before if before.shape[1] == 2 else before.expand(-1, 2)
        return torch.cat([before, prediction.opening[:, : self.soon] / self.unit], 1)

    def forward(
        self, prediction: KinecloudPrediction, observed: Observed, state_BQ: Tensor, **_: Any
    ) -> dict[str, Tensor]:
        """actions: normalised, [B,K,A]."""
        moved_BV = self.motion(prediction, observed.geometry) @ self.get_buffer("linear")
        held_BV = explained(
            self.grasp(prediction, observed.geometry), self.get_buffer("openings"), self.get_buffer("actions")
        )
        return {"actions": torch.where(self.get_buffer("by_opening"), held_BV, moved_BV).unflatten(1, self.shape)}


def explained(queries_BG: Tensor, openings_MG: Tensor, actions_MV: Tensor) -> Tensor:
    """The actions that explain planned openings, number by number, [B,V]; without any recorded ones, 0.

    Bayes' rule over levels of an action: how often it was executed where openings were as they are now, times how near
    the plan is to what openings did after it on average. Single windows would mislead: pushing against things moves the
    jaws too, whatever their effort, and looks like a plan that is less steep than its execution will be.
    """
    if not len(openings_MG):
        return queries_BG.new_zeros(len(queries_BG), actions_MV.shape[1])
    level_L = torch.linspace(-1, 1, LEVELS, device=queries_BG.device, dtype=queries_BG.dtype)
    apart_BM = (queries_BG[:, None, :2] - openings_MG[:, :2]).square().sum(-1)
    alike_BM = (1 + apart_BM / ALIKE**2) ** -2
    of_level_LVM = torch.exp(-(((level_L[:, None, None] - actions_MV.T) * (LEVELS - 1)).square()) / 2)
    planned_BH, went_MH = (x[:, 2:] - x[:, 1:2] for x in (queries_BG, openings_MG))
    often_BLV = torch.einsum("bm,lvm->blv", alike_BM, of_level_LVM) + 1e-9
    after_BLVH = torch.einsum("bmh,lvm->blvh", alike_BM[..., None] * went_MH, of_level_LVM) / often_BLV[..., None]
    off_BLV = (after_BLVH - planned_BH[:, None, None]).square().sum(-1)
    likely_BLV = (often_BLV.log() - off_BLV / (2 * ALIKE**2)).softmax(1)
    return (likely_BLV * level_L[:, None]).sum(1)
