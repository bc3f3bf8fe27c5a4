"""Training windows from packed shards, in an order that is a pure function of seed and position.

A run reads an endless sequence of samples from its beginning on; batch k of rank r, of W ranks with B samples each, is
positions (k*W + r)*B ... (k*W + r + 1)*B. Nothing else decides what is read, so a run resumes at the exact sample.
"""

from __future__ import annotations

import atexit
import itertools
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from data.archive import File
from data.clips import VERIFY, Clip, parse_array, parse_meta
from data.config import MixtureConfig, WindowConfig
from data.geometry import invert_rigid, transform
from data.kept import Kept
from data.letterbox import letterbox, letterbox_depth
from data.mixture import Order, shares
from data.resample import SLACK_S, resample_points, resample_scalar
from data.rows import ClipRows, OpenShards
from data.schema import FIELD_BY_NAME, ClipMeta, misfit
from data.waypoints import grasp_path
from pipeline.ahead import ahead
from pipeline.errors import UserError

CACHE_MB = 256
AHEAD = 2  # batches
_TIMES = FIELD_BY_NAME["timestamps"]
Labels = Literal["ignored", "only", "where_known"]
Square = dict[str, np.ndarray]  # what is shown of one frame: image, intrinsics, where asked for depth


@dataclass(frozen=True)
class Window:
    """Where a sample comes from: a clip and the frame that is ``now``."""

    shard: int
    key: str
    now: int


