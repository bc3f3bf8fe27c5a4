"""LeRobot data sets that ``convert`` wrote, as clips: where each stands, and reading one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.clips import Clip, parse_meta
from data.convert.episode import KEY, META, PLACED, POSITION, SHARD
from data.convert.features import CONVERTER, FIELD_FEATURES, PICTURE_FEATURES, VERSION, Kind
from data.convert.finish import NOTE
from data.convert.plan import SHARD_NAME
from data.convert.to_lerobot import MADE_FROM
from data.schema import SCHEMA_VERSION, FieldSpec
from data.sources.declared import read_json
from data.sources.lerobot_info import file_of, read_info
from data.sources.parquet import EpisodeRows, episodes_in, read_rows
from data.video import Unreadable
from pipeline.errors import UserError
from pipeline.fingerprint import read_done

COLUMNS = (*PLACED, KEY, SHARD, POSITION)
LIST = "list"
REMEDY = "Copy the data set as a whole, or convert again."


class Unread(Exception):
    """An episode that is no clip; reason is a short name, the text says what was found where."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason


def open_sets(folder: Path) -> list[StoredSet]:
    """The data sets in ``folder``, or the one that it is, each checked as a whole. Raises UserError."""
    if (folder / "meta").is_dir():
        return [_opened(folder)]
    promised: set[str] = set()
    if (folder / MADE_FROM).exists():
        done = read_done(folder)
        if done is None:
            raise UserError(f"{folder}: its conversion has not finished. Run the command that makes it again.")
        promised = {one["name"] for one in done["data_sets"]}
    found = {path.parent.name for path in folder.glob("*/meta")}
    if missing := sorted(promised - found):
        raise UserError(f"{folder / missing[0]}: this data set is missing. Copy the folder as a whole.")
    if not found:
        raise UserError(f"{folder}: no LeRobot data set here, nor in its folders (meta/info.json).")
    return [_opened(folder / name) for name in sorted(found)]


def _opened(root: Path) -> StoredSet:
    try:
        return StoredSet(root)
    except Unreadable as error:
        raise UserError(f"{root}: {error.reason}: {error.detail}") from None


def shards_of(sets: list[StoredSet]) -> Iterator[tuple[str, list[tuple[StoredSet, int]]]]:
    """For every shard of old its clips, as data set and row of its list, in their order there.

    Raises UserError where two clips want the same place, or have the same key.
    """
    tables = []
    for number, stored in enumerate(sets):
        rows = np.arange(len(stored.listed))
        table = stored.listed.select([KEY, SHARD, POSITION]).append_column("row", pa.array(rows))
        tables.append(table.append_column("set", pa.array(np.full(len(rows), number))))
    whole: Any = pa.concat_tables(tables)
    twice = whole.group_by(KEY).aggregate([("row", "count")]).filter(pc.field("row_count") > 1)
    if len(twice):
        raise UserError(f"clip {twice[KEY][0]} is in the data sets more than once. Leave out one of them.")
    order = whole.select([SHARD, POSITION, "set", "row"]).sort_by([(SHARD, "ascending"), (POSITION, "ascending")])
    columns = ((column.to_pylist() for column in batch.columns) for batch in order.to_batches(1024))
    places = (place for batch in columns for place in zip(*batch, strict=True))
    for shard, found in groupby(places, key=lambda place: place[0]):
        clips = list(found)
        for one, other in pairwise(clips):
            if one[1] == other[1]:
                raise UserError(f"two clips say that they were number {one[1]} of {shard}. Convert the sets apart.")
        yield shard, [(sets[number], row) for _, _, number, row in clips]


