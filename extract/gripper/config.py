"""Settings of grippers: one step of each kind by name, with its own settings."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator

from extract.depth.assumed import AssumedDepthSettings
from extract.depth.learned import DepthAnythingSettings, DepthProSettings
from extract.depth.sensor import SensorDepthSettings
from extract.detect.grounding_dino import GroundingDinoSettings
from extract.detect.mediapipe import MediapipeSettings
from extract.gates import Gate, Gates, merged
from extract.gripper.given import GivenSettings
from extract.gripper.learned.settings import LearnedSettings
from extract.gripper.picture import PictureSettings
from extract.gripper.registered.settings import RegisteredSettings
from extract.kinematics import MOTION_GATES
from extract.lift.surface import SurfaceConfig
from extract.lift.unproject import UnprojectConfig
from extract.robot.config import ProprioSettings
from extract.robot.motion import MotionSettings
from extract.segment.box import BoxSettings
from extract.segment.landmarks import LandmarkMaskSettings
from extract.segment.sam2 import Sam2Settings
from extract.track.lucas_kanade import LucasKanadeConfig
from extract.track.raft import RaftConfig
from extract.track.tapir import TapirConfig
from pipeline.config import Settings

GATES: Gates = {
    "visible": Gate(at_least=0.1),
    "measured": Gate(at_least=0.4),
    "score": Gate(at_least=0.3),
    **MOTION_GATES,
}

Detect = (
    GivenSettings
    | PictureSettings
    | MediapipeSettings
    | GroundingDinoSettings
    | MotionSettings
    | ProprioSettings
    | RegisteredSettings
    | LearnedSettings
)
Segment = GivenSettings | PictureSettings | LandmarkMaskSettings | BoxSettings | Sam2Settings
Track = LucasKanadeConfig | RaftConfig | TapirConfig
Depth = SensorDepthSettings | AssumedDepthSettings | DepthAnythingSettings | DepthProSettings
Lift = UnprojectConfig | SurfaceConfig


class GripperConfig(Settings):
    """How grippers, or whatever else is named, are found and followed. Each step is ``NAME`` or ``{name: NAME, ...}``.

    ``detect: {name: proprio}`` is a whole way of its own: it finds the camera from recorded end-effector poses and
    gives metric points without the other four steps. ``detect: registered`` is another: a surface model of the gripper,
    made from labelled episodes, is registered to the depth of every frame. ``detect: learned`` is a third, for colour
    without depth: a small network, taught by labelled episodes, sees the gripper's pose and opening in every frame.
    """

    detect: Annotated[Detect, Field(discriminator="name")] = Field(
        default=MotionSettings(),
        description="`motion`, `proprio`, `registered`, `learned`, `mediapipe` (hands), `grounding-dino`, "
        "`given`, or `picture` (all of it).",
    )
    segment: Annotated[Segment, Field(discriminator="name")] = Field(
        default=BoxSettings(), description="`box`, `landmarks` (of mediapipe), `sam2`, `given` or `picture`."
    )
    track: Annotated[Track, Field(discriminator="name")] = Field(
        default=LucasKanadeConfig(), description="`lucas-kanade`, `raft` or `tapir`."
    )
    depth: Annotated[Depth, Field(discriminator="name")] = Field(
        default=SensorDepthSettings(),
        description="`sensor`, `assumed` (one stated distance), `depth-anything` or `depth-pro`.",
    )
    lift: Annotated[Lift, Field(discriminator="name")] = Field(
        default=UnprojectConfig(), description="`unproject` tracks, or register the measured `surface` (no tracks)."
    )
    points: int = Field(default=200, ge=8, description="Points per clip.")
    max_effectors: int = Field(default=1, ge=1, description="Effectors per video; 2 for bimanual robots.")
    min_mask_px: int = Field(default=30, ge=4, description="Frames with fewer effector pixels are gaps.")
    look_gap_s: float = Field(default=1.0, ge=0, description="Boxes this far apart in time are still one effector.")
    max_gap_s: float = Field(default=0.3, ge=0, description="Longer losses of the mask cut the clip.")
    min_seconds: float = Field(default=0.4, ge=0, description="Shorter clips are rejected as too_short.")
    gates: Gates = Field(
        default={**GATES}, description="Limits of the clip's scores; given ones join the defaults, null lifts."
    )

    @field_validator("detect", "segment", "track", "depth", "lift", mode="before")
    @classmethod
    def _name_alone(cls, given: Any) -> Any:
        return {"name": given} if isinstance(given, str) else given

    @field_validator("gates", mode="before")
    @classmethod
    def _over_defaults(cls, given: Any) -> Any:
        return merged(GATES, given)
