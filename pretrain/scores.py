"""From errors of windows to figures with intervals: mean per clip, per source episode, over episodes.

Clips of one episode (two hands, several cameras, a replay) show the same motion, so an episode counts once however many
clips and windows it gave, and the interval is a bootstrap over episodes (Efron 1979, percentile, 1000 resamples).

Shapes: G episodes, M methods, K measures, H horizons, R resamples, X anything that is averaged.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.schema import ClipMeta
from pretrain.metrics import MEASURES, NO_MOTION

MODEL = "predictor"
RESAMPLES = 1000
_CHUNK = 2_000_000  # numbers of resampling held at once


@dataclass(frozen=True)
class ClipScore:
    """Errors on one clip, [M,K,H], mean over its windows, NaN where undefined. group: the source episode."""

    key: str
    group: str
    task: str
    instruction: str
    embodiment: str
    simulated: bool
    windows: int
    errors_MKH: np.ndarray


@dataclass(frozen=True)
class WindowScore:
    """ADE up to the last horizon of one window, and that of no motion, mm; NaN where undefined.

    number: of the window in its data set. clip: place in the list of clips.
    """

    number: int
    clip: int
    time: float
    ade_mm: float
    no_motion_ade_mm: float


class Scores:
    """Gathers the errors of windows and gives them by clip. methods, MEASURES and horizons are the axes M, K, H."""

    def __init__(self, horizons: list[float]):
        self.horizons = horizons
        self.methods: list[str] = [MODEL]
        self.windows: list[WindowScore] = []
        self._clips: dict[Hashable, tuple[int, ClipMeta, str]] = {}
        self._sums: list[np.ndarray] = []  # by clip [2,M,K,H]: sum and number of known values
        self._counts: list[int] = []

    def add(self, number: int, place: tuple[int, str], meta: ClipMeta, time: float, errors: dict[str, np.ndarray]):
        """One window. place: shard and key of its clip. errors: by method [K,H]; the same methods every time."""
        self.methods = list(errors)
        errors_MKH = np.stack(list(errors.values()))
        if place not in self._clips:
            self._clips[place] = len(self._clips), meta, place[1]
            self._sums.append(np.zeros((2, *errors_MKH.shape)))
            self._counts.append(0)
        clip = self._clips[place][0]
        known = np.isfinite(errors_MKH)
        self._sums[clip] += np.stack([np.where(known, errors_MKH, 0), known])
        self._counts[clip] += 1
        ade = list(MEASURES).index("ade_mm")
        ours, still = (float(errors[method][ade, -1]) for method in (MODEL, NO_MOTION))
        self.windows.append(WindowScore(number, clip, time, ours, still))

    @property
    def clips(self) -> list[ClipScore]:
        """All clips in the order of their first window."""
        return [self._clip(clip, meta, key) for clip, meta, key in self._clips.values()]

    def _clip(self, clip: int, meta: ClipMeta, key: str) -> ClipScore:
        total, count = self._sums[clip]
        errors_MKH = np.where(count > 0, total / np.maximum(count, 1), np.nan)
        task = meta.task or meta.instruction or "no instruction"
        return ClipScore(
            key, meta.group, task, meta.instruction, meta.embodiment, meta.simulated, self._counts[clip], errors_MKH
        )


@dataclass(frozen=True)
class Summary:
    """Mean over episodes, each [M,K,H]; NaN where no clip has a value. resampled_RX: means of bootstrap resamples, for
    ratios of methods on the same resamples. episodes: how many have a value."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    episodes: np.ndarray
    resampled: np.ndarray

    def value(self, method: int, measure: int, horizon: int) -> dict[str, Any] | None:
        """One figure as JSON: mean, 95 % interval (null with one episode, which says nothing of spread), episodes."""
        at = method, measure, horizon
        if not np.isfinite(self.mean[at]):
            return None
        interval = [None if self.episodes[at] < 2 else rounded(side[at]) for side in (self.low, self.high)]
        return {
            "mean": rounded(self.mean[at]),
            "low": interval[0],
            "high": interval[1],
            "episodes": int(self.episodes[at]),
        }

    def share(self, method: int, of: int, measure: int, horizon: int) -> dict[str, Any] | None:
        """Ratio of two methods' means, with its interval on common resamples; None where the second is 0 or unknown."""
        ours, theirs = (self.mean[m, measure, horizon] for m in (method, of))
        if not (np.isfinite(ours) and theirs > 0):
            return None
        ours_R, theirs_R = (self.resampled[:, m, measure, horizon] for m in (method, of))
        low, high = _middle((ours_R / np.where(theirs_R > 0, theirs_R, np.nan))[:, None])[:, 0]
        single = self.episodes[method, measure, horizon] < 2
        return {
            "ratio": rounded(ours / theirs),
            "low": None if single else rounded(low),
            "high": None if single else rounded(high),
        }


