"""What labelled clips recorded, as heads that are solved in closed form read it: true motion and its actions.

What a policy will be given is predicted motion; what it learns from is the true motion that followed, of which the
labelled clips tell the actions. Nothing is predicted here, so no picture is looked at.

Shapes: W windows, F features, V numbers of a chunk of actions (K x A).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from align.labels import task_of
from align.run import AlignRun
from data.loader import WindowDataset
from pipeline.errors import UserError
from pretrain.model.geometry import CloudGeometry, geometry_of
from pretrain.model.modeling_kinecloud import KinecloudPrediction
from pretrain.model.policy_kinecloud import KinecloudPolicy
from pretrain.reading import clip_windows

MOST_WINDOWS = 20_000  # evenly spread; maps of some dozen features need no more
MOST_FOLDS = 20
Read = Callable[[KinecloudPrediction, CloudGeometry, Mapping[str, Any]], Mapping[str, Tensor]]
_GEOMETRY = ("intrinsics", "past", "past_visible", "past_valid", "past_opening", "past_grasp")


@dataclass(frozen=True)
class Recorded:
    """Labelled windows whose near future and next actions are all known. read: what the head reads, [W,F] by name;
    actions_WV: normalised. clips: of each window, and what is left out with it, its task or recording."""

    read: dict[str, Tensor]
    actions_WV: Tensor
    clips: list[str]
    left_out: list[str]

    def folds(self) -> list[Tensor]:
        """The windows that are left out together, bool [W] each. Of many tasks or recordings several share a fold."""
        fold = {name: number % MOST_FOLDS for number, name in enumerate(sorted(set(self.left_out)))}
        of_window_W = torch.tensor([fold[name] for name in self.left_out])
        return [of_window_W == number for number in range(max(fold.values()) + 1)]


@torch.no_grad()
def recorded_windows(run: AlignRun, policy: KinecloudPolicy, near: int, read: Read) -> Recorded:
    """near: horizons that have to be known. Raises UserError when no window has them and its whole chunk of actions."""
    windows = WindowDataset(run.train_shards, run.window, labels="only", all_points=True)
    found: dict[str, list[Tensor]] = {}
    actions, clips, left_out = [], list[str](), list[str]()
    for clip, window in clip_windows(windows, 1 + len(windows) // MOST_WINDOWS):
        truth = KinecloudPrediction(
            points=window["future"], opening=window["future_opening"], grasp=window["future_grasp"]
        )
        geometry = geometry_of(policy.predictor.config, *(window[name] for name in _GEOMETRY))
        known_W = window["future_valid"][:, :near].all(1) & window["actions_valid"].all(1)
        for name, read_WF in read(truth, geometry, window).items():
            found.setdefault(name, []).append(torch.nan_to_num(read_WF[known_W]))
        actions.append(policy.normalize(window["actions"], "action").flatten(1)[known_W])
        count = int(known_W.sum())
        clips += [window["key"][0]] * count
        left_out += [task_of(clip.meta) if run.leaves_out_tasks else clip.meta.group] * count
    if not clips:
        raise UserError(
            f"align.head: no labelled clip is as long as the near future ({run.known.horizons[near - 1]:g} s) and a "
            "chunk of actions. Record longer episodes or lower align.action_chunk."
        )
    return Recorded({name: torch.cat(parts) for name, parts in found.items()}, torch.cat(actions), clips, left_out)
