"""Settings of grippers that are registered to a surface model."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from pipeline.config import Settings


class RegisteredSettings(Settings):
    """A gripper model from labelled episodes with depth and recorded poses, registered to the depth of every frame.

    All five steps at once: it finds the gripper, gives metric points, opening and grasp point.
    """

    name: Literal["registered"] = "registered"
    model: Path | None = Field(
        default=None,
        description="Gripper model (.npz) of an earlier run; null = built from the index's labelled episodes into "
        "RUN/extract/gripper-model.npz before the first video.",
    )
    embodiment: str | None = Field(
        default=None, description="Embodiment that the model is of; needed where labelled episodes show several."
    )
    model_frames: int = Field(default=300, ge=20, description="Frames that the model is built from, at most.")
    reach_m: float = Field(
        default=0.16, gt=0.02, description="Surface so near to the recorded pose's origin may belong to the gripper."
    )
    min_fit: float = Field(
        default=0.8, gt=0, le=1, description="Share of the model's points that must agree with the depth that is seen."
    )
