"""Read the kind and size of a PNG or JPEG from its first bytes, without an imaging library.

The report needs the size to reserve the room of every picture, and the kind to name it. Formats: PNG (W3C, section
11.2.2) and JPEG (ITU-T T.81, annex B: walk the marker segments up to the start of frame).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
# Start-of-frame markers; C4, C8 and CC lie in the same range and mean something else.
_START_OF_FRAME = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True)
class Picture:
    """kind: ``png`` or ``jpeg``. width, height: pixels."""

    kind: str
    width: int
    height: int

    @property
    def extension(self) -> str:
        return "png" if self.kind == "png" else "jpg"


def picture_of(data: bytes) -> Picture:
    """Kind and size of an encoded picture. Raises ValueError for anything that is not a PNG or JPEG with a size."""
    picture = _png(data) if data.startswith(_PNG) else _jpeg(data) if data.startswith(_JPEG) else None
    if picture is None or picture.width < 1 or picture.height < 1:
        raise ValueError(f"not a PNG or JPEG picture: {len(data)} bytes that start with {data[:8]!r}")
    return picture


def _png(data: bytes) -> Picture | None:
    if len(data) < 24 or data[12:16] != b"IHDR":
        return None
    return Picture("png", *struct.unpack(">II", data[16:24]))


def _jpeg(data: bytes) -> Picture | None:
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _START_OF_FRAME:
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return Picture("jpeg", width, height)
        if marker == 0xFF or 0xD0 <= marker <= 0xD7:  # fill byte, restart marker: no length follows
            at += 1 if marker == 0xFF else 2
            continue
        at += 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
    return None