class StoredSet:
    """One data set. Raises Unreadable where it is incomplete, damaged, or was not written by ``convert``.

    listed: columns of meta/episodes, about 100 bytes for each clip; texts are read when they are needed.
    """

    def __init__(self, root: Path):
        self.root = root
        self.info = read_info(root)
        if self.info.version != VERSION:
            raise Unreadable("unknown_version", f"codebase_version: {self.info.version}, expected {VERSION}")
        self.kind = self._kind()
        self._check_features()
        self._lists = sorted((root / "meta" / "episodes").glob("*/*.parquet"))
        self.listed = self._listed()
        self._check_files()

    def episode(self, row: int) -> int:
        """Its number, by row of ``listed``."""
        return self.listed["episode_index"][row].as_py()

    def clip(self, row: int) -> Clip:
        """Raises Unread where the episode cannot be read, or is no clip."""
        place = {name: self.listed[name][row].as_py() for name in (*COLUMNS, LIST)}
        path = self._data_file(place["data/chunk_index"], place["data/file_index"])
        length, episode, key = place["length"], place["episode_index"], place[KEY]
        try:
            rows = EpisodeRows(path, length, episode)
            _check_count(rows, length, place["dataset_from_index"], path)
            arrays = {spec.name: self._array(rows, spec, path) for spec in self.kind.fields}
            series = {
                spec.name: [_encoded(value, path) for value in rows.stream(PICTURE_FEATURES[spec.name], 0, length)]
                for spec in self.kind.pictures
            }
            text = next(EpisodeRows(self._lists[place[LIST]], 1, episode).stream(META, 0, 1))
            if not isinstance(text, str):
                raise Unreadable("bad_meta", f"{self._lists[place[LIST]]}: {META}: no text for episode {episode}")
            meta = parse_meta(text.encode(), self.root, key)
        except Unreadable as error:
            raise Unread(error.reason, error.detail) from None
        except UserError as error:
            raise Unread("bad_meta", str(error)) from None
        return Clip(key, arrays, series["images"], meta, series.get("scenes", []), series.get("depths", []))

    def _array(self, rows: EpisodeRows, spec: FieldSpec, path: Path) -> np.ndarray:
        """One field of the clip in its own type."""
        shape, name = self.kind.shape(spec), FIELD_FEATURES[spec.name]
        found = rows.numbers(name, math.prod(shape))
        if str(found.dtype) != spec.dtype:
            raise Unreadable("bad_dtype", f"{path}: {name}: {found.dtype}, expected {spec.dtype}")
        values = np.ascontiguousarray(found.reshape(len(found), *(shape if spec.shape != ("T",) else ())))
        if "T" in spec.shape:
            return values
        if (values.view(np.uint8) != values[:1].view(np.uint8)).any():
            raise Unreadable("not_constant", f"{path}: {name}: changes within the episode, but a clip has only one")
        return values[0]

    def _data_file(self, chunk: int, file: int) -> Path:
        return file_of(self.root, "data_path", self.info.data_path, chunk_index=chunk, file_index=file)

    def _kind(self) -> Kind:
        path = self.root / NOTE
        if not path.exists():
            raise Unreadable("not_ours", f"{path} does not exist: only what `data convert --to lerobot` wrote is clips")
        note = read_json(path)
        for name, known in (("schema_version", SCHEMA_VERSION), ("converter", CONVERTER)):
            if note.get(name) != known:
                detail = f"{path}: {name}: {note.get(name)!r}, this release reads {known}. Convert it back with the "
                raise Unreadable("unknown_version", f"{detail}release that wrote it, then `python -m data upgrade`")
        try:
            return Kind.of_document(note["kind"])
        except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
            raise Unreadable("bad_info", f"{path}: kind: not as it was written ({error!r:.200})") from None

    def _check_features(self) -> None:
        where = self.root / "meta" / "info.json"
        wanted = self.kind.features()
        if more := sorted(self.info.features.keys() - wanted.keys()):
            raise Unreadable("bad_info", f"{where}: features: clips have no place for {more[0]!r}; it would be lost")
        if self.info.fps != self.kind.fps:
            raise Unreadable(
                "bad_info", f"{where}: fps: {self.info.fps:g}, the clips were converted at {self.kind.fps}"
            )
        for name, feature in wanted.items():
            found = self.info.features.get(name)
            told = (found.dtype, list(found.shape)) if found else "nothing"
            if told != (feature["dtype"], feature["shape"]):
                asked = f"{feature['dtype']} {feature['shape']}"
                raise Unreadable("bad_info", f"{where}: features: {name}: found {told}, expected {asked}")

    def _listed(self) -> pa.Table:
        """All lists of episodes. LIST: which of them."""
        schema = pa.schema([(name, pa.string() if name in (KEY, SHARD) else pa.int64()) for name in (*COLUMNS, LIST)])
        tables = [schema.empty_table()]
        for number, path in enumerate(self._lists):
            rows = read_rows(path, lambda name: name in COLUMNS)
            missing = [name for name in COLUMNS if rows and name not in rows[0]]
            if missing:
                raise Unreadable("missing", f"{path}: there is no column '{missing[0]}'; another program rewrote it")
            try:
                table = pa.Table.from_pylist([{**row, LIST: number} for row in rows], schema=schema)
            except (pa.ArrowException, OverflowError) as error:
                raise Unreadable("bad_info", f"{path}: {error}") from None
            for name in schema.names:
                if table[name].null_count or (name not in (KEY, SHARD) and (table[name].to_numpy() < 0).any()):
                    raise Unreadable("bad_info", f"{path}: {name}: a value is missing or negative")
            for shard in table[SHARD].unique().to_pylist():
                if not SHARD_NAME.fullmatch(shard):
                    raise Unreadable("unsafe_path", f"{path}: {SHARD}: {shard!r:.100} is not the name of a shard")
            tables.append(table)
        found = pa.concat_tables(tables).combine_chunks()
        self._check_totals(found)
        return found

    def _check_totals(self, listed: pa.Table) -> None:
        raw = read_json(self.root / "meta" / "info.json")
        episodes, frames = len(listed), int(listed["length"].to_numpy().sum())
        for name, found in (("total_episodes", episodes), ("total_frames", frames)):
            if raw.get(name) != found or not found:
                detail = f"meta/info.json: {name}: {raw.get(name)!r}, the lists in meta/episodes have {found}"
                raise Unreadable("missing", f"{self.root}: {detail}. {REMEDY}")
        if len(listed["episode_index"].unique()) != episodes:
            raise Unreadable("duplicate", f"{self.root}: meta/episodes lists an episode twice")

    def _check_files(self) -> None:
        """Each data file can be opened and holds the episodes that are listed for it; there are no others."""
        places = np.stack([self.listed[name].to_numpy() for name in ("data/chunk_index", "data/file_index")])
        numbers = self.listed["episode_index"].to_numpy()
        order = np.lexsort((numbers, *places[::-1]))
        cuts = np.flatnonzero((np.diff(places[:, order]) != 0).any(0)) + 1
        wanted = set()
        for part in np.split(order, cuts):
            path = self._data_file(*places[:, part[0]].tolist())
            wanted.add(path)
            found = episodes_in(path)
            if found != numbers[part].tolist():
                detail = f"{path}: holds {len(found)} episodes, meta/episodes lists {len(part)} others for it"
                raise Unreadable("missing", f"{detail}. {REMEDY}")
        if more := set((self.root / "data").glob("*/*.parquet")) - wanted:
            raise Unreadable("bad_info", f"{min(more)}: meta/episodes lists no episode for this file. {REMEDY}")


def _check_count(rows: EpisodeRows, length: int, first: int, path: Path) -> None:
    for name, begin in (("frame_index", 0), ("index", first)):
        if (rows.numbers(name, 1)[:, 0] != begin + np.arange(length)).any():
            raise Unreadable("bad_frame_range", f"{path}: {name}: does not count from {begin}")


def _encoded(value: Any, path: Path) -> bytes:
    if not isinstance(value, dict) or not isinstance(value.get("bytes"), bytes):
        raise Unreadable("not_an_image", f"{path}: a picture is not in its row")
    return value["bytes"]
