"""Building the index: every file, and every recording of a data set, either as episodes or as a rejection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data.config import IndexConfig, Source
from data.index import Episode, Rejection, writing
from data.scan import data_sets, videos
from data.scan.hashes import Hashes
from pipeline.errors import UserError
from pipeline.remote import forget


@dataclass
class Found:
    """What an index holds. wordless: episodes with no words but the source's. rejected: counts by reason. unread: NPZ
    files beside videos that no sidecar names."""

    episodes: int = 0
    wordless: int = 0
    seconds: float = 0.0
    rejected: Counter[str] = field(default_factory=Counter)
    unread: list[Path] = field(default_factory=list)


def build_index(config: IndexConfig, out: Path, simulated: Path) -> Found:
    """Scans all sources and writes the index into ``out``.

    simulated: the folder that sources of kind ``simulation`` read.
    Content hashes are remembered: a second scan, or one after a crash, reads no video again.
    Raises UserError when a source folder does not exist or holds no data set where it should.
    """
    found = Found()
    first: dict[str, str] = {}  # where each content was seen first
    with Hashes(out / "hashes.jsonl") as hashes, writing(out) as index:
        for source in config.sources:
            for one in _scan(source, source.path or simulated, hashes, config.split_minutes):
                if isinstance(one, videos.Unread):
                    found.unread.append(one.path)
                    continue
                if isinstance(one, Episode):
                    content = one.episode_id.rsplit("-", 1)[1]
                    if content not in first:
                        first[content] = str(one.path)
                        found.episodes += 1
                        found.wordless += one.sidecar.instruction is None
                        found.seconds += one.seconds
                        index.episode(one)
                        continue
                    one = Rejection(str(one.path), "duplicate", f"same content and sidecar as {first[content]}")
                found.rejected[one.reason] += 1
                index.rejection(one)
    return found


def _scan(
    source: Source, folder: Path, hashes: Hashes, split_minutes: float | None
) -> Iterator[Episode | Rejection | videos.Unread]:
    forget(folder)  # what an index before this one saw of it, in this process
    try:
        there = folder.is_dir()
    except OSError as error:
        raise UserError(f"index.sources: '{source.name}': {folder}: {error.strerror}.") from None
    if not there:
        raise UserError(f"index.sources: '{source.name}': {folder} is not a folder. Name an existing folder.")
    scan = data_sets.scan if source.kind == "data_set" else videos.scan
    return scan(folder, source, hashes, split_minutes)
