"""Settings of camera motion. Pixels here are those of the small grey picture whose longer side is ``long_side``."""

from __future__ import annotations

from pydantic import Field

from pipeline.config import Settings


class CameraMotionConfig(Settings):
    """How the background is followed, and when a camera counts as static, as solved, or as unknown."""

    long_side: int = Field(default=480, ge=160, description="Longer side of the grey picture that is followed, pixels.")
    points: int = Field(default=160, ge=40, description="Background points that are followed, at most.")
    still_px: float = Field(
        default=0.75, gt=0, description="A camera whose background stays within this many pixels is static."
    )
    box_margin: float = Field(default=0.1, ge=0, description="Effector boxes are grown by this share of their size.")
    backward_px: float = Field(
        default=0.7, gt=0, description="Points that do not return to within this when followed backward are lost."
    )
    pixel_sigma: float = Field(default=0.4, gt=0, description="One-sigma error of a followed point, pixels.")
    depth_sigma: float = Field(
        default=0.015, gt=0, description="Relative one-sigma error of depth where the caller does not say."
    )
    min_points: int = Field(default=15, ge=6, description="Fewer background points in a frame: the camera is unknown.")
    min_inliers: float = Field(
        default=0.4, gt=0, le=1, description="Least share of followed points that must agree with one rigid background."
    )
    relative: bool = Field(
        default=False,
        description="Also solve moving cameras without depth, up to an unknown scale. Clips are in metres and cannot "
        "use such a path: false saves the time.",
    )
    min_inliers_relative: float = Field(
        default=0.75, gt=0, le=1, description="The same without depth, where a wrong path is harder to tell."
    )
    max_residual_px: float = Field(
        default=1.5, gt=0, description="Largest median distance of the background from where the path puts it, pixels."
    )
