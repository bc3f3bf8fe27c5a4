"""Messages of named arrays over pipes: 8 bytes of length, then that many of an npz archive. Nothing is unpickled."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import IO, Any

import numpy as np

MOST_BYTES = 2**28  # no message of ours comes near
_LENGTH = 8


def send(stream: IO[bytes], message: Mapping[str, Any]) -> None:
    """Writes what numpy can make arrays of: numbers, texts, arrays. Raises BrokenPipeError when nobody reads."""
    archive, arrays = io.BytesIO(), dict[str, Any]((name, np.asarray(value)) for name, value in message.items())
    np.savez(archive, **arrays)
    body = archive.getvalue()
    stream.write(len(body).to_bytes(_LENGTH, "little") + body)
    stream.flush()


def receive(stream: IO[bytes]) -> dict[str, np.ndarray] | None:
    """The next message, or None where the stream has ended. Raises ValueError for what is not a message."""
    head = stream.read(_LENGTH)
    if not head:
        return None
    length = int.from_bytes(head, "little")
    if len(head) < _LENGTH or length > MOST_BYTES:
        raise ValueError(f"message: found a head of {head!r}; expected a length of at most {MOST_BYTES} bytes")
    body = stream.read(length)
    if len(body) < length:
        raise ValueError(f"message: found {len(body)} bytes; expected {length}: the other side ended while it wrote")
    try:
        with np.lib.npyio.NpzFile(
            io.BytesIO(body), allow_pickle=False
        ) as archive:  # np.load would open other things, too
            return {name: archive[name] for name in archive.files}
    except (
        zipfile.BadZipFile,
        EOFError,
        KeyError,
        OSError,
        NotImplementedError,
    ) as error:  # the last: of unknown packing
        raise ValueError(f"message: found {error}; expected an npz archive") from error
