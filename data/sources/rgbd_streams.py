"""The pictures of one camera in an RGB-D folder: which there are, of when, and which depth belongs to which."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.sources.declared import naming
from data.sources.folders_layout import FoldersCamera, FoldersLayout, is_list, is_video
from data.sources.patterns import as_glob, filled, matched
from data.sources.rgbd_files import listed, numbers, poses_at
from data.video import Unreadable, probe


@dataclass(frozen=True)
class Stream:
    """Pictures in order. paths: of each; of a video, its own for each. frames: the number of each in a video, or None.

    keys: what {frame} stands for, or empty. times: f64 [T] seconds as they are told, or None.
    """

    paths: tuple[Path, ...]
    keys: tuple[str, ...] = ()
    times: np.ndarray | None = None
    frames: tuple[int, ...] | None = None

    def at(self, chosen: Sequence[int]) -> Stream:
        return Stream(
            tuple(self.paths[place] for place in chosen),
            tuple(self.keys[place] for place in chosen) if self.keys else (),
            None if self.times is None else self.times[list(chosen)],
            None if self.frames is None else tuple(self.frames[place] for place in chosen),
        )


@dataclass(frozen=True)
class Filmed:
    """One camera, picture by picture. times: f64 [T] seconds as they are told. poses: f64 [T,4,4] world_from_camera.

    left_out: in words, how many pictures were left out and why.
    """

    color: Stream
    depth: Stream | None
    times: np.ndarray
    poses: np.ndarray | None
    left_out: tuple[str, ...]


def filmed(folder: Path, layout: FoldersLayout, camera: FoldersCamera, named: dict[str, str]) -> Filmed:
    """What a camera of a folder has. named: what names in its patterns stand for. Raises Unreadable."""
    color = _stream(folder, filled(camera.color, named))
    times = _times(folder, layout, color, filled(camera.color, named))
    depth = None if camera.depth is None else _stream(folder, filled(camera.depth, named))
    kept, partners, left_out = np.arange(len(times)), np.arange(len(times)), []
    if depth is not None:
        kept, partners = _PAIRS[camera.pair](color, depth, times, layout, camera)
        left_out += _left_out(len(times), kept, f"no depth within {camera.within_s:g} s", camera, folder)
    poses = None
    path = folder / filled(camera.world_from_camera, named) if camera.world_from_camera else None
    if path is not None and path.is_file():
        poses, near = poses_at(path, times[kept], camera.within_s)
        left_out += _left_out(len(kept), near.nonzero()[0], f"no pose within {camera.within_s:g} s", camera, folder)
        kept, partners, poses = kept[near], partners[near], poses[near]
    depth = None if depth is None else depth.at(partners.tolist())
    return Filmed(color.at(kept.tolist()), depth, times[kept], poses, tuple(left_out))


def _stream(folder: Path, pattern: str) -> Stream:
    if is_list(pattern):
        found = listed(folder / pattern, folder)
        _all_there([path for _, path in found])
        return Stream(tuple(path for _, path in found), times=np.array([time for time, _ in found], np.float64))
    if is_video(pattern):
        path = folder / pattern
        with naming(path):
            info = probe(path)
        if not info.frames or not info.fps:
            raise Unreadable("truncated", f"{path}: the header tells no frames or no rate")
        return Stream((path,) * info.frames, (), np.arange(info.frames) / info.fps, tuple(range(info.frames)))
    by_key: dict[str, Path] = {}
    for path in folder.glob(as_glob(pattern)):
        named = matched(pattern, path.relative_to(folder).as_posix())
        if named is None:
            continue
        if (twin := by_key.setdefault(named["frame"], path)) != path:
            raise Unreadable("duplicate", f"{path} and {twin.name} are the same frame of {pattern}")
    if not by_key:
        raise Unreadable("missing", f"{folder}: there is no picture {pattern}")
    keys = sorted(by_key, key=_by_number)
    return Stream(tuple(by_key[key] for key in keys), tuple(keys))


def _all_there(paths: Sequence[Path]) -> None:
    for path in paths:
        if not path.is_file():
            raise Unreadable("missing", f"{path} does not exist, which a list names")


def _by_number(key: str) -> list[tuple[int, str]]:
    """10 comes after 9."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", key[:200])]


