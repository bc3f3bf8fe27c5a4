"""Statistics as LeRobot tells them (min, max, mean, std, count, five quantiles), of much data in little memory.

Of arrays with several axes per frame LeRobot takes them over all but the last one: points [T,N,3] have three means. NaN
is unknown, not a value: it does not count.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
BINS = 5000  # between smallest and largest value: the error of a quantile is at most one of them
_SMALL, _LARGE = 150, 300  # pictures from 300 pixels on are thinned to about 150, as LeRobot does


def rows_of(values: np.ndarray) -> np.ndarray:
    """[T,...,D] or [T] -> f64 [K,D]"""
    return values.reshape(-1, values.shape[-1] if values.ndim > 1 else 1).astype(np.float64)


def summary(values: np.ndarray) -> dict[str, list[Any]]:
    """Of the frames of one episode [T,...] without NaN, exactly."""
    rows_KD = rows_of(values)
    quantiles = np.quantile(rows_KD, list(QUANTILES.values()), axis=0)
    return {
        "min": rows_KD.min(0).tolist(),
        "max": rows_KD.max(0).tolist(),
        "mean": rows_KD.mean(0).tolist(),
        "std": rows_KD.std(0).tolist(),
        "count": [len(values)],
        **{name: row.tolist() for name, row in zip(QUANTILES, quantiles, strict=True)},
    }


@dataclass
class Moments:
    """First pass over [K,D]: everything but quantiles. frames: of which something is known."""

    frames: int = 0
    known_D: np.ndarray = field(default_factory=lambda: np.zeros(1))
    min_D: np.ndarray = field(default_factory=lambda: np.full(1, np.inf))
    max_D: np.ndarray = field(default_factory=lambda: np.full(1, -np.inf))
    mean_D: np.ndarray = field(default_factory=lambda: np.zeros(1))
    squares_D: np.ndarray = field(default_factory=lambda: np.zeros(1))  # of deviations from the mean

    def add(self, values: np.ndarray) -> None:
        """[T,...]; sums are put together by the parallel formula of Chan, Golub and LeVeque (1979)."""
        rows_KD = rows_of(values)
        known_KD = ~np.isnan(rows_KD)
        count_D = known_KD.sum(0).astype(np.float64)
        mean_D = np.where(known_KD, rows_KD, 0).sum(0) / np.maximum(count_D, 1)
        squares_D = (np.where(known_KD, rows_KD - mean_D, 0) ** 2).sum(0)
        total_D = self.known_D + count_D
        share_D = count_D / np.maximum(total_D, 1)
        delta_D = mean_D - self.mean_D
        self.squares_D = self.squares_D + squares_D + delta_D**2 * self.known_D * share_D
        self.mean_D = self.mean_D + delta_D * share_D
        self.known_D = total_D
        self.min_D = np.minimum(self.min_D, np.where(known_KD, rows_KD, np.inf).min(0))
        self.max_D = np.maximum(self.max_D, np.where(known_KD, rows_KD, -np.inf).max(0))
        self.frames += int(known_KD.reshape(len(values), -1).any(1).sum())

    @property
    def known(self) -> bool:
        """Whether there is a value in every dimension."""
        return bool((self.known_D > 0).all())

    def told(self) -> dict[str, list[Any]]:
        std_D = np.sqrt(self.squares_D / self.known_D)
        return {
            "min": self.min_D.tolist(),
            "max": self.max_D.tolist(),
            "mean": self.mean_D.tolist(),
            "std": std_D.tolist(),
            "count": [self.frames],
        }


class Spread:
    """Second pass over [K,D], between limits that are known by then: quantiles."""

    def __init__(self, min_D: np.ndarray, max_D: np.ndarray):
        self.min_D, self.max_D = min_D, max_D
        self._counts = np.zeros(len(min_D) * BINS, np.int64)

    def add(self, values: np.ndarray) -> None:
        rows_KD = rows_of(values)
        width_D = np.where(self.max_D > self.min_D, self.max_D - self.min_D, 1)
        place_KD = np.nan_to_num((rows_KD - self.min_D) / width_D * BINS).astype(np.int64).clip(0, BINS - 1)
        place_KD += np.arange(len(self.min_D)) * BINS
        self._counts += np.bincount(place_KD[~np.isnan(rows_KD)], minlength=len(self._counts))

    def told(self) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {name: [] for name in QUANTILES}
        for least, most, counts in zip(self.min_D, self.max_D, self._counts.reshape(-1, BINS), strict=True):
            upto = np.cumsum(counts)
            for name, share in QUANTILES.items():
                wanted = share * upto[-1]
                place = int(np.searchsorted(upto, wanted))
                inside = (wanted - (upto[place] - counts[place])) / counts[place] if counts[place] else 0.0
                found[name].append(float(least + (most - least) * (place + inside) / BINS))
        return found


class Pixels:
    """How often each value occurs in each channel of many pictures; from that, everything is exact."""

    def __init__(self, channels: int, values: int, unit: float):
        """unit: of a value, as LeRobot tells statistics: 1/255 for colours, 1 for depth in millimetres."""
        self.frames, self.unit = 0, unit
        self.counts_CV = np.zeros((channels, values), np.int64)

    def add(self, image: np.ndarray) -> None:
        """[H,W,C] or [H,W]"""
        height, width = image.shape[:2]
        step = max(height, width) // _SMALL if max(height, width) >= _LARGE else 1
        thinned = image[::step, ::step].reshape(-1, len(self.counts_CV))
        for channel, counts_V in enumerate(self.counts_CV):
            counts_V += np.bincount(thinned[:, channel], minlength=len(counts_V))
        self.frames += 1

    def merge(self, other: Pixels) -> None:
        self.frames += other.frames
        self.counts_CV += other.counts_CV

    def told(self) -> dict[str, list[Any]]:
        """Each statistic [C,1,1], which is the shape that LeRobot asks for."""
        columns: dict[str, list[float]] = {}
        for counts_V in self.counts_CV:
            values_V, upto = np.arange(len(counts_V)), np.cumsum(counts_V)
            there = np.flatnonzero(counts_V)
            mean = (values_V * counts_V).sum() / upto[-1]
            found = {
                "min": there[0],
                "max": there[-1],
                "mean": mean,
                "std": np.sqrt(((values_V - mean) ** 2 * counts_V).sum() / upto[-1]),
                **{name: np.searchsorted(upto, share * upto[-1]) for name, share in QUANTILES.items()},
            }
            for name, value in found.items():
                columns.setdefault(name, []).append(float(value) * self.unit)
        told: dict[str, list[Any]] = {name: [[[value]] for value in column] for name, column in columns.items()}
        return told | {"count": [self.frames]}

    def stored(self) -> dict[str, Any]:
        """As JSON: counts between the first and the last value that occurs."""
        rows = []
        for counts_V in self.counts_CV:
            there = np.flatnonzero(counts_V)
            first, last = (int(there[0]), int(there[-1]) + 1) if len(there) else (0, 0)
            rows.append({"first": first, "counts": counts_V[first:last].tolist()})
        return {"frames": self.frames, "channels": rows}

    def restore(self, stored: dict[str, Any]) -> None:
        """Adds what ``stored`` told."""
        self.frames += stored["frames"]
        for counts_V, row in zip(self.counts_CV, stored["channels"], strict=True):
            counts_V[row["first"] : row["first"] + len(row["counts"])] += np.array(row["counts"], np.int64)


def pixels_of(series: str) -> Pixels:
    """An empty count for a series of pictures of the format (data.schema.PICTURES)."""
    return Pixels(1, 1 << 16, 1.0) if series == "depths" else Pixels(3, 256, 1 / 255)
