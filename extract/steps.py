"""The steps that an effector passes on its way from pixels to a cloud, and what they hand to each other.

    detect -> segment -> track -> depth -> lift          (then camera motion and quality, see their modules)

Each step is a callable with typed input and output, built from its own settings in the YAML, and can be swapped for any
other with the same call. Symbols: T frames of a shot, N points, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from data.episode import Frame
from extract.effector import Camera, EffectorTrack
from pipeline.errors import UserError


@dataclass(frozen=True)
class Shot:
    """Consecutive frames of one video, held in memory, at most as many as a clip has."""

    frames: Sequence[Frame]
    camera: Camera

    @property
    def times_T(self) -> np.ndarray:
        """f64 [T] seconds."""
        return np.array([frame.time for frame in self.frames])


class Detection(Protocol):
    """One effector in one frame. box_4: f64 x0, y0, x1, y1 in pixels. score: 0..1. label: what was found."""

    @property
    def label(self) -> str: ...

    @property
    def score(self) -> float: ...

    @property
    def box_4(self) -> np.ndarray: ...


@dataclass(frozen=True)
class BoxDetection:
    """A detection that is a box and nothing more."""

    label: str
    score: float
    box_4: np.ndarray


class Detector(Protocol):
    """Finds effectors. Frames of one video go through in order; each comes out once, in order, with what was found.

    It may hold frames back (to fill a batch, to look at motion), but never more than a bounded number.
    """

    def __call__(self, frames: Iterable[Frame], camera: Camera) -> Iterator[tuple[Frame, Sequence[Detection]]]: ...


class Segmenter(Protocol):
    """Which pixels are the effector. seen: its detection in every frame, None where it was not found.

    Returns a bool [H,W] mask for every frame, None where it has none.
    """

    def __call__(self, shot: Shot, seen: Sequence[Detection | None]) -> list[np.ndarray | None]: ...


@dataclass(frozen=True)
class Tracks:
    """Identified image points. pixels_TN2: f32, pixel (row r, column c) has its centre at (c + 0.5, r + 0.5).

    visible_TN: bool, measured in this frame (true) or carried over (false). query: the frame they were taken from.
    error_TN: f32 pixels, one sigma across the ray (forward-backward error, or what the model says).
    """

    pixels_TN2: np.ndarray
    visible_TN: np.ndarray
    error_TN: np.ndarray
    query: int


class Tracker(Protocol):
    """Follows ``count`` points of the effector, forward and backward from a query frame that it chooses."""

    def __call__(self, shot: Shot, masks: Sequence[np.ndarray | None], count: int) -> Tracks: ...


@dataclass(frozen=True)
class DepthMaps:
    """Depth along z for every frame: f32 [H,W], 0 = not known, or None for a frame without any.

    scale: ``metric`` (measured, or anchored to a measurement), ``assumed`` (anchored to a body size, or learned),
    ``relative`` (unknown scale). sigma: relative one-sigma error of single values. source: short name for the clip.
    """

    maps: Sequence[np.ndarray | None]
    scale: Literal["metric", "assumed", "relative"]
    sigma: float
    source: str


class DepthSource(Protocol):
    """Depth of a shot. anchors: where and how far something of known distance is, for learned depth to be fitted to."""

    def __call__(self, shot: Shot, anchors: Sequence[DepthAnchor]) -> DepthMaps: ...


@dataclass(frozen=True)
class DepthAnchor:
    """Known depths in one frame. slot: frame of the shot. pixels_K2, depth_K (metres), sigma_K (relative).

    scale: what the knowledge rests on: ``metric`` (sensor) or ``assumed`` (hand size).
    """

    slot: int
    pixels_K2: np.ndarray
    depth_K: np.ndarray
    sigma_K: np.ndarray
    scale: Literal["metric", "assumed"]


class NoLift(UserError):
    """A stretch lacks what its steps need, depth for example; other stretches and videos may have it."""


class Lifter(Protocol):
    """Image points or whole masks to identified points in metric 3D. ``tracks``: None for a lifter that needs none."""

    def __call__(
        self, shot: Shot, masks: Sequence[np.ndarray | None], tracks: Tracks | None, depth: DepthMaps
    ) -> EffectorTrack: ...
