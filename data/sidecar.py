"""What a user may say about a video, in a JSON or CSV file of the same name beside it.

``clip.mp4`` may have ``clip.json`` (one object, or a list of objects for several stretches of the same video) or
``clip.csv`` (a header of the same names, one row per stretch; intrinsics as columns fx, fy, cx, cy, distortion as
columns k1, k2, p1, p2, k3, ... and frame_range as columns start_frame, end_frame). Everything is optional.
"""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from data.schema import ActionSpec
from pipeline.config import Settings
from pipeline.errors import UserError

Lens = Literal["pinhole", "fisheye"]

# Counts of coefficients that OpenCV knows: k1 k2 p1 p2 [k3 [k4 k5 k6 [s1 s2 s3 s4 [tx ty]]]]; fisheye k1 k2 k3 k4.
COUNTS: dict[Lens, tuple[int, ...]] = {"pinhole": (4, 5, 8, 12, 14), "fisheye": (4,)}
CSV_NUMBERS = ("fx", "fy", "cx", "cy", "start_frame", "end_frame")
CSV_PINHOLE = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")  # columns of distortion, in OpenCV's order
CSV_FISHEYE = ("k1", "k2", "k3", "k4")


class Sidecar(Settings):
    """One stretch of one video."""

    instruction: str | None = Field(default=None, description="The task in words.")
    embodiment: str | None = Field(default=None, description="For example `human-hand`, `widowx-gripper`.")
    effector: Literal["hand", "hand_joints", "gripper", "mask"] | None = Field(
        default=None,
        description="`hand`: find human hands; `hand_joints`: take the joints that `arrays` or the data set bring; "
        "`gripper`: find what extract.gripper is told to look for; `mask`: "
        "follow the mask in `arrays`, with its depth. null = what the source says.",
    )
    side: Literal["left", "right"] | None = Field(default=None, description="Keep only this hand; null keeps both.")
    intrinsics: tuple[tuple[float, float, float], ...] | None = Field(
        default=None, description="3x3 camera matrix in pixels at the video's size."
    )
    distortion: tuple[float, ...] | None = Field(
        default=None,
        description="Lens coefficients in OpenCV's order, k1 k2 p1 p2 [k3 [k4 k5 k6]] (fisheye: k1 k2 k3 k4): "
        "frames are straightened while they are read; needs `intrinsics`, which stay as they are.",
    )
    lens: Lens = Field(default="pinhole", description="What `distortion` means: `pinhole` or `fisheye`.")
    rectified: bool = Field(
        default=False,
        description="The frames are already straightened; `distortion` is kept as a note and not applied.",
    )
    frame_range: tuple[int, int] | None = Field(default=None, description="First frame and the one after the last.")
    group: str | None = Field(
        default=None, description="Episodes that show the same motion or scene; splits keep them together."
    )
    task: str | None = Field(default=None, description="Short task name.")
    license: str | None = Field(default=None, description="As declared.")
    simulated: bool = Field(default=False, description="Rendered, not filmed.")
    labelled: bool = Field(default=False, description="`arrays` holds actions and proprioception that may be read.")
    seed: int | None = Field(default=None, description="Seed of a simulated episode.")
    success: bool | None = Field(default=None, description="Whether the task was completed.")
    arrays: str | None = Field(
        default=None,
        description="NPZ file beside the video: depth, mask, actor, grasp, world_from_camera, actions, ...",
    )
    depth_unit_m: float = Field(
        default=0.001,
        gt=0,
        allow_inf_nan=False,
        description="Metres per unit of `depth` in `arrays`, which is multiplied by it whatever its dtype: 0.001 for "
        "millimetres, 1 for metres.",
    )
    action_spec: ActionSpec | None = None

    @field_validator("intrinsics")
    @classmethod
    def _pinhole(cls, value: tuple[tuple[float, float, float], ...] | None) -> Any:
        if value is not None:
            if len(value) != 3 or tuple(value[2]) != (0, 0, 1):
                raise ValueError("must be 3 rows, the last one 0 0 1")
            if not all(math.isfinite(number) for row in value for number in row):
                raise ValueError("every entry must be a finite number")
            if value[0][0] <= 0 or value[1][1] <= 0:
                raise ValueError(f"focal lengths must be positive, found fx={value[0][0]}, fy={value[1][1]}")
        return value

    @field_validator("distortion")
    @classmethod
    def _coefficients(cls, value: tuple[float, ...] | None) -> Any:
        if value is not None and not all(math.isfinite(number) for number in value):
            raise ValueError("every coefficient must be a finite number")
        return value

    @model_validator(mode="after")
    def _lens_is_complete(self) -> Sidecar:
        if self.distortion is None:
            return self
        if len(self.distortion) not in COUNTS[self.lens]:
            counts = ", ".join(map(str, COUNTS[self.lens]))
            raise ValueError(
                f"distortion: a {self.lens} lens has {counts} coefficients in OpenCV's order, "
                f"found {len(self.distortion)}"
            )
        if self.intrinsics is None and not self.rectified:
            raise ValueError("distortion: needs intrinsics (from the same calibration), or rectified: true")
        return self

    @field_validator("arrays")
    @classmethod
    def _beside(cls, value: str | None) -> Any:
        if value is not None and (Path(value).name != value or "\0" in value):
            raise ValueError("must be the name of a file beside the video")
        return value

    @field_validator("frame_range")
    @classmethod
    def _not_empty(cls, value: tuple[int, int] | None) -> Any:
        if value is not None and not 0 <= value[0] < value[1]:
            raise ValueError(f"must be 0 <= start < end, found {value}")
        return value


