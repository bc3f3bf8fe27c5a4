"""What an episode's frames and arrays are read from: a video with its companion file, or a recording of a data set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cached_property
from itertools import repeat
from pathlib import Path

import numpy as np

from data.arrays import read_arrays
from data.index import Episode, Place
from data.sources.folder import DataSet, reopened
from data.sources.recording import Camera, Recording
from data.video import Unreadable, frames, select
from pipeline.remote import RemotePath
from pipeline.remote import bring as bring_files

JOINTS = ("joints_left", "joints_right")
Shown = tuple[int, float, np.ndarray, np.ndarray | None]  # index, seconds, u8 [H,W,3], depth f32 [H,W] metres or None


class Footage(ABC):
    """arrays: by name, as docs/sources.md lists them, an entry for each frame. Raises Unreadable, as ``shown`` does."""

    arrays: dict[str, np.ndarray]

    @property
    @abstractmethod
    def files(self) -> list[Path]:
        """Where frames and arrays are."""

    @abstractmethod
    def shown(self, rate_hz: float | None) -> Iterator[Shown]:
        """The episode's frames at a rate, all of them for None."""


def footage_of(episode: Episode) -> Footage:
    """That of an episode of the index."""
    return Video(episode) if episode.recording is None else Recorded(episode, episode.recording)


def bring(episode: Episode, alive: Callable[[], None]) -> None:
    """Has the files of an episode at hand before its frames are asked for, where they are remote.

    alive: called now and then while they come. What cannot be had is told by whoever reads it; raises Unreachable.
    """
    if not isinstance(episode.path, RemotePath):
        return
    with suppress(OSError, Unreadable):
        bring_files(footage_of(episode).files, alive)


class Video(Footage):
    """A video file, and the NPZ file that its sidecar names."""

    def __init__(self, episode: Episode):
        self.episode = episode

    @property
    def files(self) -> list[Path]:
        return [path for path in (self.episode.arrays_path, self.episode.path) if path is not None]

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:  # pyright: ignore[reportIncompatibleVariableOverride]
        path = self.episode.arrays_path
        if path is None:
            return {}
        found = read_arrays(path, self.episode.frames, self._entries)
        needed = ["depth", "mask"] if self.episode.sidecar.effector == "mask" else []
        needed += ["actions", "proprio"] if self.episode.sidecar.labelled else []
        if missing := [name for name in needed if name not in found]:
            raise Unreadable("bad_arrays", f"{path.name} has no {', '.join(missing)}")
        if self.episode.sidecar.effector == "hand_joints" and not found.keys() & set(JOINTS):
            raise Unreadable("bad_arrays", f"{path.name} has neither {' nor '.join(JOINTS)}")
        return found

    @property
    def _entries(self) -> dict[str, tuple[int, ...]]:
        """Shape of what an array says of one frame, by name; actions only where they are read."""
        sidecar, picture = self.episode.sidecar, (self.episode.height, self.episode.width)
        shapes: dict[str, tuple[int, ...]] = {
            "depth": picture,
            "mask": picture,
            "actor": picture,
            "opening": (),
            "grasp": (3,),
        }
        shapes |= dict.fromkeys(("world_from_camera", "base_from_effector"), (4, 4)) | dict.fromkeys(JOINTS, (21, 3))
        if sidecar.labelled and sidecar.action_spec is not None:
            shapes["actions"] = (len(sidecar.action_spec.names),)
            shapes["proprio"] = (len(sidecar.action_spec.proprio_names),)
        return shapes

    def shown(self, rate_hz: float | None) -> Iterator[Shown]:
        depth, unit_m = self.arrays.get("depth"), np.float32(self.episode.sidecar.depth_unit_m)
        entries = min(map(len, self.arrays.values()), default=None)
        for index, time, image in frames(self.episode.path, rate_hz, self.episode.sidecar.frame_range):
            if entries is not None and index >= entries:  # the file did not say how many frames it has, or not truly
                raise Unreadable(
                    "bad_arrays", f"{self.episode.sidecar.arrays} has {entries} entries; frame {index} is none"
                )
            yield index, time, image, None if depth is None else _metres(depth[index], unit_m)


def _metres(depth_HW: np.ndarray, unit_m: np.float32) -> np.ndarray:
    """f32 [H,W]; 0 = not measured, and so is what is no distance: NaN, infinite or negative."""
    metres = depth_HW.astype(np.float32) * unit_m
    return metres if depth_HW.dtype.kind in "bu" else np.where(np.isfinite(metres) & (metres > 0), metres, 0)


class Recorded(Footage):
    """One camera of a recording in a data set. Its actions are read where the source says what they mean."""

    def __init__(self, episode: Episode, place: Place):
        self.episode, self.place = episode, place

    @cached_property
    def recording(self) -> Recording:
        return reopened(DataSet(self.place.kind, self.episode.path), self.place.address, self.place.layout)

    @property
    def files(self) -> list[Path]:
        return [piece.path for piece in (*self.recording.pieces, *self.camera.pieces)]

    @property
    def camera(self) -> Camera:
        if self.place.camera not in self.recording.cameras:
            there = ", ".join(self.recording.cameras)
            raise Unreadable("no_camera", f"{self.episode.path}: there is no camera {self.place.camera}; found {there}")
        return self.recording.cameras[self.place.camera]

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:  # pyright: ignore[reportIncompatibleVariableOverride]
        poses = self.camera.world_from_camera
        found = {} if poses is None else {"world_from_camera": poses}
        if self.episode.sidecar.labelled:
            for name, series in (("actions", self.recording.actions), ("proprio", self.recording.proprio)):
                if series is None:
                    raise Unreadable("bad_arrays", f"{self.episode.path}: {self.recording.name} has no {name}")
                found[name] = series.values
        if self.episode.sidecar.effector == "hand_joints":
            if self.recording.hands is None:
                raise Unreadable("no_joints", f"{self.episode.path}: {self.recording.name} brings no joints of hands")
            found |= {f"joints_{side}": joints for side, joints in self.recording.hands.in_order().items()}
        return found

    def shown(self, rate_hz: float | None) -> Iterator[Shown]:
        camera, times, (first, last) = self.camera, self.recording.timestamps, self.episode.span
        wanted = set((first + select(times[first:last], rate_hz)).tolist())
        depths = repeat(None) if camera.depths is None else camera.depth(first, last)
        for index, image, depth in zip(range(first, last), camera.frames(first, last), depths, strict=False):
            if index in wanted:
                yield index, float(times[index]), image, depth
