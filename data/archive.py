"""Where the files of a shard lie, found several times as fast as tarfile finds them."""

from __future__ import annotations

import itertools
import os
import struct
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import UserError

_BLOCK = 512  # of a tar file: a header before each file, which is padded to whole blocks
_END = bytes(_BLOCK)
_ADLER = 65521  # zlib.adler32 sums modulo this prime
_HEADER = struct.Struct("100s24x11s13x6s2xc100x5s83xc")  # name, length, checksum, kind, magic, first of a prefix
_TAIL = 2**20  # bytes that are read at once behind the last file; writers fill up to 10 kB


class File(NamedTuple):
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
    """Files of a plain ustar archive from the header at offset ``at`` up to its end, or to the end of what is there.

    handle: an open file descriptor; its position is neither used nor moved. Raises Irregular where only tarfile can
    help.
    """
    while len(header := os.pread(handle, _BLOCK, at)) == _BLOCK and header != _END:
        name, size, checksum, kind, magic, prefix = _HEADER.unpack_from(header)
        if magic != b"ustar" or kind != b"0" or prefix != b"\0":
            raise Irregular
        try:
            length, sound = int(size, 8), int(checksum, 8) % _ADLER == _checksum(header)
            file = File(name.rstrip(b"\0").decode("ascii"), at, at + _BLOCK, length)
        except ValueError as error:
            raise Irregular from error
        if length < 0 or not sound:
            raise Irregular
        yield file
        at += _BLOCK + -(-length // _BLOCK) * _BLOCK


def all_files(path: Path) -> tuple[list[File], bool]:
    """All files of a shard in order, and whether ``walk`` finds them.

    Raises UserError naming what is wrong: no archive, truncated, a damaged header, a key or a file that stands twice.
    """
    try:
        with path.open("rb") as handle:
            try:
                files, plain = list(walk(handle.fileno(), 0)), True
                end = files[-1].content + -(-files[-1].length // _BLOCK) * _BLOCK if files else 0
            except Irregular:
                (files, end), plain = _by_tarfile(path), False
            _require_end(path, handle.fileno(), files, end)
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
        raise UserError(f"{path}: cannot be read as a shard ({error}). Run `python -m data verify`.") from error
    _require_distinct(path, files)
    return files, plain


def _require_end(path: Path, handle: int, files: list[File], end: int) -> None:
    """Raises UserError unless a block of zeros follows the last file, and nothing but zeros that.

    tarfile takes whatever is no header for the end: what was cut between two files, or has a damaged header, would pass
    for a shorter shard.
    """
    at = end
    while part := os.pread(handle, _TAIL, at):
        if part.count(0) < len(part):
            after = files[-1].name if files else "nothing"
            raise UserError(
                f"{path}: damaged after {after}: at byte {end} begins neither a file nor the end of the archive. "
                "Remove it and run the stage again."
            )
        at += len(part)
    if at - end < _BLOCK:
        where = f" inside clip {files[-1].key} or after it" if files else ""
        raise UserError(f"{path}: truncated{where}: the archive has no end. Remove it and run the stage again.")


def _require_distinct(path: Path, files: list[File]) -> None:
    """Raises UserError where a key or a file stands twice: readers would take one of the two, each another one."""
    seen: set[str] = set()
    for key, group in itertools.groupby(files, lambda file: file.key):
        fields = [file.field for file in group]
        if key in seen:
            raise UserError(f"{path}: clip {key} stands twice, with others in between. Leave out one of the two.")
        if len(set(fields)) < len(fields):
            name = next(name for name in fields if fields.count(name) > 1)
            raise UserError(f"{path}: clip {key}: {name} stands twice. Leave out one of the two, or rename a clip.")
        seen.add(key)


def _checksum(header: bytes) -> int:
    """Of a tar header: the sum of its bytes, the eight of the checksum itself as spaces; modulo _ADLER.

    adler32 is 1 and that sum in its lower half, and ten times as fast as ``sum``.
    """
    return ((zlib.adler32(header) & 0xFFFF) - 1 - sum(header[148:156]) + 8 * ord(" ")) % _ADLER


def _by_tarfile(path: Path) -> tuple[list[File], int]:
    """All files, and the offset of what is no header any more."""
    files: list[File] = []
    with tarfile.open(path, "r:") as archive:
        for member in archive:
            if member.size < 0:  # tarfile would go backwards, for ever
                raise tarfile.ReadError(f"{member.name}: {member.size} bytes")
            files.append(File(member.name, member.offset, member.offset_data, member.size))
        return files, archive.offset
