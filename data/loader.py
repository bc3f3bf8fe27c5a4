"""Training windows from packed shards, in an order that is a pure function of seed and step.

A run reads an endless sequence of samples from its beginning on; batch k of rank r, of W ranks with B samples each, is
positions (k*W + r)*B ... (k*W + r + 1)*B. Nothing else decides what is read, so a run resumes at the exact sample.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from data.clips import Clip, Shard
from data.config import WindowConfig
from data.geometry import invert_rigid, transform
from data.letterbox import letterbox
from data.resample import SLACK_S, resample_points, resample_scalar
from pipeline.errors import UserError

CACHED_CLIPS = 512


@dataclass(frozen=True)
class Window:
    """Where a sample comes from: a clip and the frame that is ``now``."""

    shard: int
    key: str
    now: int


class WindowDataset(Dataset):
    """All windows of a set of shards. Items are drawn by (window number, seed of what is random about it)."""

    def __init__(self, shards: list[Path], window: WindowConfig, labelled_only: bool = False, all_points: bool = False):
        """labelled_only: only clips with actions, and the samples carry them.
        all_points: keep every point in its order (evaluation); otherwise a random subset of ``window.points``."""
        self.config = window
        self.labelled = labelled_only
        self.all_points = all_points
        self._shards = [Shard(path) for path in shards]
        self._cache: OrderedDict[tuple[int, str], Clip] = OrderedDict()
        self.windows: list[Window] = []
        for number, shard in enumerate(self._shards):
            for key in shard.keys:
                if labelled_only and shard.meta(key).action_spec is None:
                    continue
                times = shard.array(key, "timestamps")
                last = np.searchsorted(times, times[-1] - window.horizons_s[0] + SLACK_S, side="right")
                self.windows += [Window(number, key, now) for now in range(int(last))]

    def __len__(self) -> int:
        return len(self.windows)

    def clip_of(self, index: int) -> Clip:
        """The clip that a window is cut from."""
        window = self.windows[index]
        place = (window.shard, window.key)
        if place not in self._cache:
            self._cache[place] = self._shards[window.shard].clip(window.key)
            if len(self._cache) > CACHED_CLIPS:
                self._cache.popitem(last=False)
        return self._cache[place]

    def __getitem__(self, item: tuple[int, int]) -> dict[str, Any]:
        index, seed = item
        clip, now = self.clip_of(index), self.windows[index].now
        chosen = np.arange(clip.arrays["points"].shape[1])
        if not self.all_points:
            chosen = np.random.default_rng(seed).permutation(np.resize(chosen, max(len(chosen), self.config.points)))
            chosen = chosen[: self.config.points]
        sample = cut(clip, now, chosen, self.config) | {"seed": seed}
        if self.labelled:
            sample |= labels(clip, now, self.config.action_chunk)
        return sample


def cut(clip: Clip, now: int, chosen: np.ndarray, config: WindowConfig) -> dict[str, Any]:
    """One window of a clip as arrays; see the table of shapes in docs/architecture.md."""
    times = clip.arrays["timestamps"]
    points_TN3 = _in_camera_of(clip, now, chosen)
    visible_TN = clip.arrays["visible"][:, chosen]
    past_t = times[now] + np.asarray(config.past_s)
    future_t = times[now] + np.asarray(config.horizons_s)
    past, past_visible = resample_points(points_TN3, visible_TN, times, past_t)
    future, future_visible = resample_points(points_TN3, visible_TN, times, future_t)
    past[-1], past_visible[-1] = points_TN3[now], visible_TN[now]
    image, intrinsics = letterbox(clip.image(now), clip.arrays["intrinsics"], config.image_size)
    return {
        "image": np.ascontiguousarray(image.transpose(2, 0, 1)),
        "intrinsics": intrinsics,
        "past": past,
        "past_visible": past_visible,
        "past_valid": past_t >= times[0] - SLACK_S,
        "past_opening": resample_scalar(clip.arrays["opening"], times, past_t),
        "future": future,
        "future_visible": future_visible,
        "future_valid": future_t <= times[-1] + SLACK_S,
        "future_opening": resample_scalar(clip.arrays["opening"], times, future_t),
        "text": clip.meta.instruction,
        "embodiment": clip.meta.embodiment,
        "key": clip.key,
        "time": float(times[now]),
    }


def labels(clip: Clip, now: int, chunk: int) -> dict[str, Any]:
    """The next ``chunk`` executed actions, and the proprioception now."""
    actions = clip.arrays["actions"][now : now + chunk]
    valid = np.arange(chunk) < len(actions)
    padded = np.concatenate([actions, np.zeros((chunk - len(actions), actions.shape[1]), np.float32)])
    return {"actions": padded, "actions_valid": valid, "proprio": clip.arrays["proprio"][now]}


def _in_camera_of(clip: Clip, now: int, chosen: np.ndarray) -> np.ndarray:
    """Points of all frames in the camera frame of frame ``now``, float32 [T,n,3]."""
    points = clip.arrays["points"][:, chosen]
    world_from_camera = clip.arrays["world_from_camera"]
    if (world_from_camera == world_from_camera[now]).all():
        return points
    now_from_camera = invert_rigid(world_from_camera[now].astype(np.float64)) @ world_from_camera
    return transform(now_from_camera, points).astype(np.float32)


def window_at(position: int, count: int, seed: int) -> tuple[int, int]:
    """(window number, seed of the sample) at a position of the endless sequence: a fresh permutation per epoch."""
    epoch, place = divmod(position, count)
    sample_seed = np.random.SeedSequence([seed, position]).generate_state(1, np.uint64)[0] >> 1  # fits an i64
    return int(_permutation(count, seed, epoch)[place]), int(sample_seed)


@lru_cache(4)
def _permutation(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(count)


class _Batches(Sampler[list[tuple[int, int]]]):
    """Endless batches of one rank, as (window number, seed); ``first``: see ``batches``."""

    def __init__(self, count: int, batch_size: int, seed: int, first: int, rank: int, world: int):
        self._count, self._size, self._seed = count, batch_size, seed
        self._first, self._stride = first + rank * batch_size, world * batch_size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for first in itertools.count(self._first, self._stride):
            yield [window_at(position, self._count, self._seed) for position in range(first, first + self._size)]


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Stacks arrays to tensors [B, ...]; keeps strings as lists."""
    batch: dict[str, Any] = {}
    for name, first in samples[0].items():
        values = [sample[name] for sample in samples]
        batch[name] = values if isinstance(first, str) else torch.from_numpy(np.stack([np.asarray(v) for v in values]))
    return batch


def batches(
    dataset: WindowDataset,
    batch_size: int,
    seed: int,
    first: int = 0,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
) -> Iterator[dict[str, Any]]:
    """Endless training batches of one rank: batch k holds positions first + (k*world + rank)*batch_size and following.

    batch_size: samples per rank. first: samples that all ranks together have consumed so far. workers: loader processes
    (spawned); 0 reads in this process. What a position holds does not depend on where the iteration began.
    """
    if len(dataset) == 0:
        raise UserError(
            "no training windows: every clip is shorter than the first horizon "
            f"({dataset.config.horizons_s[0]} s), or no clip is labelled. Look at `python -m data stats`."
        )
    order = _Batches(len(dataset), batch_size, seed, first, rank, world)
    context = "spawn" if workers else None
    return iter(
        DataLoader(
            dataset, batch_sampler=order, num_workers=workers, collate_fn=collate, multiprocessing_context=context
        )
    )
