"""Files beside videos that look as if they were read, and are not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from data.scan.videos import VIDEO_SUFFIXES
from data.sidecar import read_sidecars
from pipeline.errors import UserError


def unread_arrays(folder: Path) -> Iterator[Path]:
    """NPZ files below ``folder`` with the name of a video beside them of which no sidecar names them."""
    for place, below, names in os.walk(folder):
        below[:] = sorted(name for name in below if not name.startswith("."))
        files = [Path(place, name) for name in sorted(names) if not name.startswith(".")]
        videos = {file.stem: file for file in files if file.suffix.lower() in VIDEO_SUFFIXES}
        for file in files:
            if file.suffix == ".npz" and file.stem in videos and not _is_named(file, videos[file.stem]):
                yield file


def _is_named(arrays: Path, video: Path) -> bool:
    try:
        return any(sidecar.arrays == arrays.name for sidecar in read_sidecars(video))
    except UserError:
        return True  # or not: the video is rejected for its sidecar, which is told already
