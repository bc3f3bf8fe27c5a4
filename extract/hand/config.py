"""Settings of hand extraction. The numbers of the fit are model constants and live beside the model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator

from extract.depth.learned import DepthAnythingSettings, DepthProSettings
from extract.gates import Gate, Gates, merged
from extract.kinematics import MOTION_GATES
from pipeline.config import Settings

# Chosen on clips that were made bad on purpose, with other seeds than the published ones: docs/results/extraction.md.
GATES = {
    "second_look": Gate(at_most=0.35),
    "sharpness": Gate(at_least=0.09),
    "jump": Gate(at_most=0.7),
    "swell": Gate(at_most=0.25),
    "sensed": Gate(at_least=0.7),
    "depth_jump": Gate(at_most=0.1),
    "depth_by_size": Gate(at_least=-0.3, at_most=0.13),
    **MOTION_GATES,
}


class HandConfig(Settings):
    """How human hands are found, followed and placed in space."""

    bundle: Path | None = Field(
        default=None, description="HandLandmarker bundle; null = download once and keep in the cache."
    )
    max_hands: int = Field(default=2, ge=1, le=2, description="Hands per frame.")
    look_for_more_hz: float | None = Field(
        default=5.0,
        gt=0,
        description="How often, per second of video, a second hand is looked for while one is seen. null = in every "
        "frame, at half the speed.",
    )
    second_look_hz: float | None = Field(
        default=1.0,
        gt=0,
        description="How often, per second of video, one hand is looked at again in the mirrored picture, to tell "
        "hands from what a tracker takes for one, and right from left. New ones are at once. null = never.",
    )
    min_score: float = Field(
        default=0.5, gt=0, lt=1, description="MediaPipe's thresholds for detection, presence and tracking."
    )
    points: int = Field(default=200, ge=16, description="Surface points per hand.")
    max_gap_s: float = Field(
        default=0.25, ge=0, description="Shorter losses are filled and marked not visible; longer ones cut."
    )
    min_seconds: float = Field(default=0.5, gt=0, description="Shorter tracks are rejected as too_short.")
    min_measured: float = Field(
        default=0.6, ge=0, le=1, description="Tracks seen in a smaller share of frames: too_many_gaps."
    )
    palm_size_m: float = Field(
        default=0.061,
        gt=0.02,
        lt=0.2,
        description="Assumed palm size, mean of 8 chords between wrist and knuckles, metres; 0.061 is an adult. "
        "Without sensor depth, everything scales with it.",
    )
    palm_size_sigma: float = Field(
        default=0.08,
        ge=0,
        description="Relative one-sigma error of palm_size_m; 0.08 covers adults, 0.02 a hand that was measured. "
        "Widens sigma along the ray where the distance rests on the hand's size.",
    )
    depth: Annotated[DepthAnythingSettings | DepthProSettings, Field(discriminator="name")] | None = Field(
        default=None,
        description="A depth network where the episode has no sensor depth: `depth-anything` or `depth-pro`. null = "
        "distance from the hand's size alone.",
    )
    use_sensor_depth: bool = Field(default=True, description="Use the depth image where the episode has one.")
    sensor_depth_sigma_m: float = Field(default=0.004, gt=0, description="Noise of the depth image, one sigma, metres.")
    assumed_focal_sigma: float = Field(
        default=0.2,
        ge=0,
        description="Relative one-sigma error of an assumed focal length; widens sigma along the ray.",
    )
    gates: Gates = Field(
        default={**GATES}, description="Limits of the clip's scores; given ones join the defaults, null lifts."
    )

    @field_validator("gates", mode="before")
    @classmethod
    def _over_defaults(cls, given: Any) -> Any:
        return merged(GATES, given)
