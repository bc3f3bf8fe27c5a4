"""One clip as one episode: its rows in data/, its row in meta/episodes, and whether it may go along at all."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from data.clips import Clip
from data.convert.features import (
    COUNTED,
    FIELD_FEATURES,
    PICTURE_FEATURES,
    PICTURE_TYPE,
    Kind,
    column_of,
)
from data.convert.statistics import Pixels, pixels_of, summary
from data.pictures import BadPicture, decoded

KEY, SHARD, POSITION, META = (f"kinecloud/{name}" for name in ("key", "shard", "position", "meta"))
PLACED = ("episode_index", "length", "data/chunk_index", "data/file_index", "dataset_from_index", "dataset_to_index")
UNKNOWN_ALLOWED = ("opening", "grasp")  # NaN is unknown there: no statistics of single episodes


class BadClip(Exception):
    """A clip that does not go along; reason is a short name, the text says what was found."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class Source:
    """Where a clip stood: what it takes to put it back."""

    shard: str
    position: int


@dataclass(frozen=True)
class Place:
    """Where an episode goes. first_row: number of its first frame in the data set. task: number of its words."""

    episode: int
    first_row: int
    chunk: int
    file: int
    task: int


def meta_text(clip: Clip) -> str:
    """meta.json as data.clips writes it. Raises BadClip for numbers that JSON does not know, and for broken text."""
    try:
        text = json.dumps(clip.meta.model_dump(), sort_keys=True, allow_nan=False)
        clip.meta.instruction.encode()
    except ValueError as error:
        raise BadClip("bad_meta", f"meta.json: {error}") from None
    return text


def checked(clip: Clip, kind: Kind) -> dict[str, Pixels]:
    """The pixels of each series of pictures, all of which were decoded.

    Raises BadClip where the clip violates the format (data.schema) or a picture cannot be decoded.
    """
    found = clip.problems()
    if found:
        raise BadClip("violates_format", "; ".join(found))
    counted: dict[str, Pixels] = {}
    for spec in kind.pictures:
        counted[spec.name] = pixels_of(spec.name)
        for number, content in enumerate(clip.pictures(spec)):
            try:
                counted[spec.name].add(decoded(content, spec, clip.meta.image_size))
            except BadPicture as error:
                raise BadClip("bad_picture", f"{number:04d}.{spec.suffix}: {error}") from None
    return counted


def size_of(clip: Clip, kind: Kind) -> int:
    """Bytes, before any compression. Raises BadClip as ``meta_text``."""
    pictures = sum(len(content) for spec in kind.pictures for content in clip.pictures(spec))
    return pictures + sum(array.nbytes for array in clip.arrays.values()) + len(meta_text(clip))


def counted_columns(frames: int, fps: int, place: Place) -> dict[str, np.ndarray]:
    """What LeRobot keeps of every frame, each [T]; ``timestamp`` is regular at fps, as LeRobot wants it."""
    numbers = np.arange(frames)
    values = {
        "timestamp": numbers / fps,
        "frame_index": numbers,
        "episode_index": np.full(frames, place.episode),
        "index": place.first_row + numbers,
        "task_index": np.full(frames, place.task),
    }
    return {name: values[name].astype(dtype) for name, dtype in COUNTED.items()}


def rows(clip: Clip, kind: Kind, place: Place) -> pa.Table:
    """One row per frame, in the order of the kind's features."""
    frames = clip.frames
    columns: list[pa.Array] = []
    for spec in kind.fields:
        values = clip.arrays[spec.name]
        columns.append(column_of(values if "T" in spec.shape else np.repeat(values[None], frames, axis=0)))
    for spec in kind.pictures:
        contents = clip.pictures(spec)
        names = [f"{number:04d}.{spec.suffix}" for number in range(frames)]
        bytes_, paths = pa.array(contents, pa.binary()), pa.array(names, pa.string())
        columns.append(pa.StructArray.from_arrays([bytes_, paths], fields=list(PICTURE_TYPE)))
    columns += [pa.array(values) for values in counted_columns(frames, kind.fps, place).values()]
    return pa.Table.from_arrays(columns, schema=kind.schema())


def listed(clip: Clip, kind: Kind, place: Place, source: Source, pixels: dict[str, Pixels]) -> dict[str, Any]:
    """The row of meta/episodes: LeRobot's columns, ours, and statistics of every feature that knows no NaN."""
    row: dict[str, Any] = {
        "episode_index": place.episode,
        "tasks": [clip.meta.instruction],
        "length": clip.frames,
        "data/chunk_index": place.chunk,
        "data/file_index": place.file,
        "dataset_from_index": place.first_row,
        "dataset_to_index": place.first_row + clip.frames,
        "meta/episodes/chunk_index": place.chunk,
        "meta/episodes/file_index": place.file,
        KEY: clip.key,
        SHARD: source.shard,
        POSITION: source.position,
        META: meta_text(clip),
    }
    told = {
        FIELD_FEATURES[spec.name]: summary(
            clip.arrays[spec.name] if "T" in spec.shape else np.repeat(clip.arrays[spec.name][None], clip.frames, 0)
        )
        for spec in kind.fields
        if spec.name not in UNKNOWN_ALLOWED
    }
    told |= {PICTURE_FEATURES[name]: counted.told() for name, counted in pixels.items()}
    told |= {name: summary(values) for name, values in counted_columns(clip.frames, kind.fps, place).items()}
    return row | {f"stats/{name}/{key}": value for name, one in told.items() for key, value in one.items()}


def listed_schema(kind: Kind) -> pa.Schema:
    """Of the files below meta/episodes."""
    columns: dict[str, pa.DataType] = {name: pa.int64() for name in (*PLACED, "meta/episodes/chunk_index")}
    columns |= {"meta/episodes/file_index": pa.int64(), "tasks": pa.list_(pa.string())}
    columns |= {KEY: pa.string(), SHARD: pa.string(), POSITION: pa.int64(), META: pa.string()}
    pictures = set(PICTURE_FEATURES.values())
    for name in kind.features():
        if name in UNKNOWN_ALLOWED:
            continue
        values = pa.list_(pa.float64())
        if name in pictures:
            values = pa.list_(pa.list_(values))
        for key in ("min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99"):
            columns[f"stats/{name}/{key}"] = pa.list_(pa.int64()) if key == "count" else values
    return pa.schema(list(columns.items()))
