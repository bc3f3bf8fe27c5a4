"""SHA-256 of files, remembered by path, size and modification time, so that a second scan reads no file again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.fingerprint import file_sha256


class Hashes:
    """Kept in a file of JSON lines that grows while files are read: what was read before a crash is not read again."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._known: dict[str, tuple[list[int], str]] = {}
        if path.exists():
            for line in path.read_bytes().splitlines():
                self._remember(line)
        self._file = path.open("ab")
        if self._file.tell():
            self._file.write(b"\n")  # after what a crash left of a line

    def __enter__(self) -> Hashes:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _remember(self, line: bytes) -> None:
        """Only a cache: a line that says nothing is passed over."""
        try:
            path, stamp, sha256 = json.loads(line)
        except (ValueError, TypeError):
            return
        self._known[path] = (stamp, sha256)

    def sha256(self, path: Path) -> str:
        """Of the content. Raises OSError."""
        state = path.stat()
        stamp = [state.st_size, state.st_mtime_ns]
        known = self._known.get(str(path))
        if known is None or known[0] != stamp:
            row: list[Any] = [str(path), stamp, file_sha256(path)]
            self._file.write(json.dumps(row).encode() + b"\n")
            self._file.flush()
            known = self._known[str(path)] = (stamp, row[2])
        return known[1]
