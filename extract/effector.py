"""What every effector extractor takes and gives: one interface for human hands, grippers and whatever comes next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np

from data.episode import Frame
from extract.gates import Gate


@dataclass(frozen=True)
class Camera:
    """A pinhole camera without distortion.

    intrinsics_33: f64 [3,3], pixels at ``image_size``; pixel (row r, column c) has its centre at (c + 0.5, r + 0.5).
    image_size: (width, height) in pixels.
    origin: where the intrinsics come from. ``given`` (sidecar or sensor), ``metadata`` (video container), ``estimated``
        (found from recorded motion) or ``assumed`` (a field of view was assumed; depth is then only known up to the
        scale f_assumed / f_true).
    """

    intrinsics_33: np.ndarray
    image_size: tuple[int, int]
    origin: Literal["given", "metadata", "estimated", "assumed"]

    @property
    def focal_px(self) -> float:
        """Mean of fx and fy, pixels."""
        return float(self.intrinsics_33[0, 0] + self.intrinsics_33[1, 1]) / 2

    def scaled(self, image_size: tuple[int, int]) -> Camera:
        """The same camera for pictures of another size."""
        new_from_old = np.diag([image_size[0] / self.image_size[0], image_size[1] / self.image_size[1], 1.0])
        return Camera(new_from_old @ self.intrinsics_33, image_size, self.origin)

    def project(self, points_3: np.ndarray) -> np.ndarray:
        """[..., 3] metres in the camera frame -> [..., 2] pixels."""
        uvw = points_3 @ self.intrinsics_33.T
        return uvw[..., :2] / uvw[..., 2:3]

    def unproject(self, pixels_2: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """[..., 2] pixels and [...] metres along z -> [..., 3] metres in the camera frame."""
        k = self.intrinsics_33
        x = (pixels_2[..., 0] - k[0, 2]) / k[0, 0] * depth
        y = (pixels_2[..., 1] - k[1, 2]) / k[1, 1] * depth
        return np.stack([x, y, np.broadcast_to(depth, x.shape)], -1)


@dataclass(frozen=True)
class EffectorTrack:
    """One effector over one stretch of consecutive frames (T frames, N points), before it becomes a motion clip.

    frame_slots: int [T], positions in the list of frames that the extractor was given, consecutive.
    points: f32 [T,N,3] metres, camera frame; point n is the same physical point in every frame.
    visible: bool [T,N], measured in this frame (true) or carried over (false).
    sigma: f32 [T,2] metres, one standard deviation of position across and along the viewing ray.
    confidence: f32 [T], 0..1: is this the declared effector.
    opening: f32 [T] metres, grasp aperture; NaN when unknown.
    side: ``left``, ``right`` or None.
    scale: ``metric`` (sensor depth), ``assumed`` (a body or hand size was assumed) or ``relative``.
    depth_source: short name, for example ``sensor`` or ``hand-size``.
    quality: named scores, stored with the clip.
    overlay_px: f32 [T,K,2] pixels, what the detector saw (K landmarks), for pictures and reference checks; may be None.
    raw_points: f32 [T,N,3], the points before smoothing over time, or None when nothing was smoothed.
    grasp: f32 [T,3] metres, camera frame, midway between the tips that close on things, NaN = unknown; None = never.
    camera, world_from_camera_T44: where the extractor found another camera, or its path, than it was given; else None.
    """

    frame_slots: np.ndarray
    points: np.ndarray
    visible: np.ndarray
    sigma: np.ndarray
    confidence: np.ndarray
    opening: np.ndarray
    side: str | None
    scale: str
    depth_source: str
    quality: dict[str, float] = field(default_factory=dict)
    overlay_px: np.ndarray | None = None
    raw_points: np.ndarray | None = None
    grasp: np.ndarray | None = None
    camera: Camera | None = None
    world_from_camera_T44: np.ndarray | None = None

    def part(self, frames: slice) -> EffectorTrack:
        """The same effector in some of the frames; scores stay those of the whole."""
        per_frame = ("frame_slots", "points", "visible", "sigma", "confidence", "opening")
        optional = ("overlay_px", "raw_points", "grasp", "world_from_camera_T44")
        names = [*per_frame, *(name for name in optional if getattr(self, name) is not None)]
        return replace(self, **{name: getattr(self, name)[frames] for name in names})


@dataclass(frozen=True)
class Extraction:
    """The tracks of one stretch of video, and what was dropped and why.

    rejections: (reason, detail), for example ``("too_short", "0.20 s in view from 3.10 s on; ...")``.
    """

    tracks: list[EffectorTrack]
    rejections: list[tuple[str, str]] = field(default_factory=list)


class Sight(Protocol):
    """What an extractor keeps of one frame until its stretch is complete.

    time: seconds. found: an effector is in view. boxes: f64 [K,4] x0, y0, x1, y1 pixels around effectors.
    """

    @property
    def time(self) -> float: ...

    @property
    def found(self) -> bool: ...

    @property
    def boxes(self) -> np.ndarray: ...


class Extractor(Protocol):
    """An effector extractor. Deterministic: the same frames give the same bytes in any process.

    name: with a version, stored in every clip. weights_sha256: by file name, of every network file it uses.
    nothing: the reason of rejection for a video in which no effector was found. gates: limits of its scores.
    """

    @property
    def name(self) -> str: ...

    @property
    def weights_sha256(self) -> dict[str, str]: ...

    @property
    def nothing(self) -> str: ...

    @property
    def gates(self) -> Mapping[str, Gate | None]: ...

    def look(self, frames: Iterable[Frame], camera: Camera) -> Iterator[Any]:
        """Goes through all frames of one video, in order, and yields one Sight for each."""
        ...

    def lift(self, sights: Sequence[Any], camera: Camera) -> Extraction:
        """Tracks in a stretch of consecutive sights; ``frame_slots`` are positions among them."""
        ...


def extract(extractor: Extractor, frames: Iterable[Frame], camera: Camera) -> Extraction:
    """A whole video that fits into memory, without cutting: for benchmarks and short clips."""
    return extractor.lift(list(extractor.look(frames, camera)), camera)
