"""TFRecord files: where their records lie, each held to its two masked CRC-32C sums.

A record is its length (u64, little-endian), the sum of those 8 bytes, the data, the sum of the data.
Source: tensorflow/core/lib/io/record_writer.h.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import google_crc32c

from data.sources.recording import Rejected

_PIECE = 1 << 20  # bytes that are summed at a time


@dataclass(frozen=True)
class Record:
    """Data of one record. start, stop: offsets in the file. number: which of the file's records it is."""

    number: int
    start: int
    stop: int


def records(path: Path) -> Iterator[Record | Rejected]:
    """Every record that is whole, and what is wrong with the rest, with its byte offset.

    A record with damaged data is passed over; after a damaged length the rest of the file cannot be told apart.
    """
    try:
        with path.open("rb") as handle:
            yield from _records(path, handle, os.fstat(handle.fileno()).st_size)
    except OSError as error:
        yield Rejected(str(path), "unreadable", f"{path}: {error.strerror}")


def _records(path: Path, handle: BinaryIO, size: int) -> Iterator[Record | Rejected]:
    at, number = 0, 0
    while at < size:
        item, rest = f"{path}: record {number}", f"at byte {at} of {size}"
        handle.seek(at)
        head = handle.read(12)
        if len(head) < 12:
            yield Rejected(item, "truncated", f"{path}: the file ends inside the head of record {number} {rest}")
            return
        length, told = struct.unpack("<QI", head)
        if masked(google_crc32c.value(head[:8])) != told:
            detail = (
                f"{path}: wrong checksum of the length of record {number} {rest}; the file cannot be read from there"
            )
            yield Rejected(item, "bad_checksum", detail)
            return
        start, stop = at + 12, at + 12 + length
        if stop + 4 > size:
            missing = f"{stop + 4 - size} bytes are missing"
            yield Rejected(item, "truncated", f"{path}: the file ends inside record {number} {rest}, {missing}")
            return
        found = 0
        for piece in range(start, stop, _PIECE):
            found = google_crc32c.extend(found, handle.read(min(_PIECE, stop - piece)))
        if masked(found) != struct.unpack("<I", handle.read(4))[0]:
            yield Rejected(item, "bad_checksum", f"{path}: wrong checksum of the data of record {number} {rest}")
        else:
            yield Record(number, start, stop)
        at, number = stop + 4, number + 1


def masked(crc: int) -> int:
    """The form in which the sums are stored."""
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
