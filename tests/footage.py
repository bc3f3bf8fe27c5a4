"""Real footage of tests and benchmarks: a folder beside the repository, never part of it."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.errors import UserError

FOOTAGE = "KINECLOUD_FOOTAGE"


def footage_folder(*needed: str) -> Path | None:
    """The folder that KINECLOUD_FOOTAGE names, or None where it is not set.

    Args:
        needed: patterns of what is taken from it, such as ``human/**/*.mp4``.

    Raises:
        UserError: the folder is not there, or has nothing of a pattern.
    """
    named = os.environ.get(FOOTAGE)
    if not named:
        return None
    folder = Path(named)
    if not folder.is_dir():
        raise UserError(f"{FOOTAGE}={named}: no such folder; name one of real footage, or unset it")
    if missing := [pattern for pattern in needed if not any(folder.glob(pattern))]:
        raise UserError(f"{FOOTAGE}={named}: holds no {', '.join(missing)}; name a folder that does, or unset it")
    return folder
