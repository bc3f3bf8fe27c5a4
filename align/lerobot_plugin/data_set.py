"""A data set of ``python -m data convert --to lerobot`` under the names that lerobot hands on to a policy.

lerobot loads past frames of features named ``observation.*`` alone, and shows a policy no others.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from align.lerobot_plugin.names import ACTION, CONVERTED, TIME
from pipeline.atomic import publishing_dir, write_json
from pipeline.errors import UserError

_STATISTICS = "stats/"
_CLOCK = "timestamps"


def rename(source: Path, out: Path) -> int:
    """Writes the data set ``source`` to ``out`` with features renamed; number of files of data.

    Times become f32 seconds since the first frame of their episode, without statistics. Pictures keep their bytes.
    Raises UserError where ``source`` is no labelled data set of ``data convert``, or ``out`` exists.
    """
    info = _info(source)
    if out.exists():
        raise UserError(f"{out} exists already. Name another folder, or remove it.")
    with publishing_dir(out) as temporary:
        for path in (files := sorted((source / "data").rglob("*.parquet"))):
            _data(path, _under(temporary, path, source))
        for path in sorted((source / "meta").rglob("*.parquet")):
            write = _episodes if path.is_relative_to(source / "meta/episodes") else shutil.copyfile
            write(path, _under(temporary, path, source))
        features = {CONVERTED.get(name, name): feature for name, feature in info["features"].items()}
        features[TIME] = {**features[TIME], "dtype": "float32"}
        write_json(_under(temporary, source / "meta/info.json", source), info | {"features": features})
        statistics = json.loads((source / "meta/stats.json").read_text())
        kept = {CONVERTED.get(name, name): value for name, value in statistics.items() if name != _CLOCK}
        write_json(_under(temporary, source / "meta/stats.json", source), kept)
        if (readme := source / "README.md").exists():
            shutil.copyfile(readme, temporary / readme.name)
    return len(files)


def _info(source: Path) -> dict[str, Any]:
    path = source / "meta/info.json"
    if not path.is_file():
        raise UserError(f"{source}: found no meta/info.json; expected one data set of python -m data convert.")
    info = json.loads(path.read_text())
    needed = [ACTION, *(name for name in CONVERTED if name != "grasp")]
    if missing := [name for name in needed if name not in info["features"]]:
        raise UserError(
            f"{source}: found no feature {', '.join(missing)}; expected a labelled data set of python -m data convert "
            "--to lerobot, as it was written."
        )
    return info


def _under(out: Path, path: Path, source: Path) -> Path:
    target = out / path.relative_to(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _data(path: Path, target: Path) -> None:
    """A file of data, row group by row group: one is an episode."""
    file, writer = pq.ParquetFile(path), None
    note = json.loads(file.schema_arrow.metadata[b"huggingface"])
    described = {CONVERTED.get(name, name): kind for name, kind in note["info"]["features"].items()}
    described[TIME] = {**described[TIME], "dtype": "float32"}
    note["info"]["features"] = described
    metadata = {b"huggingface": json.dumps(note, sort_keys=True).encode()}
    for number in range(file.num_row_groups):
        table = file.read_row_group(number)
        times_T = table[_CLOCK].to_numpy()
        place = table.schema.get_field_index(_CLOCK)
        since_T = pa.array((times_T - times_T[0]).astype(np.float32))
        if (episodes := len(table["episode_index"].unique())) != 1:
            raise UserError(
                f"{path}: row group {number}: found {episodes} episodes; expected one, as data convert writes "
                "them. Convert the clips again."
            )
        table = table.set_column(place, pa.field(_CLOCK, pa.float32()), since_T)
        table = table.rename_columns([CONVERTED.get(name, name) for name in table.column_names])
        table = table.replace_schema_metadata(metadata)
        writer = writer or pq.ParquetWriter(target, table.schema)
        writer.write_table(table, row_group_size=len(table))
    if writer is not None:
        writer.close()


def _episodes(path: Path, target: Path) -> None:
    """A file below meta/episodes: columns of statistics are named after the feature."""
    table = pq.read_table(path)
    gone = [name for name in table.column_names if name.startswith(f"{_STATISTICS}{_CLOCK}/")]
    table = table.drop_columns(gone)
    named = table.rename_columns([_renamed(name) for name in table.column_names])
    pq.write_table(named.replace_schema_metadata(table.schema.metadata), target)


def _renamed(column: str) -> str:
    if not column.startswith(_STATISTICS):
        return column
    name, _, measure = column.removeprefix(_STATISTICS).rpartition("/")
    return f"{_STATISTICS}{CONVERTED.get(name, name)}/{measure}"
