"""Fitting the inverse-dynamics head: from recorded motion to recorded actions, in closed form.

Shapes: W windows, F features of motion, G openings, V numbers of a chunk of actions (K x A).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from align.linear import Linear, fitted
from align.recorded import Recorded, recorded_windows
from align.run import AlignRun
from pretrain.model.heads import InverseDynamics, explained
from pretrain.model.policy_kinecloud import KinecloudPolicy

MOTION, OPENINGS = "motion", "openings"


@dataclass(frozen=True)
class Fit:
    """moved: the head's linear map of motion. by_opening_V: of the head. held_V: mean absolute error of what openings
    tell about normalised actions in the tasks or recordings that were left out."""

    moved: Linear
    by_opening_V: Tensor
    held_V: Tensor

    def describe(self, names: Sequence[str]) -> dict[str, Any]:
        """The fit of the next action as JSON values."""
        told = zip(names, self.by_opening_V.tolist(), strict=False)
        errors = {MOTION: self.moved.errors_V, OPENINGS: self.held_V}
        return {
            "motion_read": self.moved.reading_V[: len(names)],
            "ridge": self.moved.ridge_V[: len(names)],
            "told_by": {name: OPENINGS if by_opening else MOTION for name, by_opening in told},
            "errors": {name: errors_V[: len(names)].tolist() for name, errors_V in errors.items()},
        }


def with_fitted_head(run: AlignRun, policy: KinecloudPolicy) -> tuple[KinecloudPolicy, Fit]:
    """The policy with a head that was fitted to the run's labelled clips. Raises UserError when they are too few."""
    head = policy.head
    assert isinstance(head, InverseDynamics)
    recorded = recorded_windows(
        run, policy, head.near,
        lambda truth, geometry, _: {MOTION: head.motion(truth, geometry), OPENINGS: head.grasp(truth, geometry)},
    )  # fmt: skip
    chosen = fit(recorded, head.readings())
    policy.config.remembered = len(recorded.clips)
    policy.head = InverseDynamics(policy.config)
    for name, value in (
        ("linear", chosen.moved.map_FV),
        ("openings", recorded.read[OPENINGS]),
        ("actions", recorded.actions_WV),
        ("by_opening", chosen.by_opening_V),
    ):
        policy.head.get_buffer(name).copy_(value)
    return policy, chosen


def fit(recorded: Recorded, readings: Mapping[str, Tensor]) -> Fit:
    """For each number of an action the linear map of motion, and whether motion or openings tell it better in what
    was left out: within a task, openings tell how far it has come, and with that its motion, and in another task
    they do not. readings: parts of the motion that may be read alone, bool [F] by name."""
    folds = recorded.folds()
    moved = fitted(recorded.read[MOTION], recorded.actions_WV, readings, folds)
    held_V = (_explained_elsewhere(recorded, folds) - recorded.actions_WV).abs().mean(0)
    return Fit(moved, held_V < moved.errors_V, held_V)


def _explained_elsewhere(recorded: Recorded, folds: Sequence[Tensor]) -> Tensor:
    """What explains the openings of windows by those of other folds."""
    openings_WG, actions_WV = recorded.read[OPENINGS], recorded.actions_WV
    answer = torch.zeros_like(actions_WV)
    for own in folds:
        others = ~own if len(folds) > 1 else own
        answer[own] = explained(openings_WG[own], openings_WG[others], actions_WV[others])
    return answer
