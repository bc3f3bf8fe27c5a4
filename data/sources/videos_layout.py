"""The layout of tables of words about videos (data/sources/mapping.py reads it)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from data.sources.fields import Column, Number, Pattern
from pipeline.config import Settings


class VideoPlace(Settings):
    """Which videos rows speak of, and what is true of all of them."""

    path: Pattern = Field(
        description="From the table's folder on, or with `**/` below the source's folder. `{column}` is what the row "
        "has there; other names are for `group`."
    )
    robot: str = Field(default="", description="The embodiment.")
    effector: Literal["hand", "gripper"] | None = Field(default=None, description="null: what the source says.")


class VideosLayout(Settings):
    """Tables (CSV, TSV, JSON) of words about videos.

    A column is a column of a CSV, or a path into a row of JSON; `.` is a row that is a single value.
    """

    format: Literal["video"]
    name: str = Field(pattern=r"^[a-z0-9-]+$")
    automatic: bool = Field(default=True, description="false: only where a source names the layout.")
    tables: tuple[Pattern, ...] = Field(min_length=1, description="Files below the source's folder.")
    rows: tuple[Pattern, ...] = Field(
        default=(),
        description="JSON: where rows are; `*` is any key or place in a list, `{name}` a key that is a column.",
    )
    videos: tuple[VideoPlace, ...] = Field(min_length=1, description="The first that fits a video is used.")
    leave_out: tuple[Pattern, ...] = Field(
        default=(), description="Videos that show something else, for example depth."
    )
    instruction: tuple[Column, ...] = Field(min_length=1, description="The first that is not empty is used.")
    begins: str = Field(default="", description="Rows whose text begins otherwise (in any case) are left out.")
    replace: dict[str, str] = Field(
        default={}, description="Words that are replaced in the text, in this order and in any case."
    )
    start: tuple[Column, ...] = Field(default=(), description="Seconds, or hours:minutes:seconds.")
    stop: tuple[Column, ...] = ()
    moment: tuple[Column, ...] = Field(
        default=(), description="One time in place of start and stop: from half way to the row before in the same list "
        "to half way to the one after, but no further than `reach_s`.",
    )  # fmt: skip
    reach_s: Number = 2.0
    unit_s: Number = Field(default=1.0, description="Seconds per unit of times that are plain numbers.")
    group: tuple[str, ...] = Field(default=(), description="Columns and names that make the group; empty: the video.")
    sidecar: dict[str, Column] = Field(
        default={}, description="Other fields of a sidecar's CSV (data/sidecar.py), and the columns that tell them."
    )
    others: Literal["ignored", "sidecar"] = Field(
        default="ignored", description="What further columns are: `sidecar`, fields of that name."
    )
    optional: tuple[Column, ...] = Field(default=(), description="Columns that a table may lack.")
    license: str = ""

    @model_validator(mode="after")
    def _times_are_whole(self) -> VideosLayout:
        if bool(self.start) != bool(self.stop) or (self.start and self.moment):
            raise ValueError("needs start and stop, or moment, or none of them")
        return self

    def columns(self) -> tuple[str, ...]:
        """Columns that are read, but for those that name the video."""
        return (*self.instruction, *self.start, *self.stop, *self.moment, *self.sidecar.values())
