"""Clips of one kind into the files of one data set: a data file, its list of episodes, then a mark that both are whole.

A file is the unit of work. Its mark says where the next one goes on, so an interrupted conversion repeats one file at
most, and the bytes are the same however often it was interrupted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data.clips import Clip, Shard
from data.convert.episode import BadClip, Place, Source, checked, listed, listed_schema, rows, size_of
from data.convert.features import Kind
from data.convert.plan import Planned, Rejection
from data.convert.statistics import Pixels, pixels_of
from pipeline.atomic import publishing, remove_leftovers, write_json
from pipeline.errors import UserError

PLACE = "chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_PARTS = ("data", "meta/episodes")
LISTED_AT_ONCE = 64  # rows of meta/episodes in one row group
_PARQUET: dict[str, Any] = {  # a dictionary serves numbers no better, and statistics would repeat whole pictures
    "compression": "snappy",
    "write_statistics": ["episode_index", "index"],  # what lerobot filters by
    "use_dictionary": False,
    "write_page_checksum": True,
    "write_batch_size": 16,
}


@dataclass(frozen=True)
class Limits:
    """file_bytes: of a data file before compression, unless one clip alone is larger. files: in a folder."""

    file_bytes: int
    files: int


@dataclass
class Written:
    """What there is of a data set, by its marks. next_shard, next_clip: where to go on."""

    files: int = 0
    clips: int = 0
    frames: int = 0
    bytes: int = 0
    next_shard: str = ""
    next_clip: int = 0
    tasks: dict[str, int] = field(default_factory=dict)
    splits: list[tuple[str, int]] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)
    pixels: dict[str, Pixels] = field(default_factory=dict)

    def take(self, mark: dict[str, Any], kind: Kind) -> None:
        """Adds a file."""
        self.files += 1
        self.next_shard, self.next_clip = mark["next"]
        for name in ("clips", "frames", "bytes"):
            setattr(self, name, getattr(self, name) + mark[name])
        for words in mark["tasks"]:
            self.tasks[words] = len(self.tasks)
        for name, clips in mark["splits"]:
            extend_runs(self.splits, name, clips)
        self.rejected += [Rejection(**rejected) for rejected in mark["rejected"]]
        for spec in kind.pictures:
            self.pixels.setdefault(spec.name, pixels_of(spec.name)).restore(mark["pixels"][spec.name])


@dataclass(frozen=True)
class _Fit:
    """A clip that goes along. rejected: those that were met before it, since the last one."""

    clip: Clip
    source: Source
    pixels: dict[str, Pixels]
    size: int
    rejected: list[Rejection]


class Writer:
    """The files of one data set.

    root: the data set. marks: folder for the marks, outside of it. kind: of its clips, number in the plan.
    """

    def __init__(self, root: Path, marks: Path, kind: Kind, number: int, limits: Limits):
        self.root, self.marks, self.kind, self.number, self.limits = root, marks, kind, number, limits
        self.written = self._resumed()

    def write(
        self, plan: Iterator[Planned], shards: dict[str, Path], advance: Callable[[int], None]
    ) -> tuple[Written, list[Rejection]]:
        """Writes what is missing. Returns what there is, and the clips rejected after the last that went along.

        advance: is told the number of clips as they are done. Raises UserError when a shard cannot be read.
        """
        advance(self.written.clips)
        rejected: list[Rejection] = []
        fits = self._fits(plan, shards, rejected)
        fit = next(fits, None)
        while fit is not None:
            fit = self._file(fit, fits, advance)
        return self.written, rejected

    def _fits(self, plan: Iterator[Planned], shards: dict[str, Path], rejected: list[Rejection]) -> Iterator[_Fit]:
        """Clips of the kind from where the marks end. Rejections are gathered, and go with the next clip."""
        done = self.written
        first_shard, first_clip = done.next_shard, done.next_clip
        for planned in plan:
            if planned.shard < first_shard or self.number not in planned.kinds:
                continue
            shard = Shard(shards[planned.shard])
            begin = first_clip if planned.shard == first_shard else 0
            for position, key in enumerate(shard.keys):
                if position < begin or planned.kinds[position] != self.number:
                    continue
                item = f"{planned.shard}: {key}"
                try:
                    clip = shard.clip(key)
                    size = size_of(clip, self.kind)
                    pixels = checked(clip, self.kind)
                except BadClip as error:
                    rejected.append(Rejection(item, error.reason, str(error)))
                    continue
                except UserError as error:
                    rejected.append(Rejection(item, "unreadable", str(error)))
                    continue
                yield _Fit(clip, Source(planned.shard, position), pixels, size, rejected.copy())
                rejected.clear()

    def _file(self, fit: _Fit, fits: Iterator[_Fit], advance: Callable[[int], None]) -> _Fit | None:
        """Writes one data file, its list and its mark; returns the first clip of the next one."""
        done, number = self.written, self.written.files
        chunk, file = divmod(number, self.limits.files)
        data, episodes = (self.root / part / PLACE.format(chunk_index=chunk, file_index=file) for part in _PARTS)
        mark: dict[str, Any] = {"clips": 0, "frames": 0, "bytes": 0, "tasks": [], "rejected": []}
        tasks, pixels = dict(done.tasks), {spec.name: pixels_of(spec.name) for spec in self.kind.pictures}
        splits: list[tuple[str, int]] = []
        following: _Fit | None = fit
        with publishing(episodes) as listing, publishing(data) as temporary:
            lister = _Lister(listing, listed_schema(self.kind))
            with lister, pq.ParquetWriter(temporary, self.kind.schema(), **_PARQUET) as writer:
                while following is not None:
                    fit = following
                    if mark["clips"] and mark["bytes"] + fit.size > self.limits.file_bytes:
                        break
                    words = fit.clip.meta.instruction
                    if words not in tasks:
                        mark["tasks"].append(words)
                    task = tasks.setdefault(words, len(tasks))
                    place = Place(done.clips + mark["clips"], done.frames + mark["frames"], chunk, file, task)
                    writer.write_table(rows(fit.clip, self.kind, place))
                    lister.add(listed(fit.clip, self.kind, place, fit.source, fit.pixels))
                    for name, counted in fit.pixels.items():
                        pixels[name].merge(counted)
                    extend_runs(splits, split_of(fit.source.shard), 1)
                    mark["clips"] += 1
                    mark["frames"] += fit.clip.frames
                    mark["bytes"] += fit.size
                    mark["rejected"] += [asdict(rejection) for rejection in fit.rejected]
                    mark["next"] = [fit.source.shard, fit.source.position + 1]
                    advance(1)
                    following = next(fits, None)
        mark |= {"splits": splits, "pixels": {name: counted.stored() for name, counted in pixels.items()}}
        mark["sizes"] = [data.stat().st_size, episodes.stat().st_size]
        write_json(self.marks / f"{number:06d}.json", mark)
        done.take(mark, self.kind)
        return following

    def _resumed(self) -> Written:
        """What the marks promise and the files hold. From the first that does not fit on, everything is made again."""
        done = Written()
        for part in _PARTS:
            for folder in sorted((self.root / part).glob("chunk-*")):
                remove_leftovers(folder)
        while (path := self.marks / f"{done.files:06d}.json").exists():
            mark = json.loads(path.read_text())
            chunk, file = divmod(done.files, self.limits.files)
            files = [self.root / part / PLACE.format(chunk_index=chunk, file_index=file) for part in _PARTS]
            if mark["sizes"] != [file.stat().st_size if file.exists() else None for file in files]:
                break
            done.take(mark, self.kind)
        return done


class _Lister:
    """Writes rows of meta/episodes, some at a time."""

    def __init__(self, path: Path, schema: pa.Schema):
        self._writer = pq.ParquetWriter(path, schema, compression="snappy", write_page_checksum=True)
        self._schema = schema
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> _Lister:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._writer.close()

    def add(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        if len(self._rows) == LISTED_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows = []


def split_of(shard: str) -> str:
    """``train`` of train-00012.tar."""
    stem = shard.removesuffix(".tar")
    name, _, number = stem.rpartition("-")
    return name if name and number.isdecimal() else stem


def extend_runs(runs: list[tuple[str, int]], name: str, clips: int) -> None:
    """Adds clips of one split to the last run where it is of that split, else begins a new one."""
    if runs and runs[-1][0] == name:
        clips += runs.pop()[1]
    runs.append((name, clips))
