"""Shards of clips to LeRobot data sets: plan, write, finish, one data set for each kind of clip."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data.convert.finish import finish
from data.convert.plan import Rejection, kinds_in, made_from, make_plan, named, planned_in
from data.convert.write import Limits, Writer
from pipeline.atomic import remove_leftovers, write_json, write_lines
from pipeline.fingerprint import canonical, is_done, mark_done, read_done, require_same

MADE_FROM, REJECTED, PROGRESS = "convert.json", "rejected.jsonl", "progress"


@dataclass(frozen=True)
class Summary:
    """What a conversion came to, also when it had been done before. made: rows for people. bytes: of the clips."""

    clips: int
    frames: int
    bytes: int
    rejected: dict[str, int]
    made: list[str]
    done_before: bool = False


def to_lerobot(
    paths: list[Path], out: Path, limits: Limits, advance: Callable[[int], None] = lambda clips: None
) -> Summary:
    """Writes ``out/NAME/`` for every kind of clip in the shards, ``out/rejected.jsonl``, and ``out/done.json`` last.

    Goes on where an earlier call was interrupted. advance: is told the number of clips as they are done.
    Raises UserError for shards that cannot be read, clips with the same key, and names that cannot be kept; Refused
    where ``out`` was made from something else.
    """
    shards = named(paths)
    document = made_from(shards, file_bytes=limits.file_bytes, files=limits.files)
    if is_done(out, document):
        return _told(out, done_before=True)
    begin(out, document)
    make_plan(shards, out / PROGRESS)
    kinds = kinds_in(out / PROGRESS)
    rejected = [rejection for planned in planned_in(out / PROGRESS) for rejection in planned.rejected]
    sets = []
    for number, kind in enumerate(kinds):
        root = out / kind.name
        writer = Writer(root, out / PROGRESS / kind.name, kind, number, limits)
        written, late = writer.write(planned_in(out / PROGRESS), shards, advance)
        rejected += [*written.rejected, *late]
        if written.clips:
            finish(root, kind, written, limits)
            counts = {name: getattr(written, name) for name in ("clips", "frames", "bytes", "files")}
            sets.append({"name": kind.name, **kind.document(), **counts})
    end(out, document, rejected, data_sets=sets)
    return _told(out)


def begin(out: Path, document: dict[str, Any]) -> None:
    """Marks a folder with what goes into it. Raises Refused where that was something else."""
    (out / PROGRESS).mkdir(parents=True, exist_ok=True)
    for folder in (out, out / PROGRESS):
        remove_leftovers(folder)
    mark = out / MADE_FROM
    if mark.exists():
        require_same(json.loads(mark.read_text()), json.loads(canonical(document)), out)
    write_json(mark, document)


def end(out: Path, document: dict[str, Any], rejected: list[Rejection], **outputs: Any) -> None:
    """Lists the rejections, marks the folder as done, and removes what was only needed to go on."""
    write_lines(out / REJECTED, [asdict(rejection) for rejection in rejected])
    counts = Counter(rejection.reason for rejection in rejected)
    mark_done(out, document, rejected=dict(sorted(counts.items())), **outputs)
    shutil.rmtree(out / PROGRESS, ignore_errors=True)


def _told(out: Path, done_before: bool = False) -> Summary:
    done = read_done(out) or {}
    sets = done["data_sets"]
    clips, frames, size = (sum(one[name] for one in sets) for name in ("clips", "frames", "bytes"))
    made = [
        f"{out / one['name']}: {one['clips']} clips, {one['frames']} frames in {one['files']} files" for one in sets
    ]
    return Summary(clips, frames, size, done["rejected"], made, done_before)
