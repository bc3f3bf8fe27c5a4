"""Settings of the data stages: index, pack and the training windows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from pipeline.config import Settings

Row = tuple[float, float, float]


class ActionMeaning(Settings):
    """What a data set does not tell of its actions."""

    unit: str = Field(description="Unit of the values, in words, for example `rad` or `m and rad`.")
    frame: str = Field(description="Reference frame, for example `base`, `world`, `camera`, `joints`.")
    mode: Literal["delta", "absolute"] = Field(description="Relative to the current pose, or a target.")


class Source(Settings):
    """One place that videos come from."""

    name: str = Field(pattern=r"[a-z0-9-]+", description="Short name, recorded in every clip.")
    kind: Literal["video", "data_set", "simulation"] = Field(
        default="video",
        description="`video`: a folder of videos with optional sidecars and tables of words; `data_set`: LeRobot, "
        "RLDS, HDF5 and RGB-D data sets; `simulation`: what the simulate stage made.",
    )
    path: Path | None = Field(
        default=None,
        description="Folder, or the URL of one (s3://, hf://, gs://, https://; docs/sources.md), searched with all its "
        "subfolders; not given for `simulation`.",
    )
    effector: Literal["hand", "hand_joints", "gripper"] = Field(
        default="hand",
        description="What to follow where a sidecar does not say: `hand`, human hands; `hand_joints`, hands "
        "whose joints the episode brings; `gripper`, what extract.gripper is told to look for.",
    )
    embodiment: str = Field(default="human-hand", description="Used where a sidecar does not say.")
    instruction: str = Field(default="", description="Used where a sidecar does not say.")
    license: str = Field(default="", description="As declared by you; kept with the index.")
    layout: Path | None = Field(
        default=None,
        description="For `video` and `data_set`: a YAML file that says what is where in tables of words, RLDS, HDF5 or "
        "RGB-D folders, or the name of a shipped one (docs/sources.md).",
    )
    cameras: list[str] | None = Field(
        default=None, min_length=1, description="For `data_set`: the cameras to use; null = all that show pictures."
    )
    intrinsics: tuple[Row, Row, Row] | None = Field(
        default=None,
        description="For `data_set`: 3x3 camera matrix in pixels, used where a camera does not tell its own.",
    )
    actions: ActionMeaning | None = Field(
        default=None,
        description="For `data_set`: what the actions mean. With it, episodes are labelled: their actions and "
        "proprioception go into the clips. Without, neither does.",
    )

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Source:
        if (self.kind == "simulation") != (self.path is None):
            raise ValueError(f"source '{self.name}': {self.kind} needs a path, simulation has none")
        given = [name for name in ("cameras", "intrinsics", "actions") if getattr(self, name) is not None]
        if given and self.kind != "data_set":
            raise ValueError(f"source '{self.name}': {', '.join(given)}: for kind data_set only")
        if self.layout is not None and self.kind == "simulation":
            raise ValueError(f"source '{self.name}': layout: not for kind simulation")
        return self


class IndexConfig(Settings):
    """``python -m data index``."""

    sources: list[Source] = Field(min_length=1)
    split_minutes: float | None = Field(
        default=10.0,
        ge=0.5,
        description="Longer videos become several episodes of equal length, so that several workers share one; null = "
        "never. Episodes with arrays or a frame_range are never split.",
    )

    @model_validator(mode="after")
    def _names_differ(self) -> IndexConfig:
        names = [source.name for source in self.sources]
        if len(set(names)) != len(names):
            raise ValueError(f"two sources share a name: {names}")
        return self


class PackConfig(Settings):
    """``python -m data pack``: filter, split by group, shuffle, equal shards."""

    val_fraction: float = Field(default=0.15, gt=0, lt=1, description="Share of groups held out, per source and task.")
    clips_per_shard: int = Field(default=64, ge=1)
    min_frames: int = Field(default=8, ge=2, description="Shorter clips are left out and counted.")
    min_visible: float = Field(default=0.2, ge=0, le=1, description="Least mean share of measured points.")


class WindowConfig(Settings):
    """One training sample: a moment of a clip with its past and its future."""

    past_s: tuple[float, ...] = Field(
        default=(-0.15, -0.1, -0.05, 0.0), description="Times of the input clouds; the last is 0."
    )
    horizons_s: tuple[float, ...] = Field(
        default=(0.1, 0.2, 0.3, 0.4, 0.5), description="Times of the predicted clouds."
    )
    points: int = Field(default=64, ge=1, description="Points per training sample, a random subset.")
    image_size: int = Field(default=128, ge=32, description="Images are letterboxed to this square, pixels.")
    scene: Literal["none", "image", "depth"] = Field(
        default="none",
        description="What the image shows: `none`, the frame as it is; `image`, the scene without the actor; `depth`, "
        "that and the scene's depth. The clips must hold it (extract.scenes).",
    )
    waypoint_m: float = Field(
        default=0.02, gt=0, description="Waypoints: how far the path may be from the lines between them, metres."
    )
    action_chunk: int = Field(default=8, ge=1, description="Actions per labelled sample.")

    @model_validator(mode="after")
    def _times_are_ordered(self) -> WindowConfig:
        if self.past_s[-1] != 0 or list(self.past_s) != sorted(set(self.past_s)):
            raise ValueError(f"past_s must increase strictly and end at 0, found {self.past_s}")
        if min(self.horizons_s) <= 0 or list(self.horizons_s) != sorted(set(self.horizons_s)):
            raise ValueError(f"horizons_s must be positive and increase strictly, found {self.horizons_s}")
        return self


class MixtureConfig(Settings):
    """How often training sees what, whatever its amount."""

    by: Literal["source", "embodiment", "task", "labels"] = Field(
        default="source",
        description="What the weights are given to; a clip without a task counts by its instruction. "
        "labels: `labelled` and `video` are clips with and without actions.",
    )
    weights: dict[str, float] = Field(
        default={"*": 1.0},
        description="Share of the samples by name, relative to each other; `*` stands for each name that is not given. "
        "0 leaves out. Without `*`, every name in the training clips must be given.",
    )

    @model_validator(mode="after")
    def _weights_are_usable(self) -> MixtureConfig:
        bad = {name: weight for name, weight in self.weights.items() if not (math.isfinite(weight) and weight >= 0)}
        if bad or not any(self.weights.values()):
            raise ValueError(f"weights must be 0 or more, and one above 0, found {bad or self.weights}")
        return self
