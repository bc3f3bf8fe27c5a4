"""SHA-256 of files and headers of videos, remembered by path, size and modification time: a second scan reads no file
again. Of remote files, what is remembered is known by the checksum that their service tells (pipeline/services.py)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from data.video import VideoInfo, probe
from pipeline.fingerprint import file_sha256
from pipeline.remote import RemotePath

Value = TypeVar("Value", str, VideoInfo)
Known = dict[str, tuple[list[int], Value]]


class Hashes:
    """Kept in a file of JSON lines that grows while files are read: what was read before a crash is not read again."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._sha256: Known[str] = {}
        self._videos: Known[VideoInfo] = {}
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
            path, stamp, value = json.loads(line)
            if isinstance(value, dict):
                self._videos[path] = (stamp, VideoInfo(**value))
            else:
                self._sha256[path] = (stamp, value)
        except (ValueError, TypeError):
            return

    def sha256(self, path: Path) -> str:
        """Of the content. Raises OSError."""
        told = path.sha256 if isinstance(path, RemotePath) else None
        return told or self._remembered(self._sha256, path, file_sha256)

    def video(self, path: Path) -> VideoInfo:
        """Headers of a video. Raises Unreadable, which is not remembered, and OSError."""
        return self._remembered(self._videos, path, probe)

    def _remembered(self, known: Known[Value], path: Path, read: Callable[[Path], Value]) -> Value:
        state = path.stat()
        stamp = [state.st_size, state.st_mtime_ns]
        found = known.get(str(path))
        if found is None or found[0] != stamp:
            found = known[str(path)] = (stamp, read(path))
            value = found[1] if isinstance(found[1], str) else asdict(found[1])
            self._file.write(json.dumps([str(path), stamp, value]).encode() + b"\n")
            self._file.flush()
        return found[1]
