"""Layouts: which features, files or columns of a foreign format are cameras, actions, states and words.

A layout is a YAML file, shipped in ``layouts/`` or written by the user (docs/sources.md). It names places and numbers;
nothing in it is ever run.
"""

from __future__ import annotations

import difflib
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from data.sources.fields import PLACE, Number, Place
from data.sources.folders_layout import FoldersLayout
from data.sources.videos_layout import VideosLayout
from pipeline.config import Settings
from pipeline.errors import UserError

SHIPPED = Path(__file__).parent / "layouts"
MAX_BYTES = 1 << 20


class Part(Settings):
    """Columns of an action or a state. Parts follow each other in the order in which they are written."""

    path: Place = Field(description="Feature or data set of [T,D] or [T] numbers.")
    names: tuple[str, ...] = Field(default=(), description="One name per column; made up where there are none.")
    columns: tuple[int, int] | None = Field(default=None, description="First column and the one after the last.")


class StepsLayout(Settings):
    """RLDS: paths are below ``steps/``, except for those that begin with ``/``."""

    format: Literal["rlds"]
    name: str = Field(pattern=r"^[a-z0-9-]+$")
    rate_hz: Number = Field(description="Steps per second; RLDS does not store it.")
    robot: str = ""
    license: str = Field(default="", description="Used where the data set declares none.")
    cameras: dict[str, Place] = Field(min_length=1)
    actions: tuple[Part, ...] = ()
    proprio: tuple[Part, ...] = ()
    instruction: tuple[Place, ...] = Field(default=(), description="The first that is not empty is used.")

    def needs(self) -> set[str]:
        """Features without which the layout does not fit."""
        parts = [part.path for part in (*self.actions, *self.proprio)]
        return {full(place) for place in (*self.cameras.values(), *parts, *self.instruction)}


class Told(Settings):
    """A word or a number that a file tells, in an attribute or in a data set of text."""

    at: Place | None = Field(
        default=None,
        description="Group that has the attribute, or the data set; from the root with `/`, null = the episode.",
    )
    attribute: str | None = Field(default=None, description="null: the data set itself.")
    key: tuple[str, ...] = Field(default=(), description="The content is JSON, and this is where to look in it.")
    when: dict[str, str] = Field(default={}, description="Only where these attributes of the same group say so.")


class GroupsCamera(Settings):
    """A camera of an HDF5 file. Exactly one of path, video."""

    path: str | None = Field(
        default=None,
        pattern=rf"^({PLACE}|[A-Za-z0-9_./\- ]*\*[A-Za-z0-9_.\- ]*)$",
        description="u8 [T,H,W,3] RGB. One `*` stands for the camera's name: all that there are.",
    )
    video: str | None = Field(
        default=None, pattern=r"^\.[a-z0-9]+$", description="Suffix of a video of the same name beside the file."
    )
    depth: Place | None = Field(default=None, description="[T,H,W] or [T,H,W,1].")
    depth_unit_m: Number = Field(default=1.0, description="Metres per unit of depth.")
    turn: Literal["none", "flip", "rotate"] = Field(
        default="none",
        description="What brings the stored pictures upright: `flip` upside down, `rotate` by 180 degrees.",
    )
    intrinsics: Place | None = Field(default=None, description="[3,3] pixels.")
    world_from_camera: Place | None = Field(default=None, description="[T,4,4] or [4,4], OpenCV axes.")

    @model_validator(mode="after")
    def _one_way(self) -> GroupsCamera:
        if (self.path is None) == (self.video is None):
            raise ValueError("needs either path or video")
        return self


class HandsLayout(Settings):
    """Poses [T,4,4] of the joints of both hands. ``{side}`` and ``{joint}`` stand for the names below."""

    joints: str = Field(pattern=r"^[A-Za-z0-9_./{}\- ]+$", description="For example transforms/{side}{joint}.")
    confidence: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_./{}\- ]+$", description="[T]; may be missing.")
    left: str = "left"
    right: str = "right"
    names: tuple[str, ...] = Field(min_length=1)
    order: tuple[str, ...] = Field(
        default=(), description="21 of the names: wrist, then thumb to little finger, each from its root to its tip."
    )
    least_confidence: float = Field(
        default=0.5, ge=0, le=1, description="Hands whose 21 joints have less, on average, are not known."
    )
    unit_m: Number = Field(default=1.0, description="Metres per unit of the poses, those of the camera among them.")
    world_from_camera: Place | None = Field(
        default=None, description="Joints are in the world and this brings them to the camera; null: they are there."
    )

    @model_validator(mode="after")
    def _order_is_a_whole_hand(self) -> HandsLayout:
        if self.order and (len(set(self.order)) != 21 or not set(self.order) <= set(self.names)):
            raise ValueError(f"order must be 21 different ones of names, found {list(self.order)}")
        return self


class GroupsLayout(Settings):
    """HDF5: paths are below the group of an episode, except for those that begin with ``/``."""

    format: Literal["hdf5"]
    name: str = Field(pattern=r"^[a-z0-9-]+$")
    episodes: str = Field(
        pattern=rf"^({PLACE}/\*|\.)$", description="`data/*`: every group there; `.`: the whole file."
    )
    length: Place = Field(description="Data set whose first dimension is the number of frames.")
    rate_hz: Number = Field(description="Used where `rate` finds nothing.")
    rate: tuple[Told, ...] = ()
    timestamps: Place | None = Field(default=None, description="[T] seconds; null: regular at the rate.")
    robot: str = ""
    license: str = Field(default="", description="Used where no card or licence file lies beside the data.")
    cameras: dict[str, GroupsCamera] = Field(min_length=1)
    actions: tuple[Part, ...] = ()
    proprio: tuple[Part, ...] = ()
    instruction: tuple[Told, ...] = Field(default=(), description="The first that is there is used.")
    hands: HandsLayout | None = None

    def needs(self) -> set[str]:
        """Data sets without which the layout does not fit, as they are written."""
        places = [self.length, *(part.path for part in (*self.actions, *self.proprio))]
        return set(places) | {camera.path for camera in self.cameras.values() if camera.path and "*" not in camera.path}


def full(place: str) -> str:
    """The feature of an RLDS episode that a layout means."""
    return place[1:] if place.startswith("/") else f"steps/{place}"


Layout = StepsLayout | GroupsLayout | VideosLayout | FoldersLayout
_ANY: TypeAdapter[Layout] = TypeAdapter(Annotated[Layout, Field(discriminator="format")])


def read_layout(path: Path) -> Layout:
    """A layout, by its file or by the name of a shipped one. Raises UserError naming file, field, value and remedy."""
    if len(path.parts) == 1 and not path.suffix and not path.exists():
        path = _shipped_as(path.name)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: {path.stat().st_size} bytes; a layout is a page of YAML.")
        raw: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Name an existing layout.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {error}") from None
    try:
        return _ANY.validate_python(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "content"
        raise UserError(
            f"{path}: {where}: {first['msg']} (found {first['input']!r:.200}). See docs/sources.md."
        ) from None


def _shipped_as(name: str) -> Path:
    known = sorted(path.stem for path in SHIPPED.glob("*.yaml"))
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"Did you mean '{near[0]}'?" if near else f"Shipped are {', '.join(known)}."
        raise UserError(f"layout: {name}: neither a file nor a shipped layout. {hint}")
    return SHIPPED / f"{name}.yaml"


@cache
def shipped() -> tuple[Layout, ...]:
    """The layouts that come with this package."""
    return tuple(read_layout(path) for path in sorted(SHIPPED.glob("*.yaml")))
