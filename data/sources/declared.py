"""What a data set says of itself: JSON, paths that must stay inside, its licence; and errors that say where."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from data.video import Unreadable

MAX_BYTES = 256 << 20  # of a text; statistics of ten thousand episodes take 50 MB


def read_json(path: Path) -> dict[str, Any]:
    """One JSON object. Raises Unreadable (missing, too_large, bad_json)."""
    content = _parsed(read_text(path), str(path))
    if not isinstance(content, dict):
        raise Unreadable("bad_json", f"{path}: expected an object, found {type(content).__name__}")
    return content


def read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | Unreadable]]:
    """Yields (line number, object), or what is wrong with the line. Raises Unreadable (missing, too_large)."""
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = _parsed(line, f"{path}: line {number}")
            if not isinstance(row, dict):
                raise Unreadable("bad_json", f"{path}: line {number}: expected an object, found {type(row).__name__}")
            yield number, row
        except Unreadable as error:
            yield number, error


def read_text(path: Path, limit: int = MAX_BYTES, encoding: str = "utf-8", undecodable: str = "bad_json") -> str:
    """All of a file. undecodable: the reason where it is not UTF-8. Raises Unreadable (missing, too_large, that)."""
    try:
        if (size := path.stat().st_size) > limit:
            raise Unreadable("too_large", f"{path}: {size} bytes, at most {limit} are read")
        return path.read_text(encoding=encoding)
    except FileNotFoundError:
        raise Unreadable("missing", f"{path} does not exist. Copy it from where the data set came from.") from None
    except OSError as error:
        raise Unreadable("unreadable", f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise Unreadable(undecodable, f"{path}: not UTF-8 ({error.reason} at byte {error.start})") from None


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unreadable("bad_json", f"{where}: not valid JSON ({error})") from None


@contextmanager
def naming(where: Path | str) -> Iterator[None]:
    """Puts the place before the detail of an Unreadable, for readers that do not know it."""
    try:
        yield
    except Unreadable as error:
        raise Unreadable(error.reason, f"{where}: {error.detail}") from None


def inside(root: Path, relative: str, told_by: str) -> Path:
    """``root / relative``. Raises Unreadable (unsafe_path) where that would lead out of ``root``.

    told_by: what the path comes from, for the error.
    """
    parts = PurePosixPath(relative)
    if parts.is_absolute() or ".." in parts.parts or "\\" in relative or "\0" in relative or not parts.parts:
        raise Unreadable("unsafe_path", f"{told_by}: {relative!r} is not a path inside the data set")
    return root / parts


def declared_license(root: Path) -> tuple[str, str]:
    """The licence that a data set declares, and where: ``license`` of its card, else the first line of its LICENSE."""
    card, text = root / "README.md", root / "LICENSE"
    try:
        if card.is_file():
            head = card.read_text(encoding="utf-8", errors="replace")[:100_000].split("---")
            front = yaml.safe_load(head[1]) if len(head) > 2 and not head[0].strip() else None
            if isinstance(front, dict) and isinstance(front.get("license"), str):
                return front["license"], "README.md: license"
        if text.is_file():
            lines = text.read_text(encoding="utf-8", errors="replace")[:100_000].split("\n")
            return next((line.strip() for line in lines if line.strip()), ""), "LICENSE: first line"
    except (OSError, yaml.YAMLError):
        pass  # a licence that cannot be read is one that is not declared
    return "", "not declared"
