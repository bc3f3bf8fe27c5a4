"""Rows of parquet files: whole small tables, columns of numbers of one episode, and large columns as a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
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
        return file.read([name for name in file.names if wanted(name)]).to_pylist()


def episodes_in(path: Path) -> list[int]:
    """The episodes of which a file holds rows. Raises Unreadable."""
    with _guarded(path):
        return _open(path).spans[0].tolist()


@dataclass(frozen=True)
class EpisodeRows:
    """The rows of one episode in a file. length: as promised. episode: its number, where the file holds several."""

    path: Path
    length: int
    episode: int | None = None

    def names(self) -> list[str]:
        """Columns of the file. Raises Unreadable."""
        with _guarded(self.path):
            return _open(self.path).names

    def numbers(self, column: str, width: int) -> np.ndarray:
        """A column as [T,width] of its own number type. Raises Unreadable (missing, bad_shape, bad_dtype, ...)."""
        first = self._first
        with _guarded(self.path):
            file = _open(self.path)
            groups, skip = file.groups(first, first + self.length)
            return file.numbers(column, width, groups)[skip : skip + self.length]

    def stream(self, column: str, start: int, stop: int) -> Iterator[Any]:
        """Values of a column one by one, without holding it. Raises Unreadable."""
        first, left = self._first + start, stop - start
        with _guarded(self.path):
            file = _open(self.path)
            file.demand(column)
            groups, skip = file.groups(first, first + left)
            for batch in file.file.iter_batches(STREAMED, row_groups=groups, columns=[column], use_threads=False):
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
            first, rows, together = (0, file.rows, True) if self.episode is None else file.span(self.episode)
            if not together:
                detail = f"the rows of episode {self.episode} are scattered"
                raise Unreadable("bad_frame_range", f"{self.path}: {detail}")
        if rows != self.length:
            found = f"{rows} rows, meta/ promises {self.length}"
            raise Unreadable("bad_shape", f"{self.path}: episode {self.episode}: {found}")
        return first


@contextmanager
def _guarded(path: Path) -> Iterator[None]:
    """Whatever pyarrow stumbles over. It decodes names and sizes late, so that this may be anywhere."""
    try:
        yield
    except FileNotFoundError:
        raise Unreadable("missing", f"{path} does not exist. Copy it from where the data set came from.") from None
    except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError, MemoryError) as error:
        raise Unreadable("unreadable", f"{path}: not readable as parquet ({error})") from None


def _open(path: Path) -> _File:
    """The file as it is now. The last few stay open: episodes of one file are read one after the other."""
    state = path.stat()
    return _opened(path, state.st_mtime_ns, state.st_size)


@lru_cache(2)
def _opened(path: Path, changed_ns: int, size: int) -> _File:
    return _File(path)


class _File:
    """An open file. What it raises is for ``_guarded`` to translate."""

    def __init__(self, path: Path):
        self.path, self.file = path, pq.ParquetFile(path, buffer_size=BUFFER_BYTES, **_CAREFUL)
        metadata = self.file.metadata
        sizes = [metadata.row_group(number).num_rows for number in range(self.file.num_row_groups)]
        self.rows, self._ends = metadata.num_rows, np.cumsum(sizes, dtype=np.int64)

    @property
    def names(self) -> list[str]:
        return self.file.schema_arrow.names

    @cached_property
    def spans(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Episodes in ascending order, and for each its first row, its last and how many there are."""
        column = self.numbers("episode_index", 1)[:, 0]
        episodes, first, count = np.unique(column, return_index=True, return_counts=True)
        last = len(column) - 1 - np.unique(column[::-1], return_index=True)[1]
        return episodes, first, last, count

    def span(self, episode: int) -> tuple[int, int, bool]:
        """First row of an episode, how many there are, and whether they are together."""
        episodes, first, last, count = self.spans
        at = int(np.searchsorted(episodes, episode))
        if at == len(episodes) or episodes[at] != episode:
            return 0, 0, True
        return int(first[at]), int(count[at]), bool(last[at] - first[at] == count[at] - 1)

    def demand(self, column: str) -> None:
        """Raises Unreadable (missing)."""
        if column not in self.names:
            there = ", ".join(self.names)
            raise Unreadable("missing", f"{self.path}: there is no column '{column}'; there are {there}")

    def groups(self, first: int, stop: int) -> tuple[list[int], int]:
        """The row groups that hold rows first..stop, and how many rows come before them there."""
        begin, end = np.searchsorted(self._ends, first, "right"), np.searchsorted(self._ends, stop, "left")
        before = int(self._ends[begin - 1]) if begin else 0
        return list(range(int(begin), int(min(end + 1, len(self._ends))))), first - before

    def read(self, columns: list[str], groups: list[int] | None = None) -> pa.Table:
        """Whole columns, in pieces that are counted. What metadata says of their sizes is left alone: asking pyarrow
        for it ends the process where that metadata is damaged."""
        batches, size = [], 0
        for batch in self.file.iter_batches(ROWS, row_groups=groups, columns=columns, use_threads=False):
            size += batch.nbytes
            if size > MAX_BYTES:
                detail = f"{', '.join(columns)}: more than {MAX_BYTES} bytes"
                raise Unreadable("too_large", f"{self.path}: {detail}")
            batches.append(batch)
        schema = pa.schema([self.file.schema_arrow.field(name) for name in columns])
        return pa.Table.from_batches([batch.select(columns) for batch in batches], schema)

    def numbers(self, column: str, width: int, groups: list[int] | None = None) -> np.ndarray:
        """A column as [rows,width] of its own number type."""
        self.demand(column)
        found = self.read([column], groups).column(column).combine_chunks()
        return _matrix(found, width, f"{self.path}: {column}")


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
