"""Windows of a data set in a fixed order and in batches of bounded size, for what judges rather than trains."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from data.clips import Clip
from data.loader import WindowDataset, collate

MAX_WINDOWS = 64
MAX_POINTS = 64 * 256  # points per batch: clouds of 1024 points come 16 at a time


def spread(count: int, limit: int) -> list[int]:
    """At most ``limit`` of the numbers below ``count``, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, limit)).astype(int)).tolist() if count and limit else []


def in_batches(dataset: WindowDataset, numbers: Iterable[int]) -> Iterator[tuple[list[int], dict[str, Any]]]:
    """The windows of these numbers in their order, as batches; the clouds of a batch have equally many points.

    A window is cut with its own number as seed, so that it is the same whoever reads it.
    """
    waiting: list[int] = []
    samples: list[dict[str, Any]] = []
    for number in numbers:
        sample = dataset[(number, number)]
        points = sample["past"].shape[1]
        full = len(samples) >= min(MAX_WINDOWS, max(1, MAX_POINTS // points))
        if samples and (full or samples[0]["past"].shape[1] != points):
            yield waiting, collate(samples)
            waiting, samples = [], []
        waiting.append(number)
        samples.append(sample)
    if samples:
        yield waiting, collate(samples)


def clip_windows(dataset: WindowDataset, stride: int) -> Iterator[tuple[Clip, dict[str, Any]]]:
    """Batches of windows of one clip each: every ``stride``-th window of the whole set, in order."""
    numbers: dict[tuple[int, str], list[int]] = defaultdict(list)
    for number in range(0, len(dataset), stride):
        window = dataset.windows[number]
        numbers[window.shard, window.key].append(number)
    for chosen in numbers.values():
        clip = dataset.clip_of(chosen[0])
        for _, window in in_batches(dataset, chosen):
            yield clip, window
