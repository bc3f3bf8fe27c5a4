"""The NPZ file beside a video. What an array must look like is known before it is read, and held against its header:
damage, and shapes that would not fit into memory, cost no more than a rejection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from zipfile import ZipFile

import numpy as np

from data.video import Unreadable
from pipeline.services import Unreachable

SUFFIX = ".npy"
NUMBERS = "biuf"  # kinds of dtype: truth values, integers, floats


def held(path: Path) -> set[str]:
    """Names of the arrays in an NPZ file. Raises Unreadable (bad_arrays)."""
    with _opened(path) as archive:
        return {name.removesuffix(SUFFIX) for name in archive.namelist() if name.endswith(SUFFIX)}


def read_arrays(path: Path, frames: int, entries: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Those of the named arrays that an NPZ file holds, in the order of ``entries``.

    frames: how many entries each must have, 0 = not known. entries: the shape of one entry, by name.
    Raises Unreadable (bad_arrays), naming array, shape or dtype and what was expected.
    """
    there = held(path)
    found: dict[str, np.ndarray] = {}
    with _opened(path) as archive:
        for name in (name for name in entries if name in there):
            with archive.open(name + SUFFIX) as stream:
                _require(path, name, *_header(stream), frames, entries[name])
            with archive.open(name + SUFFIX) as stream:
                found[name] = np.lib.format.read_array(stream, allow_pickle=False)
    return found


@contextmanager
def _opened(path: Path) -> Iterator[ZipFile]:
    try:
        with ZipFile(path) as archive:
            yield archive
    except (Unreadable, Unreachable):
        raise
    except Exception as error:  # zipfile, its decompressors and numpy raise many kinds on damage, bare ones as well
        raise Unreadable("bad_arrays", f"{path.name} cannot be read ({error or type(error).__name__})") from None


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of the array that a stream begins with. Version 3 is written for named columns alone."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, _, dtype = readers[np.lib.format.read_magic(stream)](stream)
    return shape, dtype


def _require(
    path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype, frames: int, entry: tuple[int, ...]
) -> None:
    if dtype.kind not in NUMBERS:
        raise Unreadable("bad_arrays", f"{path.name}: {name} has dtype {dtype}, expected numbers")
    if shape[1:] != entry or len(shape) != 1 + len(entry):
        expected = ", ".join(map(str, (frames or "T", *entry)))
        raise Unreadable("bad_arrays", f"{path.name}: {name} is {list(shape)}, expected [{expected}]")
    if frames and shape[0] != frames:
        raise Unreadable("bad_arrays", f"{path.name}: {name} has {shape[0]} entries for {frames} frames")
