"""The fixed list of simulated episodes that a configuration stands for. Pure: starts no simulator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from data.simulation.config import SimulateConfig
from data.simulation.tasks import INSTRUCTIONS

CLOSEUPS_PER_JOB = 3
Kind = Literal["robot", "hand", "closeup"]
_KIND_NUMBER = {"robot": 1, "hand": 2, "closeup": 3}


@dataclass(frozen=True)
class Job:
    """A few episodes that share one compiled scene. ``episodes`` are indices within (kind, task)."""

    kind: Kind
    task: str | None
    episodes: tuple[int, ...]
    config: SimulateConfig
    seed: int

    @property
    def name(self) -> str:
        """For logs and failures."""
        return f"{self.task or 'closeup'} {self.kind} {self.episodes[0]}..{self.episodes[-1]}"

    @property
    def items(self) -> tuple[str, ...]:
        """Names of the episodes, without suffix; letters, digits and dashes."""
        return tuple(self.episode_name(index) for index in self.episodes)

    def episode_name(self, index: int) -> str:
        """For example ``drawer-open-v3-hand-002`` or ``closeup-011``."""
        return f"closeup-{index:03d}" if self.kind == "closeup" else f"{self.task}-{self.kind}-{index:03d}"

    def motion(self, index: int) -> int:
        """Which recorded motion of the task the episode shows."""
        return index + (self.config.hand_first if self.kind == "hand" else 0)

    def group(self, index: int) -> str:
        """Episodes that show the same recorded motion share it: a robot episode and its twin."""
        return f"closeup-{index:03d}" if self.kind == "closeup" else f"{self.task}-{self.motion(index):03d}"

    def generator(self, index: int) -> np.random.Generator:
        """Everything random about the looks of one episode, whatever else is made and by whom."""
        task = list(INSTRUCTIONS).index(self.task) if self.task else 0
        return np.random.default_rng([self.seed, _KIND_NUMBER[self.kind], task, index])


def episode_jobs(config: SimulateConfig, seed: int) -> list[Job]:
    """All jobs, longest first, so that workers finish together."""
    closeups = range(config.closeup_clips)
    jobs = [
        Job("closeup", None, tuple(closeups[start : start + CLOSEUPS_PER_JOB]), config, seed)
        for start in range(0, config.closeup_clips, CLOSEUPS_PER_JOB)
    ]
    counts: tuple[tuple[Kind, int], ...] = (("robot", config.robot_episodes), ("hand", config.hand_episodes))
    for kind, count in counts:
        if count:
            jobs += [Job(kind, task, tuple(range(count)), config, seed) for task in config.tasks()]
    return jobs
