"""LeRobot data sets that this package wrote back to shards of clips, under the names and in the order of old."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from data.clips import sample_of, verify, write_samples
from data.convert.features import CONVERTER
from data.convert.plan import Rejection
from data.convert.stored import StoredSet, Unread, shards_of
from data.convert.to_lerobot import PROGRESS, Summary, begin, end
from data.schema import SCHEMA_VERSION
from pipeline.atomic import publishing, write_json
from pipeline.errors import UserError
from pipeline.fingerprint import canonical, digest, file_sha256, is_done, read_done


def from_lerobot(sets: list[StoredSet], out: Path, advance: Callable[[int], None] = lambda clips: None) -> Summary:
    """Writes ``out/*.tar``, each checked by ``data.clips.verify``, ``out/rejected.jsonl``, and ``out/done.json`` last.

    sets: of one conversion, as ``stored.open_sets`` finds them. Goes on where an earlier call was interrupted. Raises
    UserError where a shard would violate the format; Refused where ``out`` was made from something else.
    """
    refuse_inside(sets, out)
    document = _made_from(sets)
    if is_done(out, document):
        return _told(out, done_before=True)
    begin(out, document)
    for name, clips in shards_of(sets):
        mark, path = out / PROGRESS / f"{name}.json", out / name
        if mark.exists() and json.loads(mark.read_text())["size"] == _size(path):
            advance(len(clips))
            continue
        row = _shard(path, clips, advance)
        write_json(mark, {**row, "size": _size(path)})
    marks = [json.loads(path.read_text()) for path in sorted((out / PROGRESS).glob("*.json"))]
    totals = {name: sum(mark[name] for mark in marks) for name in ("clips", "frames", "bytes")}
    rejected = [Rejection(**row) for mark in marks for row in mark["rejected"]]
    end(out, document, rejected, shards=sum(bool(mark["clips"]) for mark in marks), **totals)
    return _told(out)


def refuse_inside(sets: list[StoredSet], out: Path) -> None:
    """Raises UserError where ``out`` lies in a data set that is read."""
    for stored in sets:
        if out.resolve().is_relative_to(stored.root.resolve()):
            raise UserError(f"--out {out}: lies in {stored.root}, which is read. Name another folder.")


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.exists() else None


class _Nothing(Exception):
    """No clip of a shard is left: it is not published."""


def _shard(path: Path, clips: list[tuple[StoredSet, int]], advance: Callable[[int], None]) -> dict[str, Any]:
    """Writes one shard, or none where all of its clips are rejected; returns its mark."""
    mark: dict[str, Any] = {"clips": 0, "frames": 0, "bytes": 0, "rejected": []}

    def samples() -> Iterator[dict[str, bytes | str]]:
        for stored, number in clips:
            advance(1)
            try:
                clip = stored.clip(number)
                sample = sample_of(clip)
            except (Unread, ValueError) as error:
                reason = error.reason if isinstance(error, Unread) else "violates_format"
                item = f"{stored.root.name}: episode {stored.episode(number)}"
                mark["rejected"].append(vars(Rejection(item, reason, str(error))))
                continue
            mark["clips"] += 1
            mark["frames"] += clip.frames
            mark["bytes"] += sum(len(content) for content in sample.values())
            yield sample

    with contextlib.suppress(_Nothing), publishing(path) as temporary:
        if not write_samples(temporary, samples()):
            raise _Nothing
        if found := verify([temporary]):
            lines = "\n".join(found).replace(str(temporary), path.name)
            raise UserError(f"{path.name} would violate the format; it is not written:\n{lines}")
    return mark


def _made_from(sets: list[StoredSet]) -> dict[str, Any]:
    """Every file of the data sets, by one digest for each set."""
    digests = {}
    for stored in sets:
        files = sorted(path for part in ("meta", "data") for path in (stored.root / part).rglob("*") if path.is_file())
        digests[stored.root.name] = digest([[str(path.relative_to(stored.root)), file_sha256(path)] for path in files])
    document = {
        "stage": "convert from lerobot",
        "converter": CONVERTER,
        "schema_version": SCHEMA_VERSION,
        "data_sets": digests,
    }
    return json.loads(canonical(document))


def _told(out: Path, done_before: bool = False) -> Summary:
    done = read_done(out) or {}
    made = [f"{out}: {done['clips']} clips, {done['frames']} frames in {done['shards']} shards, verified"]
    return Summary(done["clips"], done["frames"], done["bytes"], done["rejected"], made, done_before)
