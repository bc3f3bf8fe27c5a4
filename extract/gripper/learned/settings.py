"""Settings of grippers that are found and followed in colour alone."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from extract.robot.config import ProprioSettings
from pipeline.config import Settings


class LearnedSettings(Settings):
    """A small network from labelled episodes with recorded poses and opening, that sees the gripper in every frame.

    All five steps at once, without depth: it finds the gripper, gives metric points, opening and grasp point.
    """

    name: Literal["learned"] = "learned"
    model: Path | None = Field(
        default=None,
        description="Gripper network (.npz) of an earlier run; null = taught by the index's labelled episodes into "
        "RUN/extract/gripper-network.npz before the first video.",
    )
    embodiment: str | None = Field(
        default=None, description="Embodiment that the network is of; needed where labelled episodes show several."
    )
    width_m: float = Field(
        default=0.22,
        gt=0.02,
        description="How much around the gripper the network looks at: its size, and some margin.",
    )
    reach_m: float = Field(
        default=0.16, gt=0.02, description="What rides so near to the recorded pose's origin belongs to the gripper."
    )
    grasp_m: tuple[float, float, float] = Field(
        default=(0.0, 0.0, 0.0),
        description="Grasp point in the frame of the recorded poses; the origin where these are of the tool centre.",
    )
    frames: int = Field(default=800, ge=20, description="Labelled frames that lessons are made from, at most.")
    scenes: int = Field(
        default=48, ge=0, description="Unlabelled videos, at most, whose backgrounds the gripper is shown before."
    )
    steps: int = Field(default=4000, ge=1, description="Steps of training.")
    batch_size: int = Field(default=32, ge=2, description="Lessons per step.")
    learning_rate: float = Field(default=2e-3, gt=0, description="Highest learning rate.")
    min_score: float = Field(
        default=0.5, gt=0, lt=1, description="How sure the network must be that the gripper is there."
    )
    camera: ProprioSettings = Field(
        default=ProprioSettings(together=4),
        description="How the camera of labelled episodes without world_from_camera is found from recorded motion.",
    )
