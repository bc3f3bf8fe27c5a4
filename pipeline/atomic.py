"""Files and folders that appear whole or not at all: written under a temporary name, synced, renamed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

TEMPORARY = ".tmp-"
OLD = "-old"


def _temporary(path: Path) -> Path:
    return path.with_name(f"{path.name}{TEMPORARY}{os.getpid()}")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def publishing(path: Path) -> Iterator[Path]:
    """Yields a temporary path to write; renames it to ``path`` on success, removes it on failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def publishing_dir(path: Path) -> Iterator[Path]:
    """Like :func:`publishing` for a folder. An older folder of that name is replaced, where a link to it points; what a
    process that was killed left of earlier tries is removed."""
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent, of=path.name)
    temporary = _temporary(path)
    temporary.mkdir()
    try:
        yield temporary
        for entry in sorted(temporary.rglob("*")):
            _sync(entry)
        if path.exists():
            old = temporary.with_name(temporary.name + OLD)
            os.replace(path, old)
            os.replace(temporary, path)
            shutil.rmtree(old)
        else:
            os.replace(temporary, path)
        _sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _is_leftover(path: Path) -> bool:
    """Whether the name is that of something temporary, and no other process is at work that could have made it: one of
    its number, in a container for instance, may have begun later."""
    _, mark, owner = path.name.removesuffix(OLD).rpartition(TEMPORARY)
    if not mark or not owner.isdecimal():
        return False
    try:
        return int(owner) == os.getpid() or psutil.Process(int(owner)).create_time() > path.lstat().st_mtime
    except (psutil.Error, OSError, OverflowError):  # no such process, or it has just finished its work
        return True


def write_bytes(path: Path, content: bytes) -> None:
    """Writes ``content`` to ``path``, whole or not at all."""
    with publishing(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Writes ``value`` as JSON (sorted keys, NaN refused), whole or not at all."""
    write_bytes(path, (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes ``rows`` as JSON lines, whole or not at all."""
    write_bytes(path, "".join(json.dumps(row, sort_keys=True, allow_nan=False) + "\n" for row in rows).encode())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Reads JSON lines; a missing file has none."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def remove_leftovers(folder: Path, of: str | None = None) -> None:
    """Removes what interrupted writers left behind in ``folder`` (not in its subfolders), but not what others write;
    puts a folder back that was about to be replaced. of: only what was to get this name; None = any."""
    for entry in folder.glob(f"*{TEMPORARY}*"):
        whole = entry.with_name(entry.name.rpartition(TEMPORARY)[0])
        if of not in (None, whole.name) or not _is_leftover(entry):
            continue
        if not entry.is_dir():
            entry.unlink(missing_ok=True)
        elif entry.name.endswith(OLD) and not whole.exists():
            os.replace(entry, whole)
        else:
            shutil.rmtree(entry, ignore_errors=True)