class WindowDataset(Dataset):
    """All windows of a set of shards. Items are drawn by (window number, seed of what is random about it).

    However large the shards, it holds some 20 bytes per clip and what ``cache_mb`` allows. For one thread at a time.
    """

    def __init__(
        self,
        shards: list[Path],
        window: WindowConfig,
        labels: Labels = "ignored",
        all_points: bool = False,
        mixture: MixtureConfig | None = None,
        image_later: bool = False,
        cache_mb: int = CACHE_MB,
    ):
        """labels: ``only``, clips with actions alone, and samples carry them; ``where_known``, all clips, and samples
        of those without actions carry zeros that are not valid.
        all_points: keep every point in its order (evaluation); otherwise a random subset of ``window.points``.
        mixture: weights for training; null = every window alike. image_later: samples carry the image at the last
        horizon too, or the clip's last one, as it is, with its actor. cache_mb: memory for decoded images and opened
        clips. Raises UserError for shards that cannot be read or lack what ``window.scene`` asks for.
        """
        self.config = window
        self.labels, self.all_points = labels, all_points
        self.image_later = image_later
        self._shards = OpenShards(shards)
        self._squares: Kept[Square] = Kept(cache_mb * 2**20 * 7 // 8)
        self._clips: Kept[ClipRows] = Kept(cache_mb * 2**20 // 8)
        self._any_depth = False
        self._label_sizes = (0, 0)  # of an action and of proprioception
        found = [clip for number in range(len(shards)) for clip in self._scan(number, mixture)]
        self._shard_C = np.array([number for number, *_ in found], np.int32)
        self._header_C = np.array([header for _, header, *_ in found], np.int64)
        self._end_C = np.cumsum([count for *_, count, _ in found], dtype=np.int64)  # one more than the last window
        names = [name for *_, name in found]
        self._quotas = shares(mixture, names) if mixture is not None and found else {}
        group_of = {name: number for number, name in enumerate(self._quotas)}
        self._group_C = np.array([group_of.get(name, -1) for name in names], np.int32)
        self.windows: Sequence[Window] = _Windows(self)
        if window.scene == "depth" and found and not self._any_depth:
            raise UserError(
                f"{shards[0]}: window.scene is 'depth', and no clip of these shards has depth. "
                "Extract from video with depth, or set window.scene to 'image'."
            )

    def __len__(self) -> int:
        return int(self._end_C[-1]) if len(self._end_C) else 0

    def _scan(self, shard: int, mixture: MixtureConfig | None) -> Iterator[tuple[int, int, int, str]]:
        """Shard, first header, number of windows and name in the mixture of each clip that has windows."""
        path = self._shards.paths[shard]
        for key, files in self._shards.clips(shard):
            places = {file.field: file for file in files}

            def content(name: str, places: dict[str, File] = places, key: str = key) -> bytes:
                if name not in places:
                    raise UserError(f"{path}: clip {key} has no {name}.")
                return self._shards.read(shard, places[name].content, places[name].length)

            name = ""
            if self.labels != "ignored" or mixture is not None:
                meta = parse_meta(content("meta.json"), path, key)
                if meta.action_spec is not None:
                    self._label_sizes = len(meta.action_spec.names), len(meta.action_spec.proprio_names)
                elif self.labels == "only":
                    continue
                name = _name_of(meta, mixture) if mixture is not None else ""
            times = parse_array(content("timestamps.npy"), path, key, "timestamps")
            if wrong := misfit(_TIMES, times.dtype, times.shape, {}) or _TIMES.check(times):
                raise UserError(f"{path}: clip {key}: timestamps: {wrong}. {VERIFY}")
            count = int(np.searchsorted(times, times[-1] - self.config.horizons_s[0] + SLACK_S, side="right"))
            if count:
                if self.config.scene != "none" and "0000.scene.jpg" not in places:
                    raise UserError(
                        f"{path}: clip {key} has no pictures of the scene, window.scene is '{self.config.scene}'. "
                        "Extract again with extract.scenes: true, or set window.scene to 'none'."
                    )
                self._any_depth |= "0000.depth.png" in places
                yield shard, files[0].header, count, name

    def order(self, seed: int) -> Order:
        """The endless sequence of samples, by the weights of the mixture."""
        if not self._quotas:
            return Order([range(len(self))], [1], seed)
        group_of_window = np.repeat(self._group_C, np.diff(self._end_C, prepend=0))
        by_group = np.argsort(group_of_window, kind="stable")
        ends = np.searchsorted(group_of_window[by_group], np.arange(len(self._quotas) + 1))
        groups = [by_group[first:end] for first, end in itertools.pairwise(ends)]
        return Order(groups, list(self._quotas.values()), seed)

    def divide_memory(self, processes: int) -> None:
        """Leaves each of several loader processes its part of the cache."""
        for kept in (self._squares, self._clips):
            kept.max_bytes //= processes

    def clip_of(self, index: int) -> Clip:
        """The clip that a window is cut from, read whole."""
        return self._rows(self._place(index)[0]).whole()

    def meta_of(self, index: int) -> ClipMeta:
        """What is known of the clip that a window is cut from."""
        return self._rows(self._place(index)[0]).meta

    def __getitem__(self, item: tuple[int, int]) -> dict[str, Any]:
        index, seed = item
        number, now = self._place(index)
        clip = self._rows(number)
        chosen = np.arange(clip.points)
        if not self.all_points:
            chosen = np.random.default_rng(seed).permutation(np.resize(chosen, max(len(chosen), self.config.points)))
            chosen = chosen[: self.config.points]
        first, end = _reach(clip.arrays["timestamps"], now, self.config)
        passage = {name: clip.arrays[name][first:end] for name in ("timestamps", "world_from_camera", "opening")}
        passage |= {name: clip.rows(name, first, end) for name in ("points", "visible")}
        passage["grasp"] = clip.grasp[first:end]
        sample: dict[str, Any] = dict(self._square(number, clip, now, self.config.scene))
        sample |= motion(passage, now - first, chosen, self.config)
        sample["sigma"] = clip.arrays["sigma"][now]
        sample["waypoints"], sample["waypoints_valid"] = clip.waypoints(now, self.config.waypoint_m)
        sample |= _words(clip.key, clip.meta) | {"seed": seed}
        if self.image_later:
            sample["image_later"] = self._square(number, clip, end - 1, "none")["image"]
        if self.labels != "ignored":
            known, chunk = clip.meta.action_spec is not None, self.config.action_chunk
            sample |= labels_of(clip.arrays, now, chunk) if known else no_labels(*self._label_sizes, chunk)
        return sample

    def window(self, index: int) -> Window:
        """Where a window lies."""
        number, now = self._place(index)
        shard, header = int(self._shard_C[number]), int(self._header_C[number])
        return Window(shard, self._shards.key(shard, header), now)

    def _place(self, index: int) -> tuple[int, int]:
        """Number of the clip and frame of a window."""
        number = int(np.searchsorted(self._end_C, index, side="right"))
        return number, index - (int(self._end_C[number - 1]) if number else 0)

    def _rows(self, number: int) -> ClipRows:
        def opened() -> ClipRows:
            return ClipRows(self._shards, int(self._shard_C[number]), int(self._header_C[number]))

        return self._clips.get(number, opened, lambda clip: clip.nbytes)

    def _square(self, number: int, clip: ClipRows, frame: int, scene: str) -> Square:
        """What is shown of one frame, kept as far as memory goes. number: of the clip. scene: as in WindowConfig."""

        def made() -> Square:
            return _shown(clip, frame, scene, self.config.image_size)

        return self._squares.get((number, frame, scene != "none"), made, _size)


class _Windows(Sequence[Window]):
    """All windows in order, made when asked for: a list of them would be large."""

    def __init__(self, dataset: WindowDataset):
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    @overload
    def __getitem__(self, index: int) -> Window: ...
    @overload
    def __getitem__(self, index: slice) -> list[Window]: ...
    def __getitem__(self, index: int | slice) -> Window | list[Window]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        return self._dataset.window(index)


def motion(arrays: dict[str, np.ndarray], now: int, chosen: np.ndarray, config: WindowConfig) -> dict[str, Any]:
    """The clouds, openings and grasp points of a window, in the camera frame of now.

    arrays: of a clip, or of a passage of it that reaches around the window.
    """
    times = arrays["timestamps"]
    # The grasp point goes along as one more point.
    points_TN3 = np.empty((len(times), len(chosen) + 1, 3), np.float32)
    points_TN3[:, :-1] = arrays["points"][:, chosen]
    points_TN3[:, -1] = grasp_path(arrays["points"], arrays.get("grasp"))
    points_TN3 = _in_camera_of(arrays["world_from_camera"], points_TN3, now)
    visible_TN = np.ones(points_TN3.shape[:2], bool)
    visible_TN[:, :-1] = arrays["visible"][:, chosen]
    past = len(config.past_s)
    at = times[now] + np.array(config.past_s + config.horizons_s)
    points, visible = resample_points(points_TN3, visible_TN, times, at)
    points[past - 1], visible[past - 1] = points_TN3[now], visible_TN[now]
    opening = resample_scalar(arrays["opening"], times, at)
    points, visible, grasp = points[:, :-1], visible[:, :-1], points[:, -1]
    return {
        "past": points[:past],
        "past_visible": visible[:past],
        "past_valid": at[:past] >= times[0] - SLACK_S,
        "past_opening": opening[:past],
        "past_grasp": grasp[:past],
        "future": points[past:],
        "future_visible": visible[past:],
        "future_valid": at[past:] <= times[-1] + SLACK_S,
        "future_opening": opening[past:],
        "future_grasp": grasp[past:],
        "time": float(times[now]),
    }


def labels_of(arrays: dict[str, np.ndarray], now: int, chunk: int) -> dict[str, Any]:
    """The next ``chunk`` executed actions, and the proprioception now."""
    actions = arrays["actions"][now : now + chunk]
    valid = np.arange(chunk) < len(actions)
    padded = np.concatenate([actions, np.zeros((chunk - len(actions), actions.shape[1]), np.float32)])
    return {"actions": padded, "actions_valid": valid, "proprio": arrays["proprio"][now]}


def no_labels(actions: int, proprio: int, chunk: int) -> dict[str, Any]:
    """What ``labels_of`` gives, for a clip without any."""
    return {
        "actions": np.zeros((chunk, actions), np.float32),
        "actions_valid": np.zeros(chunk, bool),
        "proprio": np.zeros(proprio, np.float32),
    }


def _reach(times: np.ndarray, now: int, config: WindowConfig) -> tuple[int, int]:
    """First frame and one more than the last frame that a window needs: its times lie between those or at an end."""
    first = np.searchsorted(times, times[now] + config.past_s[0] + SLACK_S, side="right") - 1
    last = np.searchsorted(times, times[now] + config.horizons_s[-1] - SLACK_S)
    return max(0, int(first)), min(int(last) + 1, len(times))


def _words(key: str, meta: ClipMeta) -> dict[str, str]:
    return {"text": meta.instruction, "embodiment": meta.embodiment, "key": key}


def _shown(clip: ClipRows, frame: int, scene: str, size: int) -> Square:
    """Letterboxed image u8 [3,size,size] and its intrinsics; for a scene with depth f32 [size,size] metres too, which
    is all unknown, 0, where the clip has none."""
    image_HW3 = clip.image(frame) if scene == "none" else clip.scene(frame)
    square_SS3, intrinsics = letterbox(image_HW3, clip.arrays["intrinsics"], size)
    shown = {"image": np.ascontiguousarray(square_SS3.transpose(2, 0, 1)), "intrinsics": intrinsics}
    if scene == "depth":
        depth_HW = clip.depth(frame)
        shown["depth"] = np.zeros((size, size), np.float32) if depth_HW is None else letterbox_depth(depth_HW, size)
    return shown


def _size(square: Square) -> int:
    return sum(array.nbytes for array in square.values()) + 500


def _name_of(meta: ClipMeta, mixture: MixtureConfig) -> str:
    if mixture.by == "task":
        return meta.task or meta.instruction
    if mixture.by == "labels":
        return "video" if meta.action_spec is None else "labelled"
    return meta.source if mixture.by == "source" else meta.embodiment


def _in_camera_of(world_from_camera: np.ndarray, points_TN3: np.ndarray, now: int) -> np.ndarray:
    """Points of all frames in the camera frame of frame ``now``, float32 [T,N,3]."""
    if (world_from_camera == world_from_camera[now]).all():
        return points_TN3
    now_from_camera = invert_rigid(world_from_camera[now].astype(np.float64)) @ world_from_camera
    return transform(now_from_camera, points_TN3).astype(np.float32)


class _Batches(Sampler[list[tuple[int, int]]]):
    """Endless batches of one rank, as (window number, seed); ``first``: see ``batches``."""

    def __init__(self, order: Order, batch_size: int, first: int, rank: int, world: int):
        self._order, self._size = order, batch_size
        self._first, self._stride = first + rank * batch_size, world * batch_size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for first in itertools.count(self._first, self._stride):
            yield [self._order.at(position) for position in range(first, first + self._size)]


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Stacks arrays to tensors [B, ...]; keeps strings as lists."""
    batch: dict[str, Any] = {}
    for name, first in samples[0].items():
        values = [sample[name] for sample in samples]
        batch[name] = values if isinstance(first, str) else torch.from_numpy(np.stack(values))
    return batch


def batches(
    dataset: WindowDataset,
    batch_size: int,
    seed: int,
    first: int = 0,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    pin_memory: bool = False,
) -> Iterator[dict[str, Any]]:
    """Endless training batches of one rank: batch k holds positions first + (k*world + rank)*batch_size and following.

    batch_size: samples per rank. first: samples that all ranks together have consumed so far. workers: loader processes
    (spawned), which share the memory of the cache; 0 reads in a thread of this process. pin_memory: for a GPU. What a
    position holds depends on none of them, but on the shards, the mixture and the seed.
    """
    if len(dataset) == 0:
        raise UserError(
            "no training windows: every clip is shorter than the first horizon "
            f"({dataset.config.horizons_s[0]} s), or no clip is labelled. Look at `python -m data stats`."
        )
    loader = DataLoader(
        dataset,
        batch_sampler=_Batches(dataset.order(seed), batch_size, first, rank, world),
        num_workers=workers,
        collate_fn=collate,
        multiprocessing_context="spawn" if workers else None,
        worker_init_fn=_start_worker,
        pin_memory=pin_memory,
    )
    return iter(loader) if workers else ahead(loader, AHEAD)


def _start_worker(_: int) -> None:
    """In a loader process. Schedulers send SIGTERM to all processes of a job: training finishes its step and then ends
    the workers itself, which it could not do if they were gone."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    info = get_worker_info()
    assert info is not None
    info.dataset.divide_memory(info.num_workers)  # pyright: ignore[reportAttributeAccessIssue]
    # A reader that is done stops its workers amid sending. Python's orderly end would cut off their sending threads
    # inside native code, which aborts the process with an alarming line.
    atexit.register(os._exit, 0)
