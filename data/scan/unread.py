"""Files beside videos that look as if they were read, and are not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data.scan.videos import VIDEO_SUFFIXES
from data.sidecar import read_sidecars
from pipeline.errors import UserError


def unread_arrays(folder: Path) -> Iterator[Path]:
    """NPZ files below ``folder`` with the name of a video beside them of which no sidecar names them."""
    for path in sorted(folder.rglob("*.npz")):
        videos = [video for suffix in sorted(VIDEO_SUFFIXES) if (video := path.with_suffix(suffix)).is_file()]
        if videos and not any(path.name in _named(video) for video in videos):
            yield path


def _named(video: Path) -> set[str | None]:
    try:
        return {sidecar.arrays for sidecar in read_sidecars(video)}
    except UserError:
        return {video.with_suffix(".npz").name}  # the video is rejected for its sidecar, which is told already
