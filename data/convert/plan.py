"""Which clip of which shard goes into which data set: found from headers, before anything is written."""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from data.archive import all_files
from data.clips import Shard, series_of
from data.convert.features import CONVERTER, Kind, kind_of
from data.schema import FIELD_BY_NAME, PICTURE_BY_SUFFIX, SCHEMA_VERSION
from pipeline.atomic import publishing, write_json
from pipeline.errors import UserError
from pipeline.fingerprint import canonical, file_sha256

SHARD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}\.tar")
PLAN, KINDS = "plan.jsonl", "kinds.json"
MOST_FRAMES = 10_000  # the numbers in the names of pictures have four digits, and are put in order as text


@dataclass(frozen=True)
class Rejection:
    """A clip that does not go along. item: its shard or data set, and its name there."""

    item: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Planned:
    """One shard. kinds: of each of its clips, in order, a number or None for rejected ones."""

    shard: str
    kinds: list[int | None]
    rejected: list[Rejection]


def named(paths: Sequence[Path]) -> dict[str, Path]:
    """Shards by file name, in the order in which they are converted. Raises UserError for names that cannot be kept."""
    found: dict[str, Path] = {}
    for path in paths:
        if not SHARD_NAME.fullmatch(path.name):
            raise UserError(f"{path}: the name of a shard is kept, and must be of letters, digits, '.', '_', '-'.")
        if path.name in found:
            raise UserError(f"{path} and {found[path.name]} have one name. Convert them into different folders.")
        found[path.name] = path
    return dict(sorted(found.items()))


def made_from(shards: dict[str, Path], **settings: Any) -> dict[str, Any]:
    """Everything that decides the bytes of the result."""
    return {
        "stage": "convert to lerobot",
        "converter": CONVERTER,
        "schema_version": SCHEMA_VERSION,
        "shards": {name: file_sha256(path) for name, path in shards.items()},
        **settings,
    }


def make_plan(shards: dict[str, Path], folder: Path) -> None:
    """Writes ``folder/kinds.json`` and ``folder/plan.jsonl``, the latter last; nothing when they are there.

    Raises UserError when a shard cannot be read or two clips have one key.
    """
    if (folder / PLAN).exists():
        return
    kinds: dict[bytes, int] = {}
    keys = array("Q")
    with publishing(folder / PLAN) as temporary:
        with temporary.open("w") as lines:
            for name, path in shards.items():
                shard = Shard(path)
                keys.extend(map(_short, shard.keys))
                planned = _planned(name, path, shard, kinds)
                row = {**vars(planned), "rejected": [vars(rejection) for rejection in planned.rejected]}
                lines.write(json.dumps(row, sort_keys=True) + "\n")
        _refuse_twins(keys, shards)
        write_json(folder / KINDS, [json.loads(document) for document in kinds])


def kinds_in(folder: Path) -> list[Kind]:
    """The kinds of a plan, by number."""
    return [Kind.of_document(document) for document in json.loads((folder / KINDS).read_text())]


def planned_in(folder: Path) -> Iterator[Planned]:
    """The shards of a plan, one by one."""
    with (folder / PLAN).open() as lines:
        for line in lines:
            row = json.loads(line)
            yield Planned(row["shard"], row["kinds"], [Rejection(**rejected) for rejected in row["rejected"]])


def _planned(name: str, path: Path, shard: Shard, kinds: dict[bytes, int]) -> Planned:
    files: dict[str, list[str]] = {}
    for file in all_files(path)[0]:
        files.setdefault(file.key, []).append(file.field)
    numbers: list[int | None] = []
    rejected: list[Rejection] = []
    for key in shard.keys:
        try:
            if odd := _odd_files(files[key]):
                raise UserError(odd)
            points, timestamps = shard.array(key, "points"), shard.array(key, "timestamps")
            for field, values, shape in (("points", points, "[T, N, 3]"), ("timestamps", timestamps, "[T]")):
                if values.ndim != shape.count(",") + 1 or values.dtype.kind != "f":
                    raise UserError(f"{field}: {values.dtype} {list(values.shape)}, expected numbers {shape}.")
            there = {series_of(file) or file.removesuffix(".npy") for file in files[key]}
            kind = kind_of(shard.meta(key), points.shape[1], timestamps, there)
            numbers.append(kinds.setdefault(canonical(kind.document()), len(kinds)))
        except UserError as error:
            numbers.append(None)
            rejected.append(Rejection(f"{name}: {key}", "unreadable", str(error)))
    return Planned(name, numbers, rejected)


def _odd_files(names: list[str]) -> str | None:
    """What would be lost: files that the format does not know, and gaps in the numbers of pictures."""
    series: dict[str, list[str]] = {}
    for name in names:
        if series_of(name) is not None:
            series.setdefault(name.partition(".")[2], []).append(name)
        elif name != "meta.json" and not (name.endswith(".npy") and name.removesuffix(".npy") in FIELD_BY_NAME):
            return f"{name}: not a file of the format, and would be lost. Take it out of the shard."
    for suffix in PICTURE_BY_SUFFIX:
        found = sorted(series.get(suffix, []))
        if len(found) > MOST_FRAMES:
            return f"{len(found)} files *.{suffix}, at most {MOST_FRAMES} can be told apart by name."
        for number, name in enumerate(found):
            if name != f"{number:04d}.{suffix}":
                return f"{name}: expected {number:04d}.{suffix}; pictures are numbered from 0000 without a gap."
    return None


def _short(key: str) -> int:
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "little")


def _refuse_twins(keys: array[int], shards: dict[str, Path]) -> None:
    """8 bytes stand for each key; only where two are equal the keys themselves are looked at."""
    ordered = np.sort(np.frombuffer(keys, np.uint64)) if keys else np.zeros(0, np.uint64)
    twins = set(ordered[1:][np.diff(ordered) == 0].tolist())
    seen: dict[str, Path] = {}
    for path in shards.values() if twins else ():
        for key in (key for key in Shard(path).keys if _short(key) in twins):
            if key in seen:
                raise UserError(f"{path}: clip {key} is also in {seen[key]}. Leave out one of the two.")
            seen[key] = path
