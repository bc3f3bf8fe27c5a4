"""The layout of folders of colour and depth (data/sources/mapping.py reads it)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from data.sources.fields import MatrixRow, Number, Pattern, Place
from data.sources.patterns import names, sound
from pipeline.config import Settings

VIDEOS = (".mp4", ".mkv", ".avi", ".mov", ".webm")


def is_list(pattern: str) -> bool:
    """A text of times and files, in the place of pictures."""
    return pattern.endswith(".txt")


def is_video(pattern: str) -> bool:
    return pattern.endswith(VIDEOS)


class InFile(Settings):
    """A file that tells a word or numbers; key: it holds JSON or YAML, and this is where to look in it."""

    at: str = Field(description="Below the episode's folder, or from the root of the data set with `/`.")
    key: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _inside(self) -> InFile:
        sound(self.at.removeprefix("/"))
        return self


class FoldersCamera(Settings):
    """A camera of a folder with colour and depth.

    Pictures are a pattern with `{frame}`, or a list of lines `seconds file` (its name ends in .txt); colour may be a
    video as well.
    """

    color: Pattern
    depth: Pattern | None = None
    depth_unit_m: Number | None = Field(default=None, description="Metres per unit of depth.")
    depth_per_m: tuple[InFile, ...] = Field(
        default=(), description="Files that tell units per metre; the first that is there comes before depth_unit_m."
    )
    pair: Literal["name", "order", "time"] = Field(
        default="name", description="`name`: the same {frame}; `order`: first with first; `time`: the nearest."
    )
    within_s: Number = Field(default=0.02, description="How far apart depth, and a pose, may be from the colour.")
    unpaired: float = Field(
        default=0.1, ge=0, lt=1, description="Share of pictures that may lack a depth or pose in time; left out."
    )
    intrinsics: tuple[MatrixRow, MatrixRow, MatrixRow] | tuple[InFile, ...] = Field(
        default=(), description="Pixels, as a matrix or fx, fy, cx, cy; of files the first that is there."
    )
    world_from_camera: Pattern | None = Field(
        default=None, description="Lines `seconds tx ty tz qx qy qz qw`, metres, OpenCV axes; may be missing."
    )

    @model_validator(mode="after")
    def _complete(self) -> FoldersCamera:
        if self.depth is not None and self.depth_unit_m is None:
            raise ValueError("depth_unit_m: say how many metres one unit of depth is, for example 0.001")
        for pattern in (self.color, self.depth or "{frame}"):
            if ("frame" in names(pattern)) == (is_list(pattern) or is_video(pattern)):
                raise ValueError(f"{pattern}: pictures need {{frame}}, and neither a list nor a video has it")
        if self.depth is not None and is_video(self.depth):
            raise ValueError(f"depth: {self.depth}: depth is not read from videos")
        if self.depth is not None and self.pair == "name" and not (names(self.color) and names(self.depth)):
            raise ValueError("pair: lists and videos pair by time or by order")
        return self


class FoldersLayout(Settings):
    """Folders of colour and depth: an episode is a folder."""

    format: Literal["rgbd"]
    name: str = Field(pattern=r"^[a-z0-9-]+$")
    episodes: tuple[Place, ...] = Field(
        min_length=1, description="Files or folders, any of which the folder of an episode has."
    )
    cameras: dict[str, FoldersCamera] = Field(
        min_length=1, description="`*`: one for everything that `{camera}` stands for in its `color`."
    )
    timestamps: str | None = Field(
        default=None, description="A file with a number per frame, or `{frame}`: the frame's name is the time."
    )
    unit_s: Number = Field(default=1.0, description="Seconds per unit of these.")
    rate_hz: Number | None = Field(default=None, description="Where there are no times.")
    instruction: tuple[InFile, ...] = Field(default=(), description="The first that is there is used.")
    robot: str = ""
    license: str = Field(default="", description="Used where no card or licence file lies beside the data.")

    @model_validator(mode="after")
    def _sound(self) -> FoldersLayout:
        if self.timestamps is not None:
            sound(self.timestamps)
        for label, camera in self.cameras.items():
            known = set(names(camera.color))
            if (label == "*") != ("camera" in known) or known - {"frame", "camera"}:
                raise ValueError(f"cameras.{label}: color: `*` and {{camera}} belong together, beside {{frame}}")
            if self.timestamps == "{frame}" and "frame" not in known:
                raise ValueError(f"cameras.{label}: color: timestamps are {{frame}}, which it lacks")
            if self.timestamps is None and self.rate_hz is None and "frame" in known:
                raise ValueError("rate_hz: pictures have no times; give rate_hz or timestamps")
        return self
