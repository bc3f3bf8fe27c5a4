"""What a direct head is given before it learns: its linear map, and the tasks in which its tokens are put to the test.

Shapes: B windows, W recorded windows, F features of the plan.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from align.linear import Linear, fitted
from align.recorded import recorded_windows
from align.run import AlignRun
from pretrain.model.direct import DirectHead
from pretrain.model.policy_kinecloud import KinecloudPolicy

TESTED = 1 / 3  # of the tasks,
TEST = 0.5  # in this first part of the training; then the tokens learn from all
PLAN = "plan"


@dataclass(frozen=True)
class Prepared:
    """straight: the head's linear map, of 1 and the plan. tested: clips that the tokens are not taught at first; none
    where no tasks are left out, and what they say counts as it is."""

    straight: Linear
    tested: frozenset[str]

    def begin(self, policy: KinecloudPolicy) -> None:
        """Gives the policy's head its map."""
        head = _head_of(policy)
        head.straight.bias.data[:] = self.straight.map_FV[0]
        head.straight.weight.data[:] = self.straight.map_FV[1:].T

    def untaught(self, clips: Sequence[str], progress: float) -> Tensor:
        """Which windows the tokens are not taught, bool [B]. clips: of each. progress: of the training, 0..1."""
        return torch.tensor([progress < TEST and clip in self.tested for clip in clips])

    def told(self, names: Sequence[str]) -> str:
        """How the next action is told, for people."""
        found = zip(names, self.straight.reading_V, self.straight.errors_V.tolist(), strict=False)
        maps = ", ".join(f"{name} by {reading} ({error:.2f} where left out)" for name, reading, error in found)
        return f"linear map of the plan: {maps}; {len(self.tested)} clips test the tokens"


def prepare(run: AlignRun, policy: KinecloudPolicy) -> Prepared:
    """policy: of the run, before it learns. Raises UserError when labelled clips are too short for any map."""
    head = _head_of(policy)
    recorded = recorded_windows(
        run, policy, len(run.known.horizons),
        lambda truth, geometry, window: {
            PLAN: head.plan(truth, geometry, policy.normalize(window["proprio"], "proprio"))
        },
    )  # fmt: skip
    plan_WF, folds = recorded.read[PLAN], recorded.folds()
    with_one_WF = torch.cat([torch.ones(len(plan_WF), 1), plan_WF], 1)
    readings = {name: torch.cat([torch.ones(1, dtype=torch.bool), part]) for name, part in head.readings().items()}
    straight = fitted(with_one_WF, recorded.actions_WV, readings, folds)
    count = math.ceil(TESTED * len(folds)) if run.leaves_out_tasks else 0
    chosen = torch.randperm(len(folds), generator=torch.Generator().manual_seed(run.seed))[:count].tolist()
    tested = [recorded.clips[w] for fold in chosen for w in folds[fold].nonzero()[:, 0].tolist()]
    return Prepared(straight, frozenset(tested))


def _head_of(policy: KinecloudPolicy) -> DirectHead:
    assert isinstance(policy.head, DirectHead)
    return policy.head
