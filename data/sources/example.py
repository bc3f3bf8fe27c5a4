"""tf.train.Example: where each feature's values lie in the bytes of a record, without copying them.

Wire format of protobuf; messages of tensorflow/core/example/{example,feature}.proto:
Example {1: Features {1: repeated entry {1: name, 2: Feature {1: bytes_list | 2: float_list | 3: int64_list}}}},
each list {1: values}, numbers packed or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from data.video import Unreadable

Buffer = bytes | memoryview
Kind = Literal["bytes", "float", "int64"]
_KINDS: dict[int, Kind] = {1: "bytes", 2: "float", 3: "int64"}
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class Values:
    """The values of one feature. spans: start and stop in the buffer, of each value or of each packed run of them."""

    kind: Kind
    buffer: Buffer
    spans: list[tuple[int, int]]

    def __len__(self) -> int:
        return len(self.spans) if self.kind == "bytes" else len(self.numbers())

    def text(self, place: int) -> bytes:
        """One value of a list of bytes."""
        start, stop = self.spans[place]
        return bytes(self.buffer[start:stop])

    def numbers(self) -> np.ndarray:
        """f32 or i64 [n]. Raises Unreadable (bad_example)."""
        runs = [np.frombuffer(self.buffer[start:stop], np.uint8) for start, stop in self.spans]
        run = np.concatenate(runs) if runs else np.empty(0, np.uint8)
        if self.kind == "float":
            if len(run) % 4:
                raise Unreadable("bad_example", f"a list of floats takes {len(run)} bytes, not a multiple of 4")
            return run.view("<f4")
        return _varints(run)


def features(buffer: Buffer, start: int, stop: int) -> dict[str, Values]:
    """All features of the Example in ``buffer[start:stop]``. Raises Unreadable (bad_example) where it is none."""
    found: dict[str, Values] = {}
    for number, wire, at, end in _fields(buffer, start, stop):
        if (number, wire) != (1, _LENGTH):
            raise Unreadable(
                "bad_example", f"field {number} of wire type {wire} at byte {at} is not of tf.train.Example"
            )
        for _, _, entry, entry_end in _fields(buffer, at, end):
            name, value = None, None
            for field, kind, inner, inner_end in _fields(buffer, entry, entry_end):
                if field == 1 and kind == _LENGTH:
                    name = _name(buffer, inner, inner_end)
                elif field == 2 and kind == _LENGTH:
                    value = _values(buffer, inner, inner_end)
            if name is None:
                raise Unreadable("bad_example", f"a feature without a name at byte {entry}")
            if value is not None:
                found[name] = value
    if not found:
        raise Unreadable("bad_example", f"{stop - start} bytes that hold no feature of tf.train.Example")
    return found


def _name(buffer: Buffer, start: int, stop: int) -> str:
    try:
        return bytes(buffer[start:stop]).decode()
    except UnicodeDecodeError:
        raise Unreadable("bad_example", f"the name of a feature at byte {start} is not UTF-8") from None


def _values(buffer: Buffer, start: int, stop: int) -> Values | None:
    """None for a feature without values, which writers leave empty."""
    for number, _, at, end in _fields(buffer, start, stop):
        kind = _KINDS.get(number)
        if kind is None:
            raise Unreadable("bad_example", f"a list of unknown kind {number} at byte {at}")
        return Values(kind, buffer, [(first, last) for _, _, first, last in _fields(buffer, at, end)])
    return None


def _fields(buffer: Buffer, at: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """Yields (field number, wire type, start, stop of its content)."""
    while at < stop:
        tag, at = _varint(buffer, at, stop)
        wire = tag & 7
        if wire == _LENGTH:
            length, at = _varint(buffer, at, stop)
        elif wire == _VARINT:
            length = _varint(buffer, at, stop)[1] - at
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise Unreadable("bad_example", f"unknown wire type {wire} at byte {at}")
        if at + length > stop:
            raise Unreadable("bad_example", f"a field of {length} bytes at byte {at} goes beyond byte {stop}")
        yield tag >> 3, wire, at, at + length
        at += length


def _varint(buffer: Buffer, at: int, stop: int) -> tuple[int, int]:
    value = 0
    for place in range(10):
        if at >= stop:
            break
        byte = buffer[at]
        at += 1
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at
    raise Unreadable("bad_example", f"a number that does not end at byte {at}")


def _varints(run: np.ndarray) -> np.ndarray:
    """i64 of all numbers in a run of bytes, whose last byte each is below 128."""
    ends = np.flatnonzero(run < 0x80)
    if len(run) == 0:
        return np.empty(0, np.int64)
    if not len(ends) or ends[-1] != len(run) - 1:
        raise Unreadable("bad_example", "a list of integers does not end with one")
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if lengths.max() > 10:
        raise Unreadable("bad_example", "an integer of more than 10 bytes")
    place = (np.arange(len(run)) - np.repeat(starts, lengths)).astype(np.uint64)
    return np.add.reduceat((run & 0x7F).astype(np.uint64) << (place * np.uint64(7)), starts).view(np.int64)
