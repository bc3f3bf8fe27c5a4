"""The index: every file below the sources, either as episodes or as a rejection with a reason."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from data.config import IndexConfig, Source
from data.sidecar import Sidecar, read_sidecars, sidecar_paths
from data.video import Unreadable, VideoInfo, probe
from pipeline.atomic import read_lines, write_json, write_lines
from pipeline.config import Settings
from pipeline.errors import UserError
from pipeline.fingerprint import digest, file_sha256

VIDEO_SUFFIXES = frozenset(
    (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".3gp", ".ogv")
)


class Episode(Settings):
    """One stretch of one video. ``episode_id`` is made from the content of the video and of what is said about it."""

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


def build_index(config: IndexConfig, out: Path, simulated: Path) -> tuple[list[Episode], list[Rejection]]:
    """Scans all sources and writes ``episodes.jsonl`` and ``rejected.jsonl`` into ``out``.

    simulated: the folder that sources of kind ``simulation`` read.
    Content hashes are remembered by path, size and modification time, so that a second scan reads no video again.
    Raises UserError when a source folder does not exist.
    """
    remembered = _Hashes(out / "hashes.json")
    episodes: dict[str, Episode] = {}
    rejected: list[Rejection] = []
    for source in config.sources:
        folder = source.path or simulated
        if not folder.is_dir():
            raise UserError(f"index.sources: '{source.name}': {folder} is not a folder. Name an existing folder.")
        for found in _scan(folder, source, remembered, config.split_minutes):
            if isinstance(found, Rejection):
                rejected.append(found)
                continue
            content = found.episode_id.rsplit("-", 1)[1]
            if content in episodes:
                first = episodes[content].path
                rejected.append(Rejection(str(found.path), "duplicate", f"same content and sidecar as {first}"))
            else:
                episodes[content] = found
    out.mkdir(parents=True, exist_ok=True)
    remembered.save()
    rows = [json.loads(episode.model_dump_json()) for episode in episodes.values()]
    write_lines(out / "episodes.jsonl", rows)
    write_lines(out / "rejected.jsonl", [rejection.as_dict() for rejection in rejected])
    return list(episodes.values()), rejected


def read_index(folder: Path) -> list[Episode]:
    """The episodes of an index folder."""
    path = folder / "episodes.jsonl"
    if not path.exists():
        raise UserError(f"{path}: there is no index. Run `python -m data index --config CONFIG` first.")
    return [Episode.model_validate(row) for row in read_lines(path)]


def read_rejected(folder: Path) -> list[Rejection]:
    """The rejections of an index folder."""
    return [Rejection(**row) for row in read_lines(folder / "rejected.jsonl")]


def _scan(
    folder: Path, source: Source, remembered: _Hashes, split_minutes: float | None
) -> Iterator[Episode | Rejection]:
    files = sorted(path for path in folder.rglob("*") if not path.is_dir() and not _hidden(path, folder))
    videos = [path for path in files if path.suffix.lower() in VIDEO_SUFFIXES]
    companions = {path for video in videos for path in (*sidecar_paths(video), video.with_suffix(".npz"))}
    for path in files:
        if path.suffix.lower() in VIDEO_SUFFIXES:
            yield from _episodes(path, source, remembered, split_minutes)
        elif path not in companions:
            yield Rejection(
                str(path), "not_a_video", f"suffix '{path.suffix}' is not that of a video, nor a sidecar of one"
            )


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _episodes(
    path: Path, source: Source, remembered: _Hashes, split_minutes: float | None
) -> Iterator[Episode | Rejection]:
    try:
        info = probe(path)
        sha256 = remembered.sha256(path)
    except Unreadable as error:
        yield Rejection(str(path), error.reason, error.detail)
        return
    except OSError as error:
        yield Rejection(str(path), "unreadable", str(error.strerror))
        return
    try:
        stretches = read_sidecars(path)
    except UserError as error:
        yield Rejection(str(path), "bad_sidecar", str(error))
        return
    for written in stretches:
        sidecar = written.model_copy(update={"effector": written.effector or source.effector})
        wrong = _conflict(path, info, sidecar)
        if wrong:
            yield Rejection(str(path), "bad_sidecar", wrong)
        else:
            for part in _parts(sidecar, info, split_minutes):
                yield _episode(path, source, info, sha256, part, remembered)


def _parts(sidecar: Sidecar, info: VideoInfo, split_minutes: float | None) -> list[Sidecar]:
    """The stretch itself, or equal parts of a long video. The last one is open: containers may promise too little."""
    count = 1 if split_minutes is None else math.ceil(info.duration_s / (60 * split_minutes) - 0.1)
    if count < 2 or sidecar.frame_range or sidecar.arrays or info.frames < 2 * count:
        return [sidecar]
    ends = [round(info.frames * number / count) for number in range(count)] + [round(1.05 * info.frames)]
    return [sidecar.model_copy(update={"frame_range": span}) for span in pairwise(ends)]


def _conflict(path: Path, info: VideoInfo, sidecar: Sidecar) -> str | None:
    """What in a sidecar cannot be true of its video."""
    if sidecar.frame_range and info.frames and sidecar.frame_range[1] > info.frames:
        return f"frame_range: {list(sidecar.frame_range)} goes beyond the {info.frames} frames of {path.name}"
    if sidecar.arrays and not path.with_name(sidecar.arrays).is_file():
        return f"arrays: {path.with_name(sidecar.arrays)} does not exist"
    if sidecar.effector == "mask" and not sidecar.arrays:
        return "effector: 'mask' needs arrays with depth and mask"
    if sidecar.effector == "mask" and not sidecar.intrinsics:
        return "effector: 'mask' needs intrinsics"
    if sidecar.labelled and not (sidecar.arrays and sidecar.action_spec):
        return "labelled: true needs arrays with actions and an action_spec"
    return None


def _episode(
    path: Path, source: Source, info: VideoInfo, sha256: str, sidecar: Sidecar, remembered: _Hashes
) -> Episode:
    arrays_sha = remembered.sha256(path.with_name(sidecar.arrays)) if sidecar.arrays else None
    identity = {"video": sha256, "arrays": arrays_sha, "sidecar": sidecar.model_dump(), "source": source.name}
    slug = re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-")[:40] or "video"
    episode_id = f"{slug}-{digest(identity)[:12]}"
    return Episode(
        episode_id=episode_id,
        source=source.name,
        path=path,
        bytes=info.bytes,
        sha256=sha256,
        width=info.width,
        height=info.height,
        fps=info.fps,
        frames=info.frames,
        duration_s=info.duration_s,
        focal_35mm=info.focal_35mm,
        embodiment=sidecar.embodiment or source.embodiment,
        instruction=source.instruction if sidecar.instruction is None else sidecar.instruction,
        group=sidecar.group or sha256[:16],
        license=source.license if sidecar.license is None else sidecar.license,
        sidecar=sidecar,
    )


class _Hashes:
    """SHA-256 by path, size and modification time."""

    def __init__(self, path: Path):
        self._path = path
        self._known: dict[str, Any] = {}
        if path.exists():
            try:
                self._known = json.loads(path.read_text())
            except ValueError:
                self._known = {}  # only a cache: hash again

    def sha256(self, path: Path) -> str:
        state = path.stat()
        stamp = [state.st_size, state.st_mtime_ns]
        known = self._known.get(str(path))
        if known is None or known[0] != stamp:
            known = [stamp, file_sha256(path)]
            self._known[str(path)] = known
        return known[1]

    def save(self) -> None:
        write_json(self._path, self._known)
