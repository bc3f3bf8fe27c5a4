"""Rows of parquet files: whole small tables, columns of numbers of one episode, and large columns as a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
BATCH = 16  # rows of a stream


def read_rows(path: Path, wanted: Callable[[str], bool]) -> list[dict[str, Any]]:
    """A small table as rows of the wanted columns. Raises Unreadable (missing, unreadable, too_large)."""
    file = _open(path)
    return _read(path, file, [name for name in file.schema_arrow.names if wanted(name)]).to_pylist()


@dataclass(frozen=True)
class EpisodeRows:
    """The rows of one episode in a file. length: as promised. episode: its number, where the file holds several."""

    path: Path
    length: int
    episode: int | None = None

    def names(self) -> list[str]:
        """Columns of the file."""
        return _open(self.path).schema_arrow.names

    def numbers(self, column: str, width: int) -> np.ndarray:
        """A column as [T,width] of its own number type. Raises Unreadable (missing, bad_shape, bad_dtype)."""
        file = _open(self.path)
        self._demand(file, column)
        found = _read(self.path, file, [column]).column(column).slice(self._first, self.length)
        return _matrix(found.combine_chunks(), width, f"{self.path}: {column}")

    def stream(self, column: str, start: int, stop: int) -> Iterator[Any]:
        """Values of a column one by one, without holding it."""
        file = _open(self.path)
        self._demand(file, column)
        groups, skip = [], self._first + start
        for number in range(file.num_row_groups):
            rows = file.metadata.row_group(number).num_rows
            if groups or skip < rows:
                groups.append(number)
            else:
                skip -= rows
        left = stop - start
        try:
            for batch in file.iter_batches(BATCH, row_groups=groups, columns=[column]):
                values = batch.column(column).slice(skip, left)
                skip, left = max(0, skip - batch.num_rows), left - len(values)
                yield from (value.as_py() for value in values)
                if not left:
                    return
        except (pa.ArrowException, OSError) as error:
            raise Unreadable("truncated", f"{self.path}: {column} cannot be read ({error})") from None

    @cached_property
    def _first(self) -> int:
        """Row of the file at which the episode begins. Its rows must be together and as many as promised."""
        file = _open(self.path)
        if self.episode is None:
            rows, first = file.metadata.num_rows, 0
        else:
            self._demand(file, "episode_index")
            column = _read(self.path, file, ["episode_index"]).column("episode_index").combine_chunks()
            at = np.flatnonzero(_matrix(column, 1, f"{self.path}: episode_index")[:, 0] == self.episode)
            rows, first = len(at), int(at[0]) if len(at) else 0
            if rows and at[-1] - at[0] != rows - 1:
                raise Unreadable("bad_frame_range", f"{self.path}: the rows of episode {self.episode} are scattered")
        if rows != self.length:
            found = f"{rows} rows, meta/ promises {self.length}"
            raise Unreadable("bad_shape", f"{self.path}: episode {self.episode}: {found}")
        return first

    def _demand(self, file: pq.ParquetFile, column: str) -> None:
        if column not in file.schema_arrow.names:
            there = ", ".join(file.schema_arrow.names)
            raise Unreadable("missing", f"{self.path}: there is no column '{column}'; there are {there}")


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, buffer_size=BUFFER_BYTES, pre_buffer=False, arrow_extensions_enabled=False)
    except FileNotFoundError:
        raise Unreadable("missing", f"{path} does not exist. Copy it from where the data set came from.") from None
    except (pa.ArrowException, OSError) as error:
        raise Unreadable("unreadable", f"{path}: not readable as parquet ({error})") from None


def _read(path: Path, file: pq.ParquetFile, columns: list[str]) -> pa.Table:
    metadata = file.metadata
    size = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for chunk in (group.column(place) for place in range(group.num_columns)):
            if any(f"{chunk.path_in_schema}.".startswith(f"{name}.") for name in columns):
                size += chunk.total_uncompressed_size
    if size > MAX_BYTES:
        raise Unreadable("too_large", f"{path}: {', '.join(columns)}: {size} bytes, at most {MAX_BYTES} are read")
    try:
        return file.read(columns=columns, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise Unreadable("truncated", f"{path}: {', '.join(columns)} cannot be read ({error})") from None


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
