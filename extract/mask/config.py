"""Settings of the mask-and-depth extractor."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from extract.gates import Gate, Gates, merged
from extract.kinematics import MOTION_GATES
from pipeline.config import Settings

GATES: Gates = {
    "visible": Gate(at_least=0.1),
    **MOTION_GATES,
}


class MaskConfig(Settings):
    """Effectors given as a mask with depth: grippers in RGB-D data, simulated effectors."""

    points: int = Field(default=200, ge=8, description="Points per clip.")
    min_mask_px: int = Field(default=30, ge=4, description="Frames with fewer effector pixels are gaps.")
    max_gap_s: float = Field(default=0.3, ge=0, description="Longer losses cut the clip.")
    min_seconds: float = Field(default=0.4, ge=0, description="Shorter clips are rejected as too_short.")
    depth_sigma: float = Field(
        default=0.0002,
        gt=0,
        description="Relative one-sigma error of the depth. 0.0002 is that of simulated depth, cameras have 0.005.",
    )
    gates: Gates = Field(
        default=GATES, description="Limits of quality scores; a name replaces its default, null switches it off."
    )

    @field_validator("gates", mode="before")
    @classmethod
    def _over_defaults(cls, given: Any) -> Any:
        return merged(GATES, given)
