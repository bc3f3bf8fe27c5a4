"""An index that a test or benchmark builds and reads at once."""

from __future__ import annotations

from pathlib import Path

from data.config import IndexConfig
from data.index import Episode, Rejection, read_index, read_rejected
from data.scan.build import build_index


def indexed(config: IndexConfig, out: Path, simulated: Path = Path()) -> tuple[list[Episode], list[Rejection]]:
    """The episodes and the rejections of ``config``'s sources; ``out`` holds the index."""
    found = build_index(config, out, simulated)
    episodes, rejected = read_index(out), read_rejected(out)
    assert (found.episodes, found.rejected.total()) == (len(episodes), len(rejected))
    return episodes, rejected
