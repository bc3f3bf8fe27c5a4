"""What a data set tells about all of its files: tasks, statistics, and last of all meta/info.json."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.convert.features import CONVERTER, PICTURE_FEATURES, VERSION, Kind
from data.convert.statistics import Moments, Spread
from data.convert.write import Limits, Written
from data.schema import SCHEMA_VERSION
from pipeline.atomic import publishing, write_json

NOTE = "meta/kinecloud.json"
ROWS = 1024  # that are read together for statistics


def finish(root: Path, kind: Kind, written: Written, limits: Limits) -> None:
    """Writes meta/tasks.parquet, meta/stats.json, meta/kinecloud.json and meta/info.json, in this order.

    lerobot opens nothing that has no info.json.
    """
    _write_tasks(root / "meta" / "tasks.parquet", written.tasks)
    write_json(root / "meta" / "stats.json", statistics(root, kind, written))
    write_json(root / NOTE, {"converter": CONVERTER, "schema_version": SCHEMA_VERSION, "kind": kind.document()})
    write_json(root / "meta" / "info.json", info(kind, written, limits))


def info(kind: Kind, written: Written, limits: Limits) -> dict[str, Any]:
    """meta/info.json"""
    return {
        "codebase_version": VERSION,
        "robot_type": kind.embodiment,
        "total_episodes": written.clips,
        "total_frames": written.frames,
        "total_tasks": len(written.tasks),
        "chunks_size": limits.files,
        "data_files_size_in_mb": max(1, round(limits.file_bytes / 2**20)),
        "video_files_size_in_mb": 200,
        "fps": kind.fps,
        "splits": _splits(written),
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": None,
        "features": kind.features(),
    }


def _splits(written: Written) -> dict[str, str]:
    """Ranges of episodes by the names of their shards; one range where these name no `train`, or return to a name."""
    names = [name for name, _ in written.splits]
    if "train" not in names or len(set(names)) < len(names):
        return {"train": f"0:{written.clips}"}
    found, first = {}, 0
    for name, clips in written.splits:
        found[name] = f"{first}:{first + clips}"
        first += clips
    return found


def _write_tasks(path: Path, tasks: dict[str, int]) -> None:
    """Words and their numbers; the note tells pandas, with which lerobot reads, that the words are the index."""
    note = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [
            {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64"},
            {"name": "task", "field_name": "task", "pandas_type": "unicode", "numpy_type": "object"},
        ],
        "pandas_version": "2.0.0",
    }
    for column in note["columns"]:
        column["metadata"] = None
    schema = pa.schema([("task_index", pa.int64()), ("task", pa.string())], metadata={"pandas": json.dumps(note)})
    with publishing(path) as temporary:
        pq.write_table(pa.table([list(tasks.values()), list(tasks)], schema=schema), temporary)


def statistics(root: Path, kind: Kind, written: Written) -> dict[str, Any]:
    """meta/stats.json: numbers from two passes over the files, pixels from what was counted while they were written.

    A feature of which some dimension is never known has none.
    """
    pictures = set(PICTURE_FEATURES.values())
    names = [name for name in kind.features() if name not in pictures]
    moments = {name: Moments() for name in names}
    for name, values in _numbers(root, kind, names):
        moments[name].add(values)
    known = [name for name in names if moments[name].known]
    spreads = {name: Spread(moments[name].min_D, moments[name].max_D) for name in known}
    for name, values in _numbers(root, kind, known):
        spreads[name].add(values)
    told = {name: {**moments[name].told(), **spreads[name].told()} for name in known}
    return told | {PICTURE_FEATURES[name]: counted.told() for name, counted in written.pixels.items()}


def _numbers(root: Path, kind: Kind, names: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Columns of the data files, some rows at a time, each as [T,...]."""
    features = kind.features()
    for path in sorted((root / "data").glob("*/*.parquet")):
        file = pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
        for batch in file.iter_batches(ROWS, columns=names, use_threads=False):
            for name in names:
                column = batch.column(name)
                while isinstance(column, pa.ListArray | pa.FixedSizeListArray):
                    column = column.flatten()
                values = column.to_numpy(zero_copy_only=False)
                shape = features[name]["shape"]
                yield name, values.reshape(batch.num_rows, *(shape if shape != [1] else []))
