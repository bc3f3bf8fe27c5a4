"""One unit of extraction: its episodes in, one shard of motion clips out, with every rejection listed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.clips import Shard, write_samples, write_shard
from data.footage import bring
from data.index import Episode
from data.video import Unreadable
from extract.config import ExtractConfig
from extract.effector import Extractor
from extract.effectors import build_extractor
from extract.passage import Passage
from pipeline.atomic import publishing, write_bytes
from pipeline.units import Unit, UnitStore
from pipeline.workers import Handler

REJECTED = "rejected"  # folder of pictures of what was rejected
PICTURES = 12  # per episode


@dataclass(frozen=True)
class ExtractTask:
    """A unit with its episodes."""

    unit: Unit
    episodes: tuple[Episode, ...]

    @property
    def name(self) -> str:
        return self.unit.name


def make_handler(config: ExtractConfig, folder: Path, made_from: dict[str, Any], overlap: bool) -> Handler:
    """The function that a worker process calls for each unit; extractors are built once and reused.

    overlap: decode, look and lift at the same time: there are more cores than workers.
    """
    store = UnitStore(folder, made_from)
    extractors: dict[str, Extractor] = {}

    def handle(task: ExtractTask, skip: dict[str, str], begin: Callable[[str], None]) -> dict[str, Any]:
        rejections: list[dict[str, str]] = []
        accounts: dict[str, dict[str, int]] = {}

        def samples(spool: Path) -> Iterator[dict[str, bytes | str]]:
            for episode in task.episodes:
                name = episode.episode_id
                accounts[name] = {"clips": 0, "frames": 0, "frames_with_effector": 0}
                if name in skip:
                    rejections.append(_rejection(name, *skip[name].split(": ", 1)))
                    continue
                kind = episode.sidecar.effector or "hand"
                if kind not in extractors:
                    extractors[kind] = build_extractor(kind, config, folder)
                passage = Passage(episode, extractors[kind], config, lambda name=name: begin(name), overlap)
                try:
                    bring(episode, lambda name=name: begin(name))
                    # A video is used whole or not at all: its clips wait on disk until its last frame is read.
                    accounts[name]["clips"] = write_shard(spool, passage.clips())
                    shard = Shard(spool)
                    yield from (shard.raw(key) for key in shard.keys)
                except Unreadable as error:
                    rejections.append(_rejection(name, error.reason, error.detail))
                for number, rejected in enumerate(passage.rejections):
                    picture = ""
                    if rejected.picture is not None and number < PICTURES:
                        picture = f"{name}-{number:02d}.jpg"
                        write_bytes(folder / REJECTED / picture, rejected.picture)
                    rejections.append(_rejection(name, rejected.reason, rejected.detail, picture))
                accounts[name] |= {"frames": passage.frames, "frames_with_effector": passage.frames_with_effector}

        with publishing(store.shard(task.unit)) as temporary:
            spool = temporary.with_name(f"{temporary.name}-episode")
            try:
                count = write_samples(temporary, samples(spool))
            finally:
                spool.unlink(missing_ok=True)
        return store.complete(task.unit, count, rejections, episodes=accounts)

    return handle


def _rejection(item: str, reason: str, detail: str = "", picture: str = "") -> dict[str, str]:
    return {"item": item, "reason": reason, "detail": detail, "picture": picture}
