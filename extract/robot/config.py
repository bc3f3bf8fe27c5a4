"""Settings of the robot steps that need no weights."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from extract.robot.tracks import TrackSettings
from pipeline.config import Settings


class ProprioSettings(Settings):
    """The camera from recorded end-effector poses, and the gripper's points from the camera."""

    name: Literal["proprio"] = "proprio"
    tracks: TrackSettings = TrackSettings()
    fov_deg: tuple[float, float] = Field(
        default=(25.0, 85.0), description="Usual fields of view along the longer side, where the camera is not known."
    )
    size_m: float = Field(
        default=0.04, gt=0, description="Spread (one sigma) of the effector's points about their middle."
    )
    reach_m: float = Field(
        default=0.15, gt=0, description="Distance (one sigma) of that middle from the recorded pose's origin."
    )
    points: int = Field(default=200, ge=8, description="Points per track at most.")
    min_travel_m: float = Field(default=0.08, gt=0, description="Effectors that move less are rejected.")
    min_tracks: int = Field(default=8, ge=4, description="Fewer image tracks that ride on the effector are rejected.")
    max_sigma: float = Field(
        default=0.02, gt=0, description="Largest expected relative error of distance (one sigma); above: rejected."
    )
    max_frames: int = Field(default=600, ge=10, description="Longest shot, frames; the detector holds so many back.")
    solve_frames: int = Field(default=150, ge=10, description="Frames of a shot that the adjustment uses at most.")
    together: int = Field(default=1, ge=1, description="Episodes of the same static camera that are solved together.")
