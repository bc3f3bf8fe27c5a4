"""From successes by task and training seed to means with 95 % intervals.

The mean is over tasks, of each task's share of successes. Tasks are kept as they are: nothing is said of other tasks.
What is drawn again, with replacement, are training seeds (where there are several), each with all its episodes on all
tasks, and then the episodes of each task and seed. Drawing n of n episodes again, of which k succeeded, is a binomial
draw, which is how it is done. Three training seeds tell little of the spread between them.

Shapes: R resamples, T tasks, S training seeds.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tests.benchmarks.pretraining_intervals import RESAMPLES, with_interval


@dataclass(frozen=True)
class Trials:
    """Of one row. counts: by task, (successes, episodes) of each training seed; all tasks have the same seeds."""

    name: str
    counts: Mapping[str, Sequence[tuple[int, int]]]

    def __post_init__(self) -> None:
        lengths = {len(found) for found in self.counts.values()}
        if len(lengths) != 1 or any(n < 1 for found in self.counts.values() for _, n in found):
            raise ValueError(f"{self.name}: every task needs episodes of every training seed")

    def rates(self) -> dict[str, float]:
        """Share of successes by task, mean over training seeds."""
        return {task: float(np.mean([k / n for k, n in found])) for task, found in self.counts.items()}

    @property
    def mean(self) -> float:
        return float(np.mean(list(self.rates().values())))

    def resampled(self) -> np.ndarray:
        """Means of all resamples, [R]."""
        table_TS2 = np.array([list(found) for found in self.counts.values()], np.int64)
        total_TS, rate_TS = table_TS2[..., 1], table_TS2[..., 0] / table_TS2[..., 1]
        seeds = total_TS.shape[1]
        random = np.random.default_rng([1, zlib.crc32(self.name.encode())])
        drawn_RS = random.integers(0, seeds, (RESAMPLES, seeds))
        total_TRS, rate_TRS = total_TS[:, drawn_RS], rate_TS[:, drawn_RS]
        return (random.binomial(total_TRS, rate_TRS) / total_TRS).mean((0, 2))


def figure(trials: Trials) -> dict[str, float]:
    """Mean, low and high end of its interval."""
    return with_interval(trials.mean, trials.resampled())


def difference(trials: Trials, other: Trials) -> dict[str, float]:
    """Of means: ``trials`` minus ``other``, drawn again apart from each other."""
    return with_interval(trials.mean - other.mean, trials.resampled() - other.resampled())
