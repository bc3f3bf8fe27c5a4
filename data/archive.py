"""Where the files of a shard lie, found several times as fast as tarfile finds them."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UserError

_BLOCK = 512  # of a tar file: a header before each file, which is padded to whole blocks


@dataclass(frozen=True)
class File:
    """One file in a shard. header, content: offsets in bytes. length: of the content."""

    name: str
    header: int
    content: int
    length: int

    @property
    def key(self) -> str:
        """The clip that it belongs to."""
        return self.name.partition(".")[0]

    @property
    def field(self) -> str:
        """Its name within the clip."""
        return self.name.partition(".")[2]


class Irregular(Exception):
    """Not a plain ustar archive from here on: long names, other formats, damage."""


def walk(handle: int, at: int) -> Iterator[File]:
    """Files of a plain ustar archive from the header at offset ``at`` on. Raises Irregular where only tarfile can help.

    handle: an open file descriptor; its position is neither used nor moved.
    """
    while True:
        header = os.pread(handle, _BLOCK, at)
        if header[:1] == b"\0":  # the end
            return
        if len(header) < _BLOCK or header[257:262] != b"ustar" or header[156:157] != b"0" or header[345] != 0:
            raise Irregular
        try:
            name, length = header[:100].rstrip(b"\0").decode("ascii"), int(header[124:135], 8)
        except ValueError as error:
            raise Irregular from error
        yield File(name, at, at + _BLOCK, length)
        at += _BLOCK + -(-length // _BLOCK) * _BLOCK


def all_files(path: Path) -> tuple[list[File], bool]:
    """All files of a shard in order, and whether ``walk`` finds them. Raises UserError naming what is wrong."""
    try:
        with path.open("rb") as handle:
            size = os.fstat(handle.fileno()).st_size
            try:
                files, plain = list(walk(handle.fileno(), 0)), True
            except Irregular:
                files, plain = _by_tarfile(path), False
    except (tarfile.TarError, OSError) as error:
        raise UserError(f"{path}: cannot be read as a shard ({error}). Run `python -m data verify`.") from error
    for file in files:
        if file.content + file.length > size:
            raise UserError(f"{path}: truncated inside clip {file.key}. Remove it and run the stage again.")
    return files, plain


def _by_tarfile(path: Path) -> list[File]:
    with tarfile.open(path, "r:") as archive:
        return [File(member.name, member.offset, member.offset_data, member.size) for member in archive]
