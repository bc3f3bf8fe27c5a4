"""Following an effector while a policy runs: what extraction does for a whole video, frame by frame from the first.

Shapes: N points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from data.episode import Frame
from data.simulation.sensors import Sensors
from extract.config import ExtractConfig
from extract.effector import Camera
from extract.gripper.estimate import LiveGripper
from extract.gripper.learned import extractor as learned
from extract.gripper.learned.model import network_path
from extract.gripper.learned.settings import LearnedSettings
from extract.gripper.registered import extractor as registered
from extract.gripper.registered.build import model_path
from extract.gripper.registered.settings import RegisteredSettings
from extract.mask import extractor as mask
from extract.mask.config import MaskConfig
from extract.mask.surface import effector_pixels, visible_points
from extract.mask.tracker import Pose, SurfaceTracker
from pipeline.errors import UserError


@dataclass(frozen=True)
class Sighting:
    """An effector in one frame. points_N3: f32 metres, camera frame; visible_N: bool. grasp_3: f32 metres, camera
    frame, or None where the follower does not tell it."""

    points_N3: np.ndarray
    visible_N: np.ndarray
    grasp_3: np.ndarray | None = None


class Follower(Protocol):
    """Follows one effector through the frames of one camera."""

    def see(self, frame: Frame) -> Sighting | None:
        """The effector in the next frame; None where it is not found."""
        ...


class MaskFollower:
    """Follows the surface under the effector's mask, refined with how it has bent so far."""

    def __init__(self, camera: Camera, config: MaskConfig):
        self.camera, self.config = camera, config
        self._tracker: SurfaceTracker | None = None
        self._followed: list[Pose] = []

    def see(self, frame: Frame) -> Sighting | None:
        if effector_pixels(frame) < self.config.min_mask_px:
            return None
        if self._tracker is None:
            self._tracker = SurfaceTracker(frame, self.camera, self.config.points)
            self._followed.append(self._tracker.start)
            points = self._tracker.points(self._tracker.start)
        else:
            before = self._followed[-2] if len(self._followed) > 1 else None
            self._followed.append(self._tracker.follow(frame, self._followed[-1], before))
            self._tracker.learn(self._followed)
            points = self._tracker.points(self._tracker.polish(frame, self._followed[-1]))
        return Sighting(points.astype(np.float32), visible_points(points, frame, self.camera))


class GripperFollower:
    """Follows what ``detect: registered`` or ``detect: learned`` follows, with the same calls."""

    def __init__(self, gripper: LiveGripper):
        self._gripper = gripper

    def see(self, frame: Frame) -> Sighting | None:
        found = self._gripper.see(frame)
        return None if found is None else Sighting(found.points_N3, found.visible_N, found.grasp_3)


@dataclass(frozen=True)
class Following:
    """How effectors are followed. sensors: what the simulator has to tell for it. words: where clouds come from."""

    start: Callable[[Camera], Follower]
    sensors: Sensors
    words: str

    def require(self, depth: bool) -> None:
        """Raises UserError where a policy learned from pictures with depth and only colour is looked at."""
        if depth and self.sensors == "rgb":
            raise UserError(
                "this policy learned from pictures with depth, and extract.gripper.detect: learned takes none; extract "
                "with detect: registered, or learn with pretrain.window.scene: image. The exported folder can be "
                "served (--policy)."
            )


def following(extractor: str, config: ExtractConfig, folder: Path) -> Following:
    """The follower that gives what ``extractor`` gave, as the labelled clips name it.

    folder: of the extract stage. Raises UserError for one that cannot follow a running policy.
    """
    if extractor == mask.NAME:
        words = "the extractor's tracker makes from the simulator's gripper mask and depth"
        return Following(lambda camera: MaskFollower(camera, config.mask), "truth", words)
    if extractor == registered.NAME and isinstance(config.gripper.detect, RegisteredSettings):
        path = model_path(config.gripper.detect, folder)
        made = registered.RegisteredExtractor(config.gripper, config.gripper.detect, path)
        words = "the extractor registers to measured depth; masks are not given"
        return Following(lambda camera: GripperFollower(made.live(camera)), "rgbd", words)
    if extractor == learned.NAME and isinstance(config.gripper.detect, LearnedSettings):
        path = network_path(config.gripper.detect, folder)
        taught = learned.LearnedExtractor(config.gripper, config.gripper.detect, path)
        words = "the extractor's network sees in colour; neither depth nor masks are given"
        return Following(lambda camera: GripperFollower(taught.live(camera)), "rgb", words)
    raise UserError(
        f"rollout: the labelled clips were extracted by {extractor}, which cannot follow a running policy; extract "
        f"with masks ({mask.NAME}), extract.gripper.detect: registered ({registered.NAME}) or learned ({learned.NAME})"
    )
