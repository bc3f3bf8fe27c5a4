"""Grippers found and followed in colour: frame by frame as a running policy sees them, then smoothed by stretches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from extract.effector import Camera
from extract.gripper.config import GripperConfig
from extract.gripper.estimate import Estimate
from extract.gripper.followed import Carried, FollowedExtractor
from extract.gripper.learned.live import LearnedEstimate, LearnedGripper, placed
from extract.gripper.learned.model import LearnedGripperModel, load_network
from extract.gripper.learned.settings import LearnedSettings
from extract.gripper.learned.steady import ray_noise, smoothed_openings, smoothed_positions, smoothed_rotations
from pipeline.errors import UserError
from pipeline.fingerprint import file_sha256

NAME = "learned/1"


class LearnedExtractor(FollowedExtractor):
    """A network looks at every frame; depth, where there is some, is not used."""

    name = NAME
    depth_source = "learned"
    no_fit = "the gripper network sees the gripper"

    def __init__(self, config: GripperConfig, settings: LearnedSettings, model: Path):
        """model: the .npz that ``settings`` or the run has. Raises UserError when it is not there."""
        if not model.exists():
            raise UserError(
                f"extract.gripper.detect.model: {model} does not exist; it is made by `python -m extract run` from "
                "labelled episodes with base_from_effector and opening"
            )
        super().__init__(config)
        self.settings, self._path = settings, model
        self.weights_sha256 = {"gripper-network.npz": file_sha256(model)}

    @cached_property
    def model(self) -> LearnedGripperModel:
        return load_network(self._path)

    def live(self, camera: Camera) -> LearnedGripper:
        """What follows the gripper through frames of one camera, with the settings of this extractor."""
        return LearnedGripper(self.model, camera, self.config.points, self.settings.min_score)

    def sigma(
        self, carried: Carried, estimates: Sequence[Estimate | None], times_T: np.ndarray, camera: Camera
    ) -> list[np.ndarray]:
        """As the looks said."""
        seen = [(time, e.sigma_2) for time, e in zip(times_T, estimates, strict=True) if isinstance(e, LearnedEstimate)]
        times, sigma = np.array([time for time, _ in seen]), np.stack([sigma for _, sigma in seen])
        return [np.interp(times_T, times, column) for column in sigma.T]

    def steadied(self, times_T: np.ndarray, estimates: Sequence[Estimate | None]) -> Sequence[Estimate | None]:
        """Smoothed over earlier and later frames."""
        slots = [slot for slot, estimate in enumerate(estimates) if isinstance(estimate, LearnedEstimate)]
        seen = [estimate for estimate in estimates if isinstance(estimate, LearnedEstimate)]
        times, measured = times_T[slots], np.stack([estimate.measured_44 for estimate in seen])
        noise = np.stack([ray_noise(e.measured_44[:3, 3], e.sigma_2) for e in seen])
        positions = smoothed_positions(times, measured[:, :3, 3], noise)
        rotations = smoothed_rotations(times, measured[:, :3, :3])
        openings = smoothed_openings(times, np.array([estimate.measured_opening for estimate in seen]))
        body, steady = self.model.spread(self.config.points), list(estimates)
        for row, slot in enumerate(slots):
            pose = np.eye(4)
            pose[:3, :3], pose[:3, 3] = rotations[row], positions[row]
            points, grasp = placed(self.model, body, pose, float(openings[row]))
            steady[slot] = replace(
                seen[row],
                pose_44=pose,
                points_N3=points,
                opening=float(openings[row]),
                grasp_3=grasp,
            )
        return steady
