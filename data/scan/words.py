"""Tables of words below a source's folder: which there are, and which rows speak of a video.

Rows pass into a temporary database on disk, so that neither large tables nor many take memory.
"""

from __future__ import annotations

import difflib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.config import Source
from data.index import Rejection
from data.sidecar import CSV_COLUMNS, sidecar_paths
from data.sources.mapping import read_layout, shipped
from data.sources.patterns import ANYWHERE, filled, matched, names
from data.sources.tables import CSV_SUFFIXES, JSON_SUFFIXES, Row, columns_in, header, inside, rows
from data.sources.videos_layout import VideoPlace, VideosLayout
from data.video import Unreadable
from pipeline.errors import UserError

MAX_KEY = 1000  # characters that may name a video


@dataclass(frozen=True)
class Table:
    """number: in the order of paths. links: the columns that name the video, as they are in the layout's patterns."""

    number: int
    path: Path
    layout: VideosLayout
    links: tuple[str, ...]

    def place(self, row: Row) -> str:
        return f"{self.path}: {'line' if self.path.suffix.lower() in CSV_SUFFIXES else 'row'} {row.number}"


@dataclass(frozen=True)
class Spoken:
    """All that one table says of one video. where: the pattern that fits it. named: what its names stand for."""

    table: Table
    where: VideoPlace
    named: dict[str, str]
    rows: tuple[Row, ...]


class Words:
    """The tables of a source, chosen by their names and columns. Raises UserError where the named layout has none.

    files: the tables, those that cannot be used among them.
    """

    def __init__(self, folder: Path, source: Source, videos: Sequence[Path], others: Sequence[Path]):
        self._folder = folder
        self._tables: list[Table] = []
        self._claimed: set[tuple[int, str]] = set()
        self._refused: list[Rejection] = []
        self.files: set[Path] = set()
        # without a name: sqlite keeps it in a file of its own that goes when it is closed
        self._rows = sqlite3.connect("")
        self._rows.execute("CREATE TABLE rows (tab INTEGER, key TEXT, number INTEGER, within TEXT, content TEXT)")
        sidecars = {path for video in videos for path in sidecar_paths(video)}
        chosen = _chosen(source)
        for path in others:
            if path in sidecars or path.suffix.lower() not in (*CSV_SUFFIXES, *JSON_SUFFIXES):
                continue
            relative = path.relative_to(folder).as_posix()
            for layout in chosen:
                if any(matched(pattern, relative) is not None for pattern in layout.tables):
                    self._take(path, layout)
        self._rows.execute("CREATE INDEX of_video ON rows (tab, key, number)")
        if source.layout is not None and not self._tables:
            said = "; ".join(one.detail for one in self._refused) or f"there is no {' or '.join(chosen[0].tables)}"
            raise UserError(
                f"index.sources: '{source.name}': {folder} holds no table of layout {source.layout}: {said}"
            )
        self._near: dict[Path, list[Table]] = {}
        for table in self._tables:
            anywhere = any(one.path.startswith(ANYWHERE) for one in table.layout.videos)
            self._near.setdefault(folder if anywhere else table.path.parent, []).append(table)

    def close(self) -> None:
        self._rows.close()

    def left_out(self, video: Path) -> str | None:
        """Why a video is none to look at, as a layout in use says, or None."""
        relative = video.relative_to(self._folder).as_posix()
        for layout in {table.layout.name: table.layout for table in self._tables}.values():
            for pattern in layout.leave_out:
                if matched(pattern, relative) is not None:
                    return f"leave_out of the {layout.name} layout: {pattern}"
        return None

    def about(self, video: Path) -> list[Spoken]:
        """What the tables say of a video, also where it is no more than that they are about it."""
        found = []
        for folder in (video.parent, *video.parent.parents):
            for table in self._near.get(folder, ()):
                found += self._spoken(table, video)
            if folder == self._folder:
                break
        return sorted(found, key=lambda one: one.table.number)

    def rejections(self) -> Iterator[Rejection]:
        """Tables that cannot be used, and rows of which no video is there, as far as ``about`` was asked."""
        yield from self._refused
        query = "SELECT key, count(*), min(number) FROM rows WHERE tab = ? GROUP BY key ORDER BY min(number)"
        for table in self._tables:
            for key, count, first in self._rows.execute(query, (table.number,)):
                if (table.number, key) not in self._claimed:
                    values = dict(zip(table.links, json.loads(key), strict=True))
                    wanted = " or ".join(filled(one.path, values) for one in table.layout.videos)
                    detail = f"there is no video {wanted}; rows that speak of it: {count}"
                    yield Rejection(table.place(Row(first, "")), "missing_video", detail)

    def _spoken(self, table: Table, video: Path) -> list[Spoken]:
        for where in table.layout.videos:
            base = self._folder if where.path.startswith(ANYWHERE) else table.path.parent
            named = matched(where.path, video.relative_to(base).as_posix()) if video.is_relative_to(base) else None
            if named is None or not set(table.links) <= named.keys():
                continue
            key = json.dumps([named[link] for link in table.links])
            self._claimed.add((table.number, key))
            query = "SELECT number, within, content FROM rows WHERE tab = ? AND key = ? ORDER BY number"
            stored = self._rows.execute(query, (table.number, key))
            return [Spoken(table, where, named, tuple(_restored(*one) for one in stored))]
        return []

    def _take(self, path: Path, layout: VideosLayout) -> None:
        """All rows of a table, or none where it is damaged."""
        before = len(self._refused)
        self.files.add(path)
        try:
            with self._rows:
                self._tables.append(self._loaded(path, layout))
        except Unreadable as error:
            del self._refused[before:]
            self._refused.append(Rejection(str(path), error.reason, error.detail))

    def _loaded(self, path: Path, layout: VideosLayout) -> Table:
        given, table = header(path), None
        for row in rows(path, layout.rows):
            if table is None:
                table = self._table(path, layout, given or (*columns_in(layout.rows), *row.values))
            self._store(table, row, given)
        if table is None:
            raise Unreadable("bad_table", f"{path}: no rows where the {layout.name} layout has them")
        return table

    def _table(self, path: Path, layout: VideosLayout, columns: Sequence[str]) -> Table:
        """Raises Unreadable where these columns are not those of the layout."""
        there = ", ".join(columns)
        links = tuple(dict.fromkeys(name for one in layout.videos for name in names(one.path) if name in columns))
        if not links:
            wanted = " or ".join(one.path for one in layout.videos)
            raise Unreadable("bad_table", f"{path}: no column names the video ({wanted}); there are {there}")
        if path.suffix.lower() in CSV_SUFFIXES and (wrong := _unlike(layout, columns, links)):
            raise Unreadable("bad_table", f"{path}: {wrong}; there are {there}")
        return Table(len(self._tables), path, layout, links)

    def _store(self, table: Table, row: Row, given: Sequence[str] | None) -> None:
        linked = [inside(row.values, link) for link in table.links]
        if not all(isinstance(value, str | int) and 0 < len(str(value)) <= MAX_KEY for value in linked):
            detail = row.wrong or f"{', '.join(table.links)} does not name a video (found {linked!r:.200})"
            self._refused.append(Rejection(table.place(row), "bad_row", detail))
            return
        key = json.dumps([str(value).strip().replace("\\", "/").removeprefix("./") for value in linked])
        kept = row.values
        if given is None or table.layout.others == "ignored":
            kept = {column: inside(row.values, column) for column in (*table.layout.columns(), *table.layout.group)}
        content = json.dumps([kept, row.wrong])
        self._rows.execute(
            "INSERT INTO rows VALUES (?, ?, ?, ?, ?)", (table.number, key, row.number, row.within, content)
        )


