"""Rows of parquet files: whole small tables, columns of numbers of one episode, and large columns as a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.video import Unreadable

MAX_BYTES = 1 << 30  # of what is read at once, uncompressed
BUFFER_BYTES = 1 << 20  # columns are read in pieces of this size, whatever the size of a row group
_CAREFUL = {"pre_buffer": False, "arrow_extensions_enabled": False, "page_checksum_verification": True}
ROWS, STREAMED = 1024, 16  # rows that are read together, of numbers and of pictures


def read_rows(path: Path, wanted: Callable[[str], bool]) -> list[dict[str, Any]]:
    """A small table as rows of the wanted columns. Raises Unreadable (missing, unreadable, too_large)."""
    with _guarded(path):
        file = _open(path)
        return _read(path, file, [name for name in file.schema_arrow.names if wanted(name)]).to_pylist()


def episodes_in(path: Path) -> list[int]:
    """The episodes of which a file holds rows. Raises Unreadable."""
    with _guarded(path):
        return np.unique(_numbers(path, _open(path), "episode_index", 1)).tolist()


@dataclass(frozen=True)
class EpisodeRows:
    """The rows of one episode in a file. length: as promised. episode: its number, where the file holds several."""

    path: Path
    length: int
    episode: int | None = None

    def names(self) -> list[str]:
        """Columns of the file. Raises Unreadable."""
        with _guarded(self.path):
            return _open(self.path).schema_arrow.names

    def numbers(self, column: str, width: int) -> np.ndarray:
        """A column as [T,width] of its own number type. Raises Unreadable (missing, bad_shape, bad_dtype, ...)."""
        first = self._first
        with _guarded(self.path):
            file = _open(self.path)
            groups, skip = _groups(file, first, first + self.length)
            return _numbers(self.path, file, column, width, groups)[skip : skip + self.length]

    def stream(self, column: str, start: int, stop: int) -> Iterator[Any]:
        """Values of a column one by one, without holding it. Raises Unreadable."""
        first, left = self._first + start, stop - start
        with _guarded(self.path):
            file = _open(self.path)
            _demand(self.path, file, column)
            groups, skip = _groups(file, first, first + left)
            for batch in file.iter_batches(STREAMED, row_groups=groups, columns=[column], use_threads=False):
                values = batch.column(column).slice(skip, left)
                skip, left = max(0, skip - batch.num_rows), left - len(values)
                yield from (value.as_py() for value in values)
                if not left:
                    return

    @cached_property
    def _first(self) -> int:
        """Row of the file at which the episode begins. Its rows must be together and as many as promised."""
        with _guarded(self.path):
            file = _open(self.path)
            rows, first = file.metadata.num_rows, 0
            if self.episode is not None:
                at = np.flatnonzero(_numbers(self.path, file, "episode_index", 1)[:, 0] == self.episode)
                rows, first = len(at), int(at[0]) if len(at) else 0
                if rows and at[-1] - at[0] != rows - 1:
                    detail = f"the rows of episode {self.episode} are scattered"
                    raise Unreadable("bad_frame_range", f"{self.path}: {detail}")
        if rows != self.length:
            found = f"{rows} rows, meta/ promises {self.length}"
            raise Unreadable("bad_shape", f"{self.path}: episode {self.episode}: {found}")
        return first


def _demand(path: Path, file: pq.ParquetFile, column: str) -> None:
    if column not in file.schema_arrow.names:
        there = ", ".join(file.schema_arrow.names)
        raise Unreadable("missing", f"{path}: there is no column '{column}'; there are {there}")


@contextmanager
def _guarded(path: Path) -> Iterator[None]:
    """Whatever pyarrow stumbles over. It decodes names and sizes late, so that this may be anywhere."""
    try:
        yield
    except FileNotFoundError:
        raise Unreadable("missing", f"{path} does not exist. Copy it from where the data set came from.") from None
    except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError, MemoryError) as error:
        raise Unreadable("unreadable", f"{path}: not readable as parquet ({error})") from None


def _open(path: Path) -> pq.ParquetFile:
    return pq.ParquetFile(path, buffer_size=BUFFER_BYTES, **_CAREFUL)


def _groups(file: pq.ParquetFile, first: int, stop: int) -> tuple[list[int], int]:
    """The row groups that hold rows first..stop, and how many rows come before them there."""
    groups, at, skip = [], 0, 0
    for number in range(file.num_row_groups):
        rows = file.metadata.row_group(number).num_rows
        if at < stop and at + rows > first:
            skip = skip if groups else first - at
            groups.append(number)
        at += rows
    return groups, skip


def _read(path: Path, file: pq.ParquetFile, columns: list[str], groups: list[int] | None = None) -> pa.Table:
    """Whole columns, in pieces that are counted. What metadata says of their sizes is left alone: asking pyarrow for it
    ends the process where that metadata is damaged."""
    batches, size = [], 0
    for batch in file.iter_batches(ROWS, row_groups=groups, columns=columns, use_threads=False):
        size += batch.nbytes
        if size > MAX_BYTES:
            raise Unreadable("too_large", f"{path}: {', '.join(columns)}: more than {MAX_BYTES} bytes")
        batches.append(batch)
    schema = pa.schema([file.schema_arrow.field(name) for name in columns])
    return pa.Table.from_batches([batch.select(columns) for batch in batches], schema)


def _numbers(path: Path, file: pq.ParquetFile, column: str, width: int, groups: list[int] | None = None) -> np.ndarray:
    _demand(path, file, column)
    return _matrix(_read(path, file, [column], groups).column(column).combine_chunks(), width, f"{path}: {column}")


def _matrix(column: Any, width: int, where: str) -> np.ndarray:
    """Scalars, lists, or lists of lists of numbers as [T,width]. Every row must have the same shape."""
    rows = len(column)
    found = 1
    while True:
        if column.null_count:
            raise Unreadable("bad_shape", f"{where}: {column.null_count} values are missing")
        kind = column.type
        if pa.types.is_fixed_size_list(kind):
            lengths = np.array([kind.list_size])
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
            lengths = np.unique(np.asarray(column.value_lengths()))
        else:
            break
        if len(lengths) > 1:
            raise Unreadable("ragged", f"{where}: rows have {lengths[0]} to {lengths[-1]} values, expected {width}")
        found *= int(lengths[0]) if len(lengths) else 0
        column = column.flatten()
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        raise Unreadable("bad_dtype", f"{where}: holds {kind}, expected numbers")
    if found != width:
        raise Unreadable("bad_shape", f"{where}: {found} values a row, meta/info.json declares {width}")
    return column.to_numpy(zero_copy_only=False).reshape(rows, width)
