"""Masks with sensor depth to points in space, without tracks: the measured surface itself is followed.

The surface of the frame that shows most is registered to every other frame (``extract/mask/tracker.py``) in two passes:
freely bent from neighbour to neighbour, then sharper, bent only as the whole clip has shown. At last the depth of its
points is averaged over all frames, as far as the depth is noisy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from pydantic import Field

from data.episode import Frame
from extract.effector import EffectorTrack
from extract.lift.gaps import bridged
from extract.mask.surface import effector_pixels, reference_slot, visible_points
from extract.mask.tracker import Pose, SurfaceTracker
from extract.mask.uncertainty import uncertainty
from extract.steps import DepthMaps, NoLift, Shot, Tracks
from pipeline.config import Settings


class SurfaceConfig(Settings):
    """Lifting of whole masks by sensor depth."""

    name: Literal["surface"] = "surface"
    points: int = Field(default=200, ge=8, description="Points per clip.")
    min_mask_px: int = Field(default=30, ge=4, description="Frames with fewer effector pixels are not measured.")


class Surface:
    """A ``Lifter`` that needs no tracks. Raises NoLift when no frame shows enough."""

    def __init__(self, config: SurfaceConfig | None = None):
        self.config = config or SurfaceConfig()

    def __call__(
        self, shot: Shot, masks: Sequence[np.ndarray | None], tracks: Tracks | None, depth: DepthMaps
    ) -> EffectorTrack:
        columns = zip(shot.frames, masks, depth.maps, strict=True)
        frames = [replace(frame, mask=mask, depth=depth_HW) for frame, mask, depth_HW in columns]
        pixels = np.array([effector_pixels(frame) for frame in frames])
        measured_T = pixels >= self.config.min_mask_px
        if not measured_T.any():
            raise NoLift(
                f"lift: surface: no frame of {len(frames)} shows {self.config.min_mask_px} effector pixels with depth "
                f"from {depth.source}. Look at the masks and the depth source, or lower min_mask_px."
            )
        slots = [int(slot) for slot in np.flatnonzero(measured_T)]
        tracker, poses = self._registered(shot, frames, depth, reference_slot(pixels, slots), slots)
        count = self.config.points
        points_TN3, visible_TN = np.full((len(frames), count, 3), np.nan), np.zeros((len(frames), count), bool)
        for slot in slots:
            points_TN3[slot] = tracker.points(poses[slot])
            visible_TN[slot] = visible_points(points_TN3[slot], frames[slot], shot.camera)
        points_TN3 = bridged(points_TN3, shot.times_T, measured_T)
        followed = [poses[slot] for slot in slots]
        distance_T = points_TN3[..., 2].mean(1)
        footprint_T = distance_T / shot.camera.focal_px
        return EffectorTrack(
            frame_slots=np.arange(len(frames)),
            points=points_TN3.astype(np.float32),
            visible=visible_TN,
            sigma=uncertainty(followed, footprint_T, shot.times_T, measured_T, depth.sigma * distance_T),
            confidence=measured_T.astype(np.float32),
            opening=np.full(len(frames), np.nan, np.float32),
            side=None,
            scale=depth.scale,
            depth_source=depth.source,
            quality={
                "visible": float(visible_TN.mean()),
                "residual_mm": float(1000 * np.mean([pose.residual_m for pose in followed])),
                "hidden": float(np.mean([pose.hidden for pose in followed])),
                "measured": float(measured_T.mean()),
            },
        )

    def _registered(
        self, shot: Shot, frames: Sequence[Frame], depth: DepthMaps, reference: int, slots: Sequence[int]
    ) -> tuple[SurfaceTracker, dict[int, Pose]]:
        tracker = SurfaceTracker(frames[reference], shot.camera, self.config.points)
        poses: dict[int, Pose] = {reference: tracker.start}
        for direction in (1, -1):
            near, before = tracker.start, None
            for slot in sorted((s for s in slots if (s - reference) * direction > 0), key=lambda s: s * direction):
                poses[slot] = tracker.follow(frames[slot], near, before)
                near, before = poses[slot], near
        tracker.learn([poses[slot] for slot in slots])
        poses |= {slot: tracker.polish(frames[slot], poses[slot]) for slot in slots if slot != reference}
        depth_m = depth.sigma * float(tracker.start.camera_from_template[2, 3])
        tracker.average([frames[slot] for slot in slots], [poses[slot] for slot in slots], depth_m)
        return tracker, poses
