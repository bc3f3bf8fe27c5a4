"""Effectors that come with a mask and depth: robot grippers in RGB-D data and simulated effectors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from data.episode import Frame
from extract.effector import Camera, EffectorTrack, Extraction
from extract.gates import Gate
from extract.mask.config import MaskConfig
from extract.mask.tracker import Pose, SurfaceTracker
from extract.mask.uncertainty import uncertainty
from extract.segments import Segment, split_at_gaps

NAME = "mask-depth/2"
DEPTH_TOLERANCE_M = 0.008  # a projected point further behind the measured surface is hidden


@dataclass(frozen=True)
class FrameSight:
    """A frame with its effector pixels counted."""

    frame: Frame
    pixels: int
    found: bool

    @property
    def time(self) -> float:
        return self.frame.time

    @property
    def boxes(self) -> np.ndarray:
        """f64 [K,4] x0, y0, x1, y1 pixels."""
        if not self.found or self.frame.mask is None:
            return np.zeros((0, 4))
        rows, columns = np.nonzero(self.frame.mask)
        return np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], float)


class MaskExtractor:
    """Masks and depth in, one track per stretch with the effector in view out."""

    name = NAME
    nothing = "no_effector"

    def __init__(self, config: MaskConfig):
        self.config = config
        self.weights_sha256: dict[str, str] = {}

    @property
    def gates(self) -> Mapping[str, Gate | None]:
        return self.config.gates

    def look(self, frames: Iterable[Frame], camera: Camera) -> Iterator[FrameSight]:
        """Keeps every frame until its stretch is complete: surfaces are registered to each other."""
        for frame in frames:
            pixels = effector_pixels(frame)
            yield FrameSight(frame, pixels, pixels >= self.config.min_mask_px)

    def lift(self, sights: Sequence[FrameSight], camera: Camera) -> Extraction:
        """One track for each part of the stretch in which the effector is in view. See effector.Extraction."""
        frames = [sight.frame for sight in sights]
        times = np.array([sight.time for sight in sights])
        pixels = np.array([sight.pixels for sight in sights])
        seen = np.array([sight.found for sight in sights])
        segments, rejections = split_at_gaps(times, seen, self.config.max_gap_s, self.config.min_seconds)
        return Extraction([self._track(frames, pixels, segment, camera) for segment in segments], rejections)

    def _track(self, frames: list[Frame], pixels: np.ndarray, segment: Segment, camera: Camera) -> EffectorTrack:
        slots = segment.slots
        measured = [slot for slot, present in zip(slots, segment.measured, strict=True) if present]
        reference = reference_slot(pixels, measured)
        tracker = SurfaceTracker(frames[reference], camera, self.config.points)
        poses: dict[int, Pose] = {reference: tracker.start}
        for direction in (1, -1):
            near, before = tracker.start, None
            for slot in sorted((s for s in measured if (s - reference) * direction > 0), key=lambda s: s * direction):
                poses[slot] = tracker.follow(frames[slot], near, before)
                near, before = poses[slot], near
        tracker.learn([poses[slot] for slot in measured])
        poses |= {slot: tracker.polish(frames[slot], poses[slot]) for slot in measured if slot != reference}
        points_TN3 = np.stack(
            [
                tracker.points(poses[slot]) if slot in poses else np.full((self.config.points, 3), np.nan)
                for slot in slots
            ]
        )
        visible_TN = np.stack(
            [
                visible_points(points_TN3[row], frames[slot], camera)
                if slot in poses
                else np.zeros(self.config.points, bool)
                for row, slot in enumerate(slots)
            ]
        )
        times = np.array([frames[slot].time for slot in slots])
        points_TN3 = _fill(points_TN3, times, segment.measured)
        followed = [poses[slot] for slot in measured]
        footprint_T = points_TN3[..., 2].mean(1) / camera.focal_px
        sigma_T2 = uncertainty(followed, footprint_T, times, segment.measured)
        return EffectorTrack(
            frame_slots=slots,
            points=points_TN3.astype(np.float32),
            visible=visible_TN,
            sigma=sigma_T2,
            confidence=segment.measured.astype(np.float32),
            opening=np.full(len(slots), np.nan, np.float32),
            side=None,
            scale="metric",
            depth_source="sensor",
            quality={
                "visible": float(visible_TN.mean()),
                "residual_mm": float(1000 * np.mean([pose.residual_m for pose in followed])),
                "hidden": float(np.mean([pose.hidden for pose in followed])),
                "measured": float(segment.measured.mean()),
            },
        )


def visible_points(points_N3: np.ndarray, frame: Frame, camera: Camera) -> np.ndarray:
    """bool [N]: the point projects into the effector's mask and lies on the measured surface there."""
    assert frame.mask is not None and frame.depth is not None
    height, width = frame.mask.shape
    column, row = np.floor(camera.project(points_N3)).astype(int).T
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height) & (points_N3[:, 2] > 0)
    row, column = np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)
    on_surface = np.abs(points_N3[:, 2] - frame.depth[row, column]) < DEPTH_TOLERANCE_M
    return inside & frame.mask[row, column] & on_surface


def effector_pixels(frame: Frame) -> int:
    """Pixels that belong to the effector and have depth."""
    if frame.mask is None or frame.depth is None:
        return 0
    return int((frame.mask & (frame.depth > 0)).sum())


def reference_slot(pixels: np.ndarray, slots: Sequence[int]) -> int:
    """The frame to take the template from: the one that shows most, the first of equals."""
    return max(slots, key=lambda slot: (pixels[slot], -slot))


def _fill(points_TN3: np.ndarray, times: np.ndarray, measured_T: np.ndarray) -> np.ndarray:
    """Linear interpolation over the frames without measurement (they are marked not visible)."""
    if measured_T.all():
        return points_TN3
    filled = points_TN3.copy()
    flat = points_TN3.reshape(len(times), -1)
    for column in range(flat.shape[1]):
        filled.reshape(len(times), -1)[~measured_T, column] = np.interp(
            times[~measured_T], times[measured_T], flat[measured_T, column]
        )
    return filled
