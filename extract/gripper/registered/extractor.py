"""Grippers found and followed by their model: the same estimate, frame by frame, as a running policy makes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from data.episode import Frame
from extract.effector import Camera, EffectorTrack, Extraction
from extract.gates import Gate
from extract.gripper.config import GripperConfig
from extract.gripper.registered.live import Estimate, RegisteredGripper
from extract.gripper.registered.model import GripperModel, load_model
from extract.gripper.registered.settings import RegisteredSettings
from extract.lift.gaps import bridged, off_line
from extract.segments import Segment, split_at_gaps
from pipeline.errors import UserError
from pipeline.fingerprint import file_sha256

NAME = "registered/1"
# One sigma: a share of a pixel's footprint plus the median distance between model and surface. 68 % of all components
# lay within the first alone in simulated episodes of other tasks than the model's, with exact depth.
ACROSS, ALONG, RESIDUAL = 0.12, 0.12, 1.0


@dataclass(frozen=True)
class GripperSight:
    """What was estimated in one frame; None where the gripper was not found. box_4: f64 pixels x0, y0, x1, y1."""

    time: float
    estimate: Estimate | None
    box_4: np.ndarray | None

    @property
    def found(self) -> bool:
        return self.estimate is not None

    @property
    def boxes(self) -> np.ndarray:
        return np.zeros((0, 4)) if self.box_4 is None else self.box_4[None]


class RegisteredExtractor:
    """Detection, tracking and lifting at once: a surface model is registered to the depth of every frame."""

    name = NAME
    nothing = "no_effector"

    def __init__(self, config: GripperConfig, settings: RegisteredSettings, model: Path):
        """model: the .npz that ``settings`` or the run has. Raises UserError when it is not there."""
        if not model.exists():
            raise UserError(
                f"extract.gripper.detect.model: {model} does not exist; it is made by `python -m extract run` from "
                "labelled episodes with depth, base_from_effector, world_from_camera and opening"
            )
        self.config, self.settings, self._path = config, settings, model
        self.weights_sha256 = {"gripper-model.npz": file_sha256(model)}

    @cached_property
    def model(self) -> GripperModel:
        return load_model(self._path)

    @property
    def gates(self) -> Mapping[str, Gate | None]:
        return self.config.gates

    def live(self, camera: Camera) -> RegisteredGripper:
        """What follows the gripper through frames of one camera, with the settings of this extractor."""
        return RegisteredGripper(self.model, camera, self.config.points, self.settings.min_fit)

    def look(self, frames: Iterable[Frame], camera: Camera) -> Iterator[GripperSight]:
        """Estimates the gripper in every frame; keeps no pictures. Frames without depth show nothing."""
        gripper = self.live(camera)
        for frame in frames:
            estimate = gripper.see(frame)
            yield GripperSight(frame.time, estimate, None if estimate is None else _box(estimate, camera))

    def lift(self, sights: Sequence[GripperSight], camera: Camera) -> Extraction:
        """One track for each part of the stretch in which the model fits; short losses are bridged."""
        times = np.array([sight.time for sight in sights])
        found = np.array([sight.found for sight in sights], bool)
        segments, rejections = split_at_gaps(times, found, self.config.max_gap_s, self.config.min_seconds)
        if len(sights) and not found.any():
            rejections = [("no_fit", f"the gripper model fits in none of {len(sights)} frames"), *rejections]
        return Extraction([self._track(sights, segment, camera) for segment in segments], rejections)

    def _track(self, sights: Sequence[GripperSight], segment: Segment, camera: Camera) -> EffectorTrack:
        times, measured = np.array([sights[slot].time for slot in segment.slots]), segment.measured
        count = len(segment.slots)
        points, grasp = np.zeros((count, self.config.points, 3)), np.zeros((count, 1, 3))
        visible, values = np.zeros((count, self.config.points), bool), np.zeros((count, 3))
        for row, slot in enumerate(segment.slots):
            if (seen := sights[slot].estimate) is not None:
                points[row], grasp[row, 0], visible[row] = seen.points_N3, seen.grasp_3, seen.visible_N
                values[row] = seen.opening, seen.fit, seen.residual_m
        values = np.stack([np.interp(times, times[measured], column[measured]) for column in values.T], -1)
        points, grasp = bridged(points, times, measured), bridged(grasp, times, measured)[:, 0]
        footprint = np.median(points[..., 2], axis=1) / camera.focal_px
        gap = off_line(times, measured)
        sigma = [np.hypot(share * footprint + RESIDUAL * values[:, 2], gap) for share in (ACROSS, ALONG)]
        return EffectorTrack(
            frame_slots=segment.slots,
            points=points.astype(np.float32),
            visible=visible,
            sigma=np.stack(sigma, -1).astype(np.float32),
            confidence=np.where(measured, values[:, 1], 0).astype(np.float32),
            opening=values[:, 0].astype(np.float32),
            side=None,
            scale="metric",
            depth_source="sensor",
            quality={
                "visible": float(visible.mean()),
                "measured": float(measured.mean()),
                "score": float(values[measured, 1].mean()),
                "residual_mm": float(1000 * np.median(values[measured, 2])),
            },
            grasp=grasp.astype(np.float32),
        )


def _box(estimate: Estimate, camera: Camera) -> np.ndarray:
    pixels = camera.project(estimate.points_N3.astype(np.float64))
    return np.concatenate([pixels.min(0), pixels.max(0)])
