"""Fitting the inverse-dynamics head: from recorded motion to recorded actions, in closed form.

What a policy will be given is predicted motion; what it learns from is the true motion that followed, of which the
labelled clips tell the actions. Nothing is predicted here, so no picture is looked at.

Shapes: W windows, F features of motion, G openings, V numbers of a chunk of actions (K x A).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from align.run import AlignRun
from data.loader import WindowDataset
from pipeline.errors import UserError
from pretrain.model.geometry import geometry_of
from pretrain.model.heads import NEAR_S, InverseDynamics, explained
from pretrain.model.modeling_kinecloud import KinecloudPrediction
from pretrain.model.policy_kinecloud import KinecloudPolicy
from pretrain.reading import clip_windows

RIDGES = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # times the windows; motion counts in units of 0.1 m


@dataclass(frozen=True)
class Recorded:
    """Labelled windows whose near future and next actions are all known. motion_WF, openings_WG: what the head reads;
    actions_WV: normalised; clips, tasks: of each window. readings: parts of the motion that may be read alone, bool [F]
    by name."""

    motion_WF: Tensor
    openings_WG: Tensor
    actions_WV: Tensor
    clips: list[str]
    tasks: list[str]
    readings: dict[str, Tensor]


@dataclass(frozen=True)
class Fit:
    """linear_FV and by_opening_V of the head. reading_V, ridge_V: the chosen ones. errors: mean absolute error of
    normalised actions on tasks that were left out (on clips, where there is one task), by what answers."""

    linear_FV: Tensor
    by_opening_V: Tensor
    reading_V: list[str]
    ridge_V: list[float]
    errors: dict[str, list[float]]


def with_fitted_head(run: AlignRun, policy: KinecloudPolicy) -> tuple[KinecloudPolicy, Fit]:
    """The policy with a head that was fitted to the run's labelled clips. Raises UserError when they are too few."""
    windows = WindowDataset(run.train_shards, run.window, labels="only", all_points=True)
    recorded = recorded_windows(policy, windows)
    chosen = fit(recorded)
    policy.config.remembered = len(recorded.clips)
    head = InverseDynamics(policy.config)
    for name, value in (
        ("linear", chosen.linear_FV),
        ("openings", recorded.openings_WG),
        ("actions", recorded.actions_WV),
        ("by_opening", chosen.by_opening_V),
    ):
        head.get_buffer(name).copy_(value)
    policy.head = head
    return policy, chosen


@torch.no_grad()
def recorded_windows(policy: KinecloudPolicy, windows: WindowDataset) -> Recorded:
    """Raises UserError when no window has the whole near future and chunk of actions."""
    head, config = policy.head, policy.predictor.config
    assert isinstance(head, InverseDynamics)
    motion, openings, actions = [], [], []
    clips: list[str] = []
    tasks: list[str] = []
    for clip, window in clip_windows(windows, 1):
        truth = KinecloudPrediction(
            points=window["future"], opening=window["future_opening"], grasp=window["future_grasp"]
        )
        geometry = geometry_of(config, *(window[name] for name in _GEOMETRY))
        known_W = window["future_valid"][:, : head.near].all(1) & window["actions_valid"].all(1)
        motion.append(head.motion(truth, geometry)[known_W])
        openings.append(torch.nan_to_num(head.grasp(truth, geometry)[known_W]))
        actions.append(policy.normalize(window["actions"], "action").flatten(1)[known_W])
        clips += [window["key"][0]] * int(known_W.sum())
        tasks += [clip.meta.task or clip.meta.instruction] * int(known_W.sum())
    if not clips:
        raise UserError(
            f"align.head: no labelled clip is as long as the near future ({NEAR_S} s) and a chunk of actions. Record "
            "longer episodes or lower align.action_chunk."
        )
    return Recorded(torch.cat(motion), torch.cat(openings), torch.cat(actions), clips, tasks, head.readings())


_GEOMETRY = ("intrinsics", "past", "past_visible", "past_valid", "past_opening", "past_grasp")


def fit(recorded: Recorded) -> Fit:
    """For each number of an action the linear map, of the part of the motion and with the ridge that serve tasks best
    that it was not fitted to, and whether motion or openings tell it better there: within a task, openings tell how far
    it has come, and with that its motion, and in another task they do not."""
    X, Y = recorded.motion_WF.double(), recorded.actions_WV.double()
    tasks, clips = _groups(recorded.tasks), _groups(recorded.clips)
    apart = tasks if len(tasks) > 1 else clips
    options = list(product(recorded.readings, RIDGES))
    parts = {name: X * reading_F for name, reading_F in recorded.readings.items()}  # what is not read has no weight
    moved_OWV = torch.stack([_left_out(parts[reading], Y, apart, ridge) for reading, ridge in options])
    best_V = (moved_OWV - Y).square().mean(1).argmin(0)
    chosen_V = [options[number] for number in best_V.tolist()]
    linear_FV = torch.cat([_ridge(parts[name], Y[:, [v]], ridge) for v, (name, ridge) in enumerate(chosen_V)], 1)
    moved_V = (moved_OWV - Y).abs().mean(1).gather(0, best_V[None])[0]
    held_V = (_explained_elsewhere(recorded, apart) - recorded.actions_WV).abs().mean(0)
    errors = {"motion": moved_V.tolist(), "openings": held_V.tolist()}
    readings, ridges = (list(chosen) for chosen in zip(*chosen_V, strict=True))
    return Fit(linear_FV.float(), held_V < moved_V, readings, ridges, errors)


def _groups(names: Sequence[str]) -> list[Tensor]:
    """For each name, which rows are of it, bool [W]."""
    return [torch.tensor([name == this for name in names]) for this in sorted(set(names))]


def _ridge(X: Tensor, Y: Tensor, ridge: float) -> Tensor:
    """[W,F], [W,V] -> [F,V]."""
    return torch.linalg.solve(X.T @ X + ridge * len(X) * torch.eye(X.shape[1], dtype=X.dtype), X.T @ Y)


def _left_out(X: Tensor, Y: Tensor, groups: list[Tensor], ridge: float) -> Tensor:
    """What rows are given by a map that was fitted to the other groups; with one group alone, to itself."""
    answer = torch.zeros_like(Y)
    for own in groups:
        others = ~own if len(groups) > 1 else own
        answer[own] = X[own] @ _ridge(X[others], Y[others], ridge)
    return answer


def _explained_elsewhere(recorded: Recorded, groups: list[Tensor]) -> Tensor:
    """What explains the openings of rows by those of other groups."""
    answer = torch.zeros_like(recorded.actions_WV)
    for own in groups:
        others = ~own if len(groups) > 1 else own
        answer[own] = explained(recorded.openings_WG[own], recorded.openings_WG[others], recorded.actions_WV[others])
    return answer


def describe(chosen: Fit, names: Sequence[str]) -> dict[str, Any]:
    """The fit of the next action as JSON values."""
    return {
        "motion_read": chosen.reading_V[: len(names)],
        "ridge": chosen.ridge_V[: len(names)],
        "told_by": {
            name: "openings" if by_opening else "motion"
            for name, by_opening in zip(names, chosen.by_opening_V.tolist(), strict=False)  # of the next action
        },
        "errors": {name: values[: len(names)] for name, values in chosen.errors.items()},
    }
