"""Grippers of robots that recorded their end-effector poses: the camera from the motion, the points from the camera."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from data.episode import Frame
from extract.effector import Camera, Extraction
from extract.gates import Gate
from extract.gripper.config import GripperConfig
from extract.robot.config import ProprioSettings
from extract.robot.proprio import gripper_track
from extract.steps import Shot


@dataclass(frozen=True)
class PoseSight:
    """A frame, kept until its stretch is complete; where the effector is in it comes out only then."""

    frame: Frame

    @property
    def time(self) -> float:
        return self.frame.time

    @property
    def found(self) -> bool:
        return self.frame.base_from_effector is not None

    @property
    def boxes(self) -> np.ndarray:
        return np.zeros((0, 4))


class ProprioExtractor:
    """All five steps at once, without any network. A frame counts as seen when its pose was recorded."""

    name = "proprio/1"
    nothing = "no_poses"

    def __init__(self, config: GripperConfig, settings: ProprioSettings):
        self.config, self.settings = config, settings
        self.weights_sha256: dict[str, str] = {}

    @property
    def gates(self) -> Mapping[str, Gate | None]:
        return self.config.gates

    def look(self, frames: Iterable[Frame], camera: Camera) -> Iterator[PoseSight]:
        """Keeps every frame."""
        return map(PoseSight, frames)

    def lift(self, sights: Sequence[PoseSight], camera: Camera) -> Extraction:
        """At most one track, or why the recorded motion does not tell where the camera is."""
        return gripper_track(Shot([sight.frame for sight in sights], camera), self.settings)
