"""Grippers found and followed by their model: the same estimate, frame by frame, as a running policy makes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from extract.effector import Camera
from extract.gripper.config import GripperConfig
from extract.gripper.estimate import Estimate
from extract.gripper.followed import Carried, FollowedExtractor
from extract.gripper.registered.live import RegisteredGripper
from extract.gripper.registered.model import GripperModel, load_model
from extract.gripper.registered.settings import RegisteredSettings
from pipeline.errors import UserError
from pipeline.fingerprint import file_sha256

NAME = "registered/1"
# One sigma: a share of a pixel's footprint plus the median distance between model and surface. 68 % of all components
# lay within the first alone in simulated episodes of other tasks than the model's, with exact depth.
ACROSS, ALONG, RESIDUAL = 0.12, 0.12, 1.0


class RegisteredExtractor(FollowedExtractor):
    """A surface model is registered to the depth of every frame. Frames without depth show nothing."""

    name = NAME
    depth_source = "sensor"
    no_fit = "the gripper model fits"

    def __init__(self, config: GripperConfig, settings: RegisteredSettings, model: Path):
        """model: the .npz that ``settings`` or the run has. Raises UserError when it is not there."""
        if not model.exists():
            raise UserError(
                f"extract.gripper.detect.model: {model} does not exist; it is made by `python -m extract run` from "
                "labelled episodes with depth, base_from_effector, world_from_camera and opening"
            )
        super().__init__(config)
        self.settings, self._path = settings, model
        self.weights_sha256 = {"gripper-model.npz": file_sha256(model)}

    @cached_property
    def model(self) -> GripperModel:
        return load_model(self._path)

    def live(self, camera: Camera) -> RegisteredGripper:
        """What follows the gripper through frames of one camera, with the settings of this extractor."""
        return RegisteredGripper(self.model, camera, self.config.points, self.settings.min_fit)

    def sigma(
        self, carried: Carried, estimates: Sequence[Estimate | None], times_T: np.ndarray, camera: Camera
    ) -> list[np.ndarray]:
        """A share of the footprint of a pixel, and how far the model is off the surface."""
        footprint = np.median(carried.points_TN3[..., 2], axis=1) / camera.focal_px
        return [share * footprint + RESIDUAL * carried.residual_T for share in (ACROSS, ALONG)]