def _times(folder: Path, layout: FoldersLayout, stream: Stream, pattern: str) -> np.ndarray:
    """f64 [T] seconds. Raises Unreadable."""
    count = len(stream.paths)
    if layout.timestamps is None:
        if stream.times is not None:
            return stream.times
        if layout.rate_hz is None:
            raise Unreadable("bad_timestamps", f"{folder}: {pattern} has no times; give rate_hz or timestamps")
        return np.arange(count) / layout.rate_hz
    if layout.timestamps == "{frame}":
        try:
            return np.array(stream.keys, np.float64) * layout.unit_s
        except ValueError as error:
            raise Unreadable("bad_timestamps", f"{folder}: {pattern}: a frame's name is no time ({error})") from None
    found = numbers(folder / layout.timestamps)[:, 0] * layout.unit_s
    if len(found) != count:
        detail = f"{folder / layout.timestamps}: {len(found)} times for {count} pictures of {pattern}"
        raise Unreadable("ragged", detail)
    return found


Pairs = tuple[np.ndarray, np.ndarray]  # i64 [K] colour pictures that have depth, i64 [K] the depth of each


def _by_name(color: Stream, depth: Stream, times: np.ndarray, layout: FoldersLayout, camera: FoldersCamera) -> Pairs:
    lonely, orphans = set(color.keys) - set(depth.keys), set(depth.keys) - set(color.keys)
    if lonely or orphans:
        detail = f"{len(lonely)} pictures of {camera.color} have no depth, {len(orphans)} of {camera.depth} no colour"
        first = min(lonely | orphans, key=_by_number)
        raise Unreadable("missing", f"{color.paths[0].parent}: {detail}; the first is frame {first}")
    place = {key: number for number, key in enumerate(depth.keys)}
    return np.arange(len(times)), np.array([place[key] for key in color.keys])


def _by_order(color: Stream, depth: Stream, times: np.ndarray, layout: FoldersLayout, camera: FoldersCamera) -> Pairs:
    if len(color.paths) != len(depth.paths):
        detail = f"{len(color.paths)} of {camera.color}, {len(depth.paths)} of {camera.depth}"
        raise Unreadable("ragged", f"{color.paths[0].parent}: cannot be paired by order: {detail}")
    return np.arange(len(times)), np.arange(len(times))


def _by_time(color: Stream, depth: Stream, times: np.ndarray, layout: FoldersLayout, camera: FoldersCamera) -> Pairs:
    folder = depth.paths[0].parent
    if depth.times is None and layout.timestamps != "{frame}":
        raise Unreadable("bad_timestamps", f"{folder}: {camera.depth} has no times of its own to pair by")
    stamps = depth.times if depth.times is not None else _times(folder, layout, depth, str(camera.depth))
    order = np.argsort(stamps)
    after = np.clip(np.searchsorted(stamps[order], times), 0, len(order) - 1)
    before = np.clip(after - 1, 0, None)
    later = np.abs(stamps[order[after]] - times) <= np.abs(stamps[order[before]] - times)
    nearest = order[np.where(later, after, before)]
    kept = (np.abs(stamps[nearest] - times) <= camera.within_s).nonzero()[0]
    return kept, nearest[kept]


_PAIRS = {"name": _by_name, "order": _by_order, "time": _by_time}


def _left_out(count: int, kept: np.ndarray, why: str, camera: FoldersCamera, folder: Path) -> list[str]:
    """How many were left out, in words. Raises Unreadable (missing) where they are more than the layout allows."""
    lost = count - len(kept)
    if lost > camera.unpaired * count:
        raise Unreadable("missing", f"{folder}: {lost} of {count} pictures of {camera.color}: {why}")
    return [f"{lost} of {count} pictures left out: {why}"] if lost else []
