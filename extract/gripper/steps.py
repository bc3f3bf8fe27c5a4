"""From the names in the settings to the steps themselves. Networks are loaded when they are first used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from extract.depth.assumed import AssumedDepth, AssumedDepthSettings
from extract.depth.learned import DepthAnything, DepthAnythingSettings, DepthPro, DepthProSettings
from extract.depth.sensor import SensorDepth, SensorDepthSettings
from extract.detect.grounding_dino import GroundingDino, GroundingDinoSettings
from extract.detect.mediapipe import Mediapipe, MediapipeSettings
from extract.gripper.config import GripperConfig
from extract.gripper.given import Given, GivenMask, GivenSettings
from extract.gripper.picture import Picture, PictureMask, PictureSettings
from extract.lift.surface import Surface, SurfaceConfig
from extract.lift.unproject import Unproject, UnprojectConfig
from extract.robot.motion import MotionDetector, MotionSettings
from extract.segment.box import Box, BoxSettings
from extract.segment.landmarks import LandmarkMask, LandmarkMaskSettings
from extract.segment.sam2 import Sam2, Sam2Settings
from extract.steps import DepthAnchor, DepthSource, Detector, Lifter, Segmenter, Shot, Tracker
from extract.track.lucas_kanade import LucasKanade, LucasKanadeConfig
from extract.track.raft import RaftChain, RaftConfig
from extract.track.tapir import Tapir, TapirConfig

DETECT: dict[type, Callable[[Any], Any]] = {
    GivenSettings: Given,
    PictureSettings: Picture,
    MediapipeSettings: Mediapipe,
    GroundingDinoSettings: GroundingDino,
    MotionSettings: MotionDetector,
}
SEGMENT: dict[type, Callable[[Any], Any]] = {
    GivenSettings: GivenMask,
    PictureSettings: PictureMask,
    LandmarkMaskSettings: LandmarkMask,
    BoxSettings: Box,
    Sam2Settings: Sam2,
}
TRACK: dict[type, Callable[[Any], Any]] = {LucasKanadeConfig: LucasKanade, RaftConfig: RaftChain, TapirConfig: Tapir}
DEPTH: dict[type, Callable[[Any], Any]] = {
    SensorDepthSettings: SensorDepth,
    AssumedDepthSettings: AssumedDepth,
    DepthAnythingSettings: DepthAnything,
    DepthProSettings: DepthPro,
}
LIFT: dict[type, Callable[[Any], Any]] = {UnprojectConfig: Unproject, SurfaceConfig: Surface}

ANCHOR_GRID = 24  # pixels of a frame, along each side, that anchor learned depth to the sensor's
SENSOR_SIGMA = 0.01


@dataclass(frozen=True)
class Steps:
    """One step of each kind. track: None where the lifter needs no tracks. names: as in the settings."""

    detect: Detector
    segment: Segmenter
    track: Tracker | None
    depth: DepthSource
    lift: Lifter
    names: tuple[str, ...]
    weights_sha256: dict[str, str]


def build_steps(config: GripperConfig) -> Steps:
    """The steps that the settings name."""
    lift = config.lift
    if isinstance(lift, SurfaceConfig):
        lift = lift.model_copy(update={"points": config.points, "min_mask_px": config.min_mask_px})
    chosen: dict[str, Any] = {
        "detect": DETECT[type(config.detect)](config.detect),
        "segment": SEGMENT[type(config.segment)](config.segment),
        "track": None,
        "depth": DEPTH[type(config.depth)](config.depth),
        "lift": LIFT[type(lift)](lift),
    }
    if not isinstance(lift, SurfaceConfig):
        chosen["track"] = TRACK[type(config.track)](config.track)
    used = {kind: step for kind, step in chosen.items() if step is not None}
    weights: dict[str, str] = {}
    for step in used.values():
        weights |= getattr(step, "weights_sha256", {})
    return Steps(**chosen, names=tuple(getattr(config, kind).name for kind in used), weights_sha256=weights)


def sensor_anchors(shot: Shot) -> Sequence[DepthAnchor]:
    """What a depth sensor knows, on a coarse grid: learned depth is fitted to it. Empty without a sensor."""
    anchors = []
    for slot, frame in enumerate(shot.frames):
        if frame.depth is None:
            continue
        height, width = frame.depth.shape
        rows = np.linspace(0, height - 1, ANCHOR_GRID).astype(int)[:, None]
        columns = np.linspace(0, width - 1, ANCHOR_GRID).astype(int)[None]
        depth = frame.depth[rows, columns]
        known = depth > 0
        if known.any():
            pixels = np.stack(np.broadcast_arrays(columns + 0.5, rows + 0.5), -1)[known].astype(float)
            sigma = np.full(len(pixels), SENSOR_SIGMA)
            anchors.append(DepthAnchor(slot, pixels, depth[known].astype(float), sigma, "metric"))
    return anchors