# what a row of a CSV may have
CSV_COLUMNS = (
    *(name for name in Sidecar.model_fields if name not in ("intrinsics", "distortion", "frame_range", "action_spec")),
    *CSV_NUMBERS,
    *CSV_PINHOLE,
)


def sidecar_paths(video: Path) -> list[Path]:
    """Files that would be sidecars of ``video``."""
    return [video.with_suffix(suffix) for suffix in (".json", ".csv")]


def read_sidecars(video: Path) -> list[Sidecar]:
    """The stretches described beside ``video``; one default stretch when nothing is.

    Raises UserError naming file, field and value when a sidecar is wrong.
    """
    as_json, as_csv = sidecar_paths(video)
    if as_json.exists():
        try:
            content = json.loads(as_json.read_text())
        except (ValueError, OSError) as error:
            raise UserError(f"{as_json}: not readable as JSON ({error})") from None
        rows = content if isinstance(content, list) else [content]
        return [parse(row, as_json, number) for number, row in enumerate(rows)] or [Sidecar.model_validate({})]
    if as_csv.exists():
        try:
            with as_csv.open(newline="") as handle:
                rows = list(csv.DictReader(handle))
        except (csv.Error, OSError, UnicodeDecodeError) as error:
            raise UserError(f"{as_csv}: not readable as CSV ({error})") from None
        return [parse(from_csv(row, as_csv), as_csv, number) for number, row in enumerate(rows)] or [
            Sidecar.model_validate({})
        ]
    return [Sidecar.model_validate({})]


def from_csv(row: dict[str, Any], path: Path) -> dict[str, Any]:
    """The fields of a sidecar, not yet checked, of a row of its CSV. Raises UserError naming file, column and value."""
    values = {name: text for name, text in row.items() if text not in (None, "")}
    numbers: dict[str, float] = {}
    for name in (*CSV_NUMBERS, *CSV_PINHOLE):
        if name in values:
            try:
                numbers[name] = float(values.pop(name))
            except ValueError:
                raise UserError(f"{path}: {name}: not a number: {row[name]!r}") from None
            if not math.isfinite(numbers[name]):
                raise UserError(f"{path}: {name}: not a finite number: {row[name]!r}")
    if {"fx", "fy", "cx", "cy"} <= numbers.keys():
        fx, fy, cx, cy = (numbers[name] for name in ("fx", "fy", "cx", "cy"))
        values["intrinsics"] = ((fx, 0, cx), (0, fy, cy), (0, 0, 1))
    elif numbers.keys() & {"fx", "fy", "cx", "cy"}:
        raise UserError(f"{path}: intrinsics need all of fx, fy, cx, cy; found {sorted(numbers)}")
    order = CSV_FISHEYE if values.get("lens") == "fisheye" else CSV_PINHOLE
    if given := numbers.keys() & set(CSV_PINHOLE):
        if given != set(order[: len(given)]):
            raise UserError(
                f"{path}: distortion: needs columns {', '.join(order)} from the left; found {sorted(given)}"
            )
        values["distortion"] = tuple(numbers[name] for name in order[: len(given)])
    if {"start_frame", "end_frame"} <= numbers.keys():
        values["frame_range"] = (int(numbers["start_frame"]), int(numbers["end_frame"]))
    elif numbers.keys() & {"start_frame", "end_frame"}:
        raise UserError(f"{path}: a stretch needs both of start_frame, end_frame; found {sorted(numbers)}")
    return values


def parse(row: Any, path: Path, number: int) -> Sidecar:
    """One stretch. number: of the entry. Raises UserError naming file, entry, field and value."""
    try:
        return Sidecar.model_validate(row)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "content"
        known = f" Known: {', '.join(Sidecar.model_fields)}." if first["type"] == "extra_forbidden" else ""
        raise UserError(f"{path}: entry {number}: {where}: {first['msg']} (found {first['input']!r}).{known}") from None