def nan_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is known; NaN where nothing is."""
    known = np.isfinite(values)
    total = np.where(known, values, 0).sum(0, dtype=np.float64)
    return np.where(known.any(0), total / np.maximum(known.sum(0), 1), np.nan)


def by_episode(clips: Sequence[ClipScore]) -> np.ndarray:
    """Mean over the clips of each episode, [G,M,K,H], by name of episode."""
    groups: dict[str, list[np.ndarray]] = defaultdict(list)
    for clip in clips:
        groups[clip.group].append(clip.errors_MKH)
    return np.stack([nan_mean(np.stack(errors)) for _, errors in sorted(groups.items())])


def summarize(clips: Sequence[ClipScore]) -> Summary:
    """Mean over episodes with a bootstrap interval; the same clips give the same figures."""
    groups = by_episode(clips)
    shape = groups.shape[1:]
    values_GX = groups.reshape(len(groups), -1)
    resampled_RX = _resampled_means(values_GX)
    low_X, high_X = _middle(resampled_RX)
    return Summary(
        nan_mean(groups),
        low_X.reshape(shape),
        high_X.reshape(shape),
        np.isfinite(groups).sum(0),
        resampled_RX.reshape(-1, *shape),
    )


def _middle(resampled_RX: np.ndarray) -> np.ndarray:
    """Ends of the middle 95 % of each column, [2,X]; NaN is left out, and is the answer where there is nothing else."""
    known_RX = np.isfinite(resampled_RX)
    ends_2X = np.full((2, resampled_RX.shape[1]), np.nan)
    whole_X, some_X = known_RX.all(0), known_RX.any(0) & ~known_RX.all(0)
    for of_X, percentile in ((whole_X, np.percentile), (some_X, np.nanpercentile)):  # the second is slow
        if of_X.any():
            ends_2X[:, of_X] = percentile(resampled_RX[:, of_X], [2.5, 97.5], axis=0)
    return ends_2X


def _resampled_means(values_GX: np.ndarray) -> np.ndarray:
    """Means over resamples of the rows, [R,X]; NaN where a resample holds no known value."""
    random = np.random.default_rng(0)
    known_GX = np.isfinite(values_GX)
    filled_GX, count = np.where(known_GX, values_GX, 0.0), len(values_GX)
    parts = []
    step = max(1, _CHUNK // count)
    for first in range(0, RESAMPLES, step):
        rows = min(step, RESAMPLES - first)
        drawn = random.integers(0, count, (rows, count)) + np.arange(rows)[:, None] * count
        weight_rG = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count).astype(np.float64)
        known_rX = weight_rG @ known_GX
        parts.append(np.where(known_rX > 0, weight_rG @ filled_GX / np.maximum(known_rX, 1), np.nan))
    return np.concatenate(parts)


def rounded(value: Any) -> float:
    """Four decimals: tenths of a micrometre, and more than any interval here resolves."""
    return round(float(value), 4)
