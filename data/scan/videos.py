"""Folders of videos with optional sidecars and tables of words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from data.config import Source
from data.index import Episode, Rejection
from data.scan.episodes import episode_id, parts
from data.scan.hashes import Hashes
from data.scan.narrated import stretches
from data.scan.words import Spoken, Words
from data.sidecar import Sidecar, read_sidecars, sidecar_paths
from data.video import Unreadable, VideoInfo
from pipeline.errors import UserError

VIDEO_SUFFIXES = frozenset(
    (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".3gp", ".ogv")
)
ARRAYS = ".npz"


@dataclass(frozen=True)
class Unread:
    """An NPZ file with the name of a video beside it, as if it was read: no sidecar names it."""

    path: Path


def scan(
    folder: Path, source: Source, hashes: Hashes, split_minutes: float | None
) -> Iterator[Episode | Rejection | Unread]:
    """Every file below ``folder``, hidden ones left out, as episodes, as a rejection or as unread."""
    files = sorted(path for path in folder.rglob("*") if not path.is_dir() and not _hidden(path, folder))
    videos = [path for path in files if path.suffix.lower() in VIDEO_SUFFIXES]
    companions = {path for video in videos for path in sidecar_paths(video)} | _named(videos, files)
    beside = {video.with_suffix(ARRAYS) for video in videos}
    others = [path for path in files if path.suffix.lower() not in VIDEO_SUFFIXES]
    with closing(Words(folder, source, videos, others)) as words:
        for path in files:
            if path.suffix.lower() in VIDEO_SUFFIXES:
                yield from _episodes(path, source, hashes, split_minutes, words)
            elif path in beside and path not in companions:
                yield Unread(path)
            elif path not in companions and path not in words.files:
                yield Rejection(
                    str(path), "not_a_video", f"suffix '{path.suffix}' is not that of a video, nor a sidecar of one"
                )
        yield from words.rejections()


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _named(videos: list[Path], files: list[Path]) -> set[Path]:
    """The NPZ files that sidecars name. That beside a sidecar which cannot be read may be: its video is rejected."""
    with_arrays = {path.parent for path in files if path.suffix == ARRAYS}
    found: set[Path] = set()
    for video in (video for video in videos if video.parent in with_arrays):
        try:
            found |= {video.with_name(sidecar.arrays) for sidecar in read_sidecars(video) if sidecar.arrays}
        except UserError:
            found.add(video.with_suffix(ARRAYS))
    return found


def _episodes(
    path: Path, source: Source, hashes: Hashes, split_minutes: float | None, words: Words
) -> Iterator[Episode | Rejection]:
    if left_out := words.left_out(path):
        yield Rejection(str(path), "left_out", left_out)
        return
    about = words.about(path)
    try:
        info = hashes.video(path)
        sha256 = hashes.sha256(path)
    except Unreadable as error:
        yield Rejection(str(path), error.reason, error.detail)
        return
    except OSError as error:
        yield Rejection(str(path), "unreadable", str(error.strerror))
        return
    beside = any(sidecar.exists() for sidecar in sidecar_paths(path))
    try:
        told = read_sidecars(path) if beside else stretches(path, info, about)
    except UserError as error:
        yield Rejection(str(path), "bad_sidecar", str(error))
        return
    except Unreadable as error:
        yield Rejection(str(path), error.reason, error.detail)
        return
    if beside:
        yield from _overruled(path, about)
    for written in told:
        if isinstance(written, Rejection):
            yield written
            continue
        sidecar = written.model_copy(update={"effector": written.effector or source.effector})
        wrong = _conflict(path, info, sidecar)
        if wrong:
            yield Rejection(str(path), "bad_sidecar", wrong)
        else:
            try:
                for part in parts(sidecar, info.frames, info.duration_s, split_minutes):
                    yield _episode(path, source, info, sha256, part, hashes)
            except OSError as error:
                yield Rejection(str(path), "bad_arrays", f"{sidecar.arrays}: {error.strerror}")


def _overruled(path: Path, about: list[Spoken]) -> Iterator[Rejection]:
    """What tables say of a video that has a sidecar, which knows better."""
    for one in about:
        if one.rows:
            detail = f"{len(one.rows)} rows are not used: {path.name} has a sidecar beside it"
            yield Rejection(one.table.place(one.rows[0]), "overruled", detail)


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
    if sidecar.effector == "hand_joints" and not (sidecar.arrays and sidecar.intrinsics):
        return "effector: 'hand_joints' needs arrays with joints_left or joints_right, and intrinsics"
    if sidecar.labelled and not (sidecar.arrays and sidecar.action_spec):
        return "labelled: true needs arrays with actions and an action_spec"
    return None


def _episode(path: Path, source: Source, info: VideoInfo, sha256: str, sidecar: Sidecar, hashes: Hashes) -> Episode:
    arrays_sha = hashes.sha256(path.with_name(sidecar.arrays)) if sidecar.arrays else None
    identity = {"video": sha256, "arrays": arrays_sha, "sidecar": sidecar.model_dump(), "source": source.name}
    return Episode(
        episode_id=episode_id(path.stem, identity),
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
