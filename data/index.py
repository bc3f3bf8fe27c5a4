"""The index: the episodes of all sources, and what was rejected with a reason.

Its files are ``episodes.parquet``, a row per episode, and ``rejected.jsonl``. Both appear whole or not at all, and are
written row by row.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from data.sidecar import Sidecar
from pipeline.atomic import publishing, read_lines
from pipeline.config import Settings
from pipeline.errors import UserError

EPISODES, REJECTED = "episodes.parquet", "rejected.jsonl"
BEFORE = "episodes.jsonl"  # what EPISODES was in the first releases, which is still read
ROWS = 1024  # that are written or read at a time
NESTED = ("sidecar", "recording")  # columns that hold JSON


class Place(Settings):
    """Where an episode lies in a data set of others, whose folder is the episode's path.

    address: as its format knows it (data/sources/recording.py). layout: the user's, or none.
    """

    kind: Literal["lerobot", "rlds", "hdf5", "rgbd"]
    address: dict[str, Any]
    camera: str
    layout: Path | None = None


class Episode(Settings):
    """One stretch of one video, or of one camera of a recording. ``episode_id`` is made from the content of the files
    and of what is said about it.

    path: the video, or the folder of the recording's data set. bytes, sha256: of the video; of the files that hold the
    recording, which may hold others as well, and of where in them it is.
    """

    episode_id: str
    source: str
    path: Path
    bytes: int
    sha256: str
    width: int
    height: int
    fps: float
    frames: int
    duration_s: float
    focal_35mm: float | None
    embodiment: str
    instruction: str
    group: str
    license: str
    sidecar: Sidecar
    recording: Place | None = None

    @property
    def span(self) -> tuple[int, int]:
        """First frame of the episode in its video, and the one after the last; both 0 when the file does not say."""
        start, end = self.sidecar.frame_range or (0, self.frames)
        return min(start, self.frames), min(end, self.frames)

    @property
    def seconds(self) -> float:
        """Length of the episode."""
        start, end = self.span
        return self.duration_s * (end - start) / self.frames if self.frames else self.duration_s

    @property
    def arrays_path(self) -> Path | None:
        return self.path.with_name(self.sidecar.arrays) if self.sidecar.arrays else None


@dataclass(frozen=True)
class Rejection:
    """A file, episode or stretch of one that gives no clip, and why. picture: file name of what was seen, or empty."""

    item: str
    reason: str
    detail: str
    picture: str = ""

    def as_dict(self) -> dict[str, str]:
        return {"item": self.item, "reason": self.reason, "detail": self.detail, "picture": self.picture}


@contextmanager
def writing(folder: Path) -> Iterator[Writer]:
    """A new index in ``folder``, which replaces the one that is there at the end."""
    with ExitStack() as both:
        # the episodes are published last
        paths = [both.enter_context(publishing(folder / name)) for name in (EPISODES, REJECTED)]
        with Writer(*paths) as writer:
            yield writer


class Writer:
    """Takes episodes and rejections one by one."""

    def __init__(self, episodes: Path, rejected: Path):
        import pyarrow.parquet

        self._file = pyarrow.parquet.ParquetWriter(episodes, _schema(), compression="zstd")
        self._lines = rejected.open("w")
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._file.close()
        self._lines.close()

    def episode(self, episode: Episode) -> None:
        row = episode.model_dump(mode="json")
        self._rows.append(row | {name: json.dumps(row[name], sort_keys=True) for name in NESTED})
        if len(self._rows) == ROWS:
            self._flush()

    def rejection(self, rejection: Rejection) -> None:
        self._lines.write(json.dumps(rejection.as_dict(), sort_keys=True) + "\n")

    def _flush(self) -> None:
        import pyarrow

        if self._rows:
            self._file.write_table(pyarrow.Table.from_pylist(self._rows, _schema()))
            self._rows = []


def _schema() -> Any:
    import pyarrow

    kinds = {int: pyarrow.int64(), float: pyarrow.float64(), float | None: pyarrow.float64()}
    fields = Episode.model_fields.items()
    return pyarrow.schema([(name, kinds.get(field.annotation, pyarrow.string())) for name, field in fields])


def write_index(folder: Path, episodes: Iterable[Episode]) -> None:
    """An index of these episodes, without rejections."""
    with writing(folder) as writer:
        for episode in episodes:
            writer.episode(episode)


def has_index(folder: Path) -> bool:
    return any((folder / name).exists() for name in (EPISODES, BEFORE))


def read_index(folder: Path) -> list[Episode]:
    """The episodes of an index folder. Raises UserError where there is none, or where it is damaged."""
    path = folder / EPISODES
    if not has_index(folder):
        raise UserError(f"{path}: there is no index. Run `python -m data index --config CONFIG` first.")
    try:
        return [Episode.model_validate(row) for row in (_rows(path) if path.exists() else read_lines(folder / BEFORE))]
    except (OSError, ValueError, ValidationError) as error:
        raise UserError(f"{path}: not an index ({error}). Run `python -m data index --config CONFIG` again.") from None


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(ROWS, use_threads=False):
            for row in batch.to_pylist():
                yield row | {name: json.loads(row[name]) for name in NESTED}


def read_rejected(folder: Path) -> list[Rejection]:
    """The rejections of an index folder."""
    return [Rejection(**row) for row in read_lines(folder / REJECTED)]