def _restored(number: int, within: str, content: str) -> Row:
    values, wrong = json.loads(content)
    return Row(number, within, values, wrong)


def _chosen(source: Source) -> list[VideosLayout]:
    """The layout that the source names, or all shipped ones that choose themselves."""
    if source.layout is None:
        return [one for one in shipped() if isinstance(one, VideosLayout) and one.automatic]
    one: Any = read_layout(source.layout)
    if not isinstance(one, VideosLayout):
        raise UserError(f"{source.layout}: format: {one.format} is for kind: data_set; videos need format: video.")
    return [one]


def _unlike(layout: VideosLayout, columns: Sequence[str], links: Sequence[str]) -> str | None:
    """How the columns of a CSV differ from those of its layout."""
    alternatives = [layout.instruction, layout.start, layout.stop, layout.moment]
    alternatives += [(column,) for column in (*layout.sidecar.values(), *layout.group)]
    usable = {*columns, *layout.optional, *(name for one in layout.videos for name in names(one.path))}
    if lacking := [" or ".join(group) for group in alternatives if group and usable.isdisjoint(group)]:
        return f"there is no column {', '.join(lacking)}, which the {layout.name} layout has"
    if layout.others == "sidecar":
        known = [*links, *layout.columns(), *layout.group, *CSV_COLUMNS]
        for column in columns:
            if column not in known:
                near = difflib.get_close_matches(column, known, n=1, cutoff=0.5)
                return f"unknown column '{column}'" + (f", did you mean '{near[0]}'?" if near else "")
    return None
