"""Tables that others wrote, row by row: CSV as spreadsheets save it, and JSON of any size.

Nothing of a table is held but the row at hand; what a row, a line or a level of nesting may be is limited.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import TextIOBase
from pathlib import Path
from typing import Any

import ijson

from data.sources.patterns import matched, names
from data.video import Unreadable

CSV_SUFFIXES, JSON_SUFFIXES = (".csv", ".tsv"), (".json",)
MAX_LINE = 1 << 20  # characters
MAX_DEPTH = 64
MAX_EVENTS = 100_000  # of a row of JSON


@dataclass(frozen=True)
class Row:
    """number: the line of a CSV, the how-manieth row of a JSON, from 1. within: the list that it is in, for neighbours.

    values: by column; of JSON the row as it is, and names of the pattern. wrong: why it cannot be used, or empty.
    """

    number: int
    within: str
    values: dict[str, Any] = field(default_factory=dict)
    wrong: str = ""


def header(path: Path) -> tuple[str, ...] | None:
    """The columns of a CSV; None for JSON, whose rows differ. Raises Unreadable (bad_table)."""
    if path.suffix.lower() in JSON_SUFFIXES:
        return None
    with _opened(path) as handle:
        return _header(csv.reader(_lines(handle, path), delimiter=_delimiter(path)), path)


def rows(path: Path, places: Sequence[str]) -> Iterator[Row]:
    """Every row of a table. places: where they are in JSON. Raises Unreadable (bad_table)."""
    try:
        yield from _csv_rows(path) if path.suffix.lower() in CSV_SUFFIXES else _json_rows(path, places)
    except (csv.Error, UnicodeDecodeError) as error:
        raise Unreadable("bad_table", f"{path}: not readable as CSV ({error})") from None
    except ijson.JSONError as error:
        raise Unreadable("bad_table", f"{path}: not readable as JSON ({_first_line(error)})") from None
    except OSError as error:
        raise Unreadable("bad_table", f"{path}: {error.strerror}") from None


def columns_in(places: Sequence[str]) -> set[str]:
    """Columns that rows of JSON have from their keys on the way."""
    return {name for place in places for name in names(place)}


def inside(values: dict[str, Any], column: str) -> Any:
    """What a row has in a column, which may be a path into it; None where it has nothing."""
    if column in values:
        return values[column]
    found: Any = values
    for step in column.split("/"):
        found = found.get(step) if isinstance(found, dict) else None
    return found


def _csv_rows(path: Path) -> Iterator[Row]:
    with _opened(path) as handle:
        reader = csv.reader(_lines(handle, path), delimiter=_delimiter(path))
        columns = _header(reader, path)
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            wrong = ""
            if len(cells) != len(columns):
                wrong = f"{len(cells)} cells for {len(columns)} columns; put a text with a delimiter in quotes"
            values = dict(zip(columns, (cell.strip() for cell in cells), strict=False))
            yield Row(reader.line_num, "", values, wrong)


def _opened(path: Path) -> TextIOBase:
    try:
        return path.open(encoding="utf-8-sig", newline="")  # Excel begins with a byte order mark
    except OSError as error:
        raise Unreadable("bad_table", f"{path}: {error.strerror}") from None


def _lines(handle: TextIOBase, path: Path) -> Iterator[str]:
    while line := handle.readline(MAX_LINE):
        if len(line) == MAX_LINE:
            raise Unreadable("bad_table", f"{path}: a line of more than {MAX_LINE} characters")
        yield line


def _delimiter(path: Path) -> str:
    """That of which the first line has most: spreadsheets write ``;`` where the comma is in numbers."""
    if path.suffix.lower() == ".tsv":
        return "\t"
    with _opened(path) as handle:
        try:
            first = next(_lines(handle, path), "")
        except UnicodeDecodeError as error:
            raise Unreadable("bad_table", f"{path}: not UTF-8 ({error}). Save it as CSV UTF-8") from None
    return max(",;\t", key=first.count)


def _header(reader: Iterator[list[str]], path: Path) -> tuple[str, ...]:
    try:
        columns = tuple(cell.strip() for cell in next(reader, []))
    except (csv.Error, UnicodeDecodeError) as error:
        raise Unreadable("bad_table", f"{path}: not readable as CSV ({error})") from None
    if not any(columns):
        raise Unreadable("bad_table", f"{path}: there is no header")
    if twice := sorted({column for column in columns if columns.count(column) > 1}):
        raise Unreadable("bad_table", f"{path}: columns with one name: {', '.join(map(repr, twice))}")
    return columns


def _json_rows(path: Path, places: Sequence[str]) -> Iterator[Row]:
    """Goes through the events of the file once; only what is at a place becomes an object."""
    steps = [place.split("/") for place in places]
    number = 0
    with path.open("rb") as handle:
        events = ijson.basic_parse(handle, use_float=True)
        where: list[str | int] = []  # keys and places on the way; that of a map is "" before its first key
        for event, value in events:
            if event in ("end_map", "end_array"):
                where.pop()
            elif event == "map_key":
                where[-1] = value
            else:
                if where and isinstance(where[-1], int):
                    where[-1] += 1
                found = next((given for given in (_at(one, where) for one in steps) if given is not None), None)
                if found is not None:
                    number += 1
                    yield _row(number, where, _built(event, value, events, path), found)
                elif event in ("start_map", "start_array"):
                    where.append("" if event == "start_map" else -1)
                    if len(where) > MAX_DEPTH:
                        raise Unreadable("bad_table", f"{path}: nested more than {MAX_DEPTH} levels")


def _at(place: list[str], where: list[str | int]) -> dict[str, str] | None:
    """What the names of a place stand for, where we are at it."""
    if len(place) != len(where):
        return None
    found: dict[str, str] = {}
    for wanted, step in zip(place, where, strict=True):
        if wanted == "*":
            continue
        if isinstance(step, int) or (given := matched(wanted, step)) is None:
            return None
        found |= given
    return found


def _built(event: str, value: Any, events: Iterator[tuple[str, Any]], path: Path) -> Any:
    if event not in ("start_map", "start_array"):
        return value
    builder, depth = ijson.ObjectBuilder(), 0
    for count in range(MAX_EVENTS):
        if count:
            event, value = next(events)
        builder.event(event, value)
        depth += {"start_map": 1, "start_array": 1, "end_map": -1, "end_array": -1}.get(event, 0)
        if depth == 0:
            return builder.value
        if depth > MAX_DEPTH:
            raise Unreadable("bad_table", f"{path}: nested more than {MAX_DEPTH} levels")
    raise Unreadable("bad_table", f"{path}: a row of more than {MAX_EVENTS} values")


def _row(number: int, where: list[str | int], built: Any, found: dict[str, str]) -> Row:
    within = "/".join(str(step) for step in where[:-1])
    return Row(number, within, (built if isinstance(built, dict) else {".": built}) | found)


def _first_line(error: Exception) -> str:
    said = error.args[0] if error.args else ""
    text = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
    return text.strip().split("\n")[0]
