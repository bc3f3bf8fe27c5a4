"""From the errors of episodes, trained with several seeds, to means with intervals.

A mean is over episodes and seeds alike. Its 95 % interval is a bootstrap over both, crossed (Owen 2007): each of 2000
resamples draws episodes with replacement and, for every row on its own, seeds with replacement. All rows see the same
episodes in a resample, so differences and ratios of rows are of the same episodes. Three seeds are few: an interval
knows of the spread between them only what three show.

Shapes: S seeds, G episodes, R resamples.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

RESAMPLES = 2000


@dataclass(frozen=True)
class Row:
    """One measure of one row at one horizon. values_SG: NaN where an episode has none, in all seeds and rows alike."""

    name: str
    values_SG: np.ndarray

    @property
    def mean(self) -> float:
        return float(np.nanmean(self.values_SG))

    def resampled(self) -> np.ndarray:
        """Means of all resamples, [R]."""
        seeds, episodes = self.values_SG.shape
        count_RG = _counts(episodes, (0,))
        count_RS = _counts(seeds, (1, zlib.crc32(self.name.encode())))
        known_SG = np.isfinite(self.values_SG)
        total_R = np.einsum("rs,sg,rg->r", count_RS, np.nan_to_num(self.values_SG), count_RG, optimize=True)
        return total_R / np.maximum(np.einsum("rs,sg,rg->r", count_RS, known_SG, count_RG, optimize=True), 1)


@lru_cache(256)
def _counts(size: int, seed: tuple[int, ...]) -> np.ndarray:
    """How often each of ``size`` things is drawn in each resample, f64 [R,size]."""
    drawn = np.random.default_rng(seed).integers(0, size, (RESAMPLES, size))
    return (drawn[:, :, None] == np.arange(size)).sum(1).astype(np.float64)


def with_interval(mean: float, resampled_R: np.ndarray) -> dict[str, float]:
    """The mean and the 95 % percentile interval of its resamples."""
    low, high = np.percentile(resampled_R, [2.5, 97.5])
    return {"mean": round(mean, 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def figure(row: Row) -> dict[str, float]:
    """Mean, low and high end of its interval."""
    return with_interval(row.mean, row.resampled())


def difference(row: Row, other: Row) -> dict[str, float]:
    """Of means: ``row`` minus ``other``."""
    return with_interval(row.mean - other.mean, row.resampled() - other.resampled())


def ratio(row: Row, other: Row) -> dict[str, float]:
    """Of means: ``row`` over ``other``."""
    return with_interval(row.mean / other.mean, row.resampled() / other.resampled())


class Board:
    """All results of one benchmark: the JSON documents of ``pretraining_cell``."""

    def __init__(self, results: Iterable[dict[str, Any]]):
        self._results: dict[str, list[dict[str, Any]]] = {}
        for result in results:
            self._results.setdefault(result["cell"], []).append(result)

    def __contains__(self, cell: str) -> bool:
        return cell in self._results

    def of(self, cell: str) -> list[dict[str, Any]]:
        """The results of one row, by seed."""
        return sorted(self._results[cell], key=lambda result: result["seed"])

    def row(self, cell: str, reading: str, subset: str, measure: str, horizon: int = -1) -> Row | None:
        """None when no episode of the subset has a value. Raises ValueError when seeds have seen other episodes."""
        found = [result["readings"][reading].get(subset) for result in self.of(cell)]
        if None in found:
            return None
        if any(part["episodes"] != found[0]["episodes"] for part in found):
            raise ValueError(f"{cell}: seeds were judged on different episodes")
        values = [[by_horizon[horizon] for by_horizon in part["errors"][measure]] for part in found]
        values_SG = np.array(values, np.float64)
        return Row(f"{cell}/{reading}", values_SG) if np.isfinite(values_SG).any() else None
