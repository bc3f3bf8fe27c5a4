"""Settings of the extract stage."""

from __future__ import annotations

from pydantic import Field

from extract.camera.config import CameraMotionConfig
from extract.gripper.config import GripperConfig
from extract.hand.config import HandConfig
from extract.mask.config import MaskConfig
from extract.stretches import ClipSettings
from pipeline.config import Settings


class ExtractConfig(Settings):
    """``python -m extract run``."""

    rate_hz: float | None = Field(default=20.0, gt=0, description="Frames per second to use; null = every frame.")
    image_side: int = Field(default=256, ge=32, description="Longer side of the stored images, pixels; never enlarged.")
    assumed_fov_deg: float = Field(
        default=60.0,
        gt=10,
        lt=150,
        description="Field of view along the longer side where nothing tells the intrinsics.",
    )
    episodes_per_unit: int = Field(default=8, ge=1, description="Episodes that become one shard.")
    timeout_s: float = Field(
        default=600, gt=0, description="A video that makes no progress for so long is given up; its worker is replaced."
    )
    scenes: bool = Field(
        default=True,
        description="Store pictures of the scene without the actor beside the images, and its depth where the episode "
        "has depth.",
    )
    clips: ClipSettings = ClipSettings()
    camera_motion: CameraMotionConfig = CameraMotionConfig()
    hand: HandConfig = HandConfig()
    gripper: GripperConfig = GripperConfig()
    mask: MaskConfig = MaskConfig()
