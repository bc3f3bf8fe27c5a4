"""Settings of the mask-and-depth extractor."""

from __future__ import annotations

from pydantic import Field

from pipeline.config import Settings


class MaskConfig(Settings):
    """Effectors given as a mask with depth: grippers in RGB-D data, simulated effectors."""

    points: int = Field(default=200, ge=8, description="Points per clip.")
    min_mask_px: int = Field(default=30, ge=4, description="Frames with fewer effector pixels are gaps.")
    max_gap_s: float = Field(default=0.3, ge=0, description="Longer losses cut the clip.")
    min_seconds: float = Field(default=0.4, ge=0, description="Shorter clips are rejected as too_short.")
