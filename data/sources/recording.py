"""A recording: one episode of a foreign data set, told in one way whatever its format, and read as it is asked for.

Sources supply functions that read; what they hand over is checked here, once for all formats. Symbols in shapes:
T frames, A action dimensions, Q proprioception dimensions, J joints of one hand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data.video import Unreadable

# Why a data set, or an episode of it, cannot be read; beside the reasons of data/video.py.
REASONS = frozenset({
    "missing", "truncated", "bad_checksum", "ragged", "bad_shape", "bad_dtype", "not_finite", "bad_timestamps",
    "mixed_fps", "mixed_sizes", "not_an_image", "too_large", "unsafe_path", "link_refused", "duplicate",
    "bad_frame_range", "bad_json", "bad_info", "bad_example", "bad_text", "bad_pose", "empty", "unknown_version",
    "unsupported_format", "no_layout", "no_camera", "no_actions", "no_joints", "unpaired",
})  # fmt: skip
MAX_FRAMES = 10_000_000  # four days at 30 Hz: a larger count is a damaged one
Pictures = Callable[[int, int], Iterator[np.ndarray]]  # of the frames from the first to before the last, in order
Side = Literal["left", "right"]


@dataclass(frozen=True)
class Rejected:
    """An episode, or a part of a data set, that cannot be read: what, a short reason, and what was found."""

    item: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Piece:
    """A file that holds a recording, or some of it. part: which part of the file, in words; empty: all of it."""

    path: Path
    part: str = ""


@dataclass(frozen=True)
class Series:
    """values: f32 [T,D], finite. names: one for each of the D dimensions."""

    values: np.ndarray
    names: tuple[str, ...]


@dataclass(frozen=True)
class Hands:
    """Joints of hands as the source measured them.

    joints: f32 [T,J,3] by side, metres, in the camera frame of that moment (OpenCV axes). names: of the J joints.
    confidence: f32 [T,J] by side, 0..1, empty where the source tells none. order: the names of 21 of them, wrist, then
    thumb to little finger, each from its root to its tip; empty where the source has other ones. least_confidence:
    hands whose joints have less, on average, are not known.
    """

    joints: dict[Side, np.ndarray]
    names: tuple[str, ...]
    confidence: dict[Side, np.ndarray] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    least_confidence: float = 0.0

    def in_order(self) -> dict[Side, np.ndarray]:
        """f32 [T,21,3] by side: the joints of ``order``, NaN where they are not known. Raises Unreadable."""
        if not self.order:
            raise Unreadable("no_joints", "the layout does not say which joints are wrist, thumb and fingers (order)")
        columns = [self.names.index(name) for name in self.order]
        found: dict[Side, np.ndarray] = {side: joints[:, columns] for side, joints in self.joints.items()}
        for side, trust in self.confidence.items():
            found[side][trust[:, columns].mean(1) < self.least_confidence] = np.nan
        return found


@dataclass(frozen=True)
class Measured:
    """All of an episode that is not pictures. timestamps: f64 [T], seconds. instructions: one for each frame."""

    timestamps: np.ndarray
    instructions: tuple[str, ...]
    actions: Series | None = None
    proprio: Series | None = None
    hands: Hands | None = None


@dataclass(frozen=True)
class Camera:
    """One camera of a recording. width, height: pixels. fps: as declared.

    images: reads u8 [H,W,3] RGB. depths: reads f32 [H,W] metres, 0 = not measured; None when there is no depth.
    intrinsics: f64 [3,3] pixels. poses: reads ``world_from_camera``. None where the source does not tell.
    pieces: the files of its pictures, where these are not in the recording's own.
    """

    name: str
    width: int
    height: int
    fps: float
    length: int
    images: Pictures | None
    depths: Pictures | None = None
    intrinsics: np.ndarray | None = None
    poses: Callable[[], np.ndarray] | None = None
    pieces: tuple[Piece, ...] = ()

    @cached_property
    def world_from_camera(self) -> np.ndarray | None:
        """f64 [T,4,4] metres, OpenCV axes, or None. Raises Unreadable."""
        if self.poses is None:
            return None
        return sound_poses(self.poses(), self.length, f"camera {self.name}: world_from_camera")

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
        """Yields u8 [H,W,3] RGB one by one. Raises Unreadable, also for a range that is not inside the episode."""
        return self._checked(self.images, start, stop, (self.height, self.width, 3), np.uint8)

    def depth(self, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
        """Yields f32 [H,W] metres, 0 = not measured, one by one. Raises Unreadable, also when there is no depth."""
        return self._checked(self.depths, start, stop, (self.height, self.width), np.float32)

    def _checked(
        self, pictures: Pictures | None, start: int, stop: int | None, shape: tuple[int, ...], dtype: type
    ) -> Iterator[np.ndarray]:
        stop = self.length if stop is None else stop
        if not 0 <= start <= stop <= self.length:
            raise Unreadable("bad_frame_range", f"camera {self.name}: {start}..{stop} of {self.length} frames")
        if pictures is None:
            raise Unreadable("missing", f"camera {self.name} has no {'depth' if dtype is np.float32 else 'pictures'}")
        return self._held_to(pictures, start, stop, shape, dtype)

    def _held_to(
        self, pictures: Pictures, start: int, stop: int, shape: tuple[int, ...], dtype: type
    ) -> Iterator[np.ndarray]:
        at = start
        for picture in pictures(start, stop) if start < stop else ():
            if picture.shape != shape or picture.dtype != dtype:
                found = f"{picture.dtype} {list(picture.shape)}, expected {np.dtype(dtype)} {list(shape)}"
                raise Unreadable("mixed_sizes", f"camera {self.name}: frame {at} is {found}")
            yield picture
            at += 1
        if at != stop:
            raise Unreadable("truncated", f"camera {self.name}: only {at - start} of {stop - start} frames are there")


@dataclass(frozen=True)
class Recording:
    """One episode. What is given here was read from headers; the rest is read when it is first asked for.

    name: unique within its data set, of [a-z0-9-]. robot: the embodiment as declared, or empty.
    license: as declared, or empty. origin: where each field comes from, in words.
    read: reads all that is not pictures. pieces: the files of that.
    address: JSON by which its format finds it again without going through the data set.
    """

    name: str
    frames: int
    cameras: Mapping[str, Camera]
    robot: str
    license: str
    origin: Mapping[str, str]
    read: Callable[[], Measured]
    pieces: tuple[Piece, ...]
    address: Mapping[str, Any]

    @cached_property
    def measured(self) -> Measured:
        """Everything but the pictures, held to the contract. Raises Unreadable."""
        return _sound(self.read(), self.frames, self.name)

    @property
    def timestamps(self) -> np.ndarray:
        return self.measured.timestamps

    @property
    def instructions(self) -> tuple[str, ...]:
        return self.measured.instructions

    @property
    def actions(self) -> Series | None:
        return self.measured.actions

    @property
    def proprio(self) -> Series | None:
        return self.measured.proprio

    @property
    def hands(self) -> Hands | None:
        return self.measured.hands


def _sound(measured: Measured, frames: int, name: str) -> Measured:
    times = measured.timestamps
    if times.shape != (frames,) or times.dtype != np.float64:
        raise Unreadable("bad_timestamps", f"{name}: {times.dtype} {list(times.shape)}, expected float64 [{frames}]")
    if not np.isfinite(times).all() or (np.diff(times) <= 0).any():
        raise Unreadable("bad_timestamps", f"{name}: times are not finite, or do not strictly increase")
    if len(measured.instructions) != frames:
        raise Unreadable("bad_shape", f"{name}: {len(measured.instructions)} instructions for {frames} frames")
    for label, series in (("actions", measured.actions), ("proprio", measured.proprio)):
        if series is not None:
            _finite(f"{name}: {label}", series.values, (frames, len(series.names)))
    if measured.hands is not None:
        joints = len(measured.hands.names)
        for side, values in measured.hands.joints.items():
            _finite(f"{name}: joints of the {side} hand", values, (frames, joints, 3))
        for side, values in measured.hands.confidence.items():
            _finite(f"{name}: confidence of the {side} hand", values, (frames, joints))
    return measured


def sound_poses(poses: np.ndarray, length: int, label: str) -> np.ndarray:
    """f64 [T,4,4] as it is. Raises Unreadable (bad_shape, bad_pose) where it is not a rigid pose for each frame."""
    if poses.shape != (length, 4, 4) or poses.dtype != np.float64:
        raise Unreadable("bad_shape", f"{label}: {poses.dtype} {list(poses.shape)}, expected float64 [{length}, 4, 4]")
    rotation = poses[:, :3, :3]
    off = np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max()
    # what is not finite is not below the limit either
    if not off < 1e-2 or not np.isfinite(poses).all() or not np.allclose(poses[:, 3], [0, 0, 0, 1], atol=1e-4):
        raise Unreadable("bad_pose", f"{label}: not rigid; a rotation is off by {off:.2g}")
    return poses


def _finite(label: str, values: np.ndarray, shape: tuple[int, ...]) -> None:
    if values.shape != shape or values.dtype != np.float32:
        found = f"{values.dtype} {list(values.shape)}, expected float32 {list(shape)}"
        raise Unreadable("bad_shape", f"{label}: {found}")
    if not np.isfinite(values).all():
        first = int(np.argwhere(~np.isfinite(values))[0][0])
        count = np.count_nonzero(~np.isfinite(values))
        raise Unreadable("not_finite", f"{label}: {count} values are not finite, the first in frame {first}")


def f32(values: np.ndarray) -> np.ndarray:
    """As f32. What is beyond its range becomes infinite, and is refused as such."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def safe_name(text: str) -> str:
    """Of [a-z0-9-], for use in names of files and clips. Raises Unreadable where nothing is left."""
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if not name:
        raise Unreadable("unsafe_path", f"{text!r} holds no letter or digit to make a name of")
    return name


def names_for(count: int, told: tuple[str, ...], prefix: str) -> tuple[str, ...]:
    """The names that the source tells where there is one for each dimension, else made-up ones."""
    return told if len(told) == count else tuple(f"{prefix}_{number}" for number in range(count))
