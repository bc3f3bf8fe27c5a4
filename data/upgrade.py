"""Bringing shards of an older schema version up to this release's.

Version 1 knew nothing of camera motion: identity poses meant both a static camera and one that nobody had looked at.
They become ``unknown``, as no more can be told from the clip; poses that the source gave become ``given``.

Version 2 knew no grasp points, pictures of the scene or depth. All of them are optional: its clips have none.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data.clips import Shard, write_samples
from data.schema import SCHEMA_VERSION
from pipeline.atomic import publishing
from pipeline.errors import UserError

Sample = dict[str, bytes | str]


def upgrade(path: Path, out: Path) -> int:
    """Writes the shard at ``path`` as ``out/NAME.tar`` in this release's version; returns its number of clips.

    Raises UserError for a shard that cannot be read, is newer than this release, or would be written over itself.
    """
    if (out / path.name).resolve() == path.resolve():
        raise UserError(f"--out {out}: the shard would be written over itself. Name another folder.")
    shard = Shard(path)
    out.mkdir(parents=True, exist_ok=True)
    with publishing(out / path.name) as temporary:
        return write_samples(temporary, _upgraded(shard))


def _upgraded(shard: Shard) -> Iterator[Sample]:
    for key in shard.keys:
        sample = shard.raw(key)
        meta = json.loads(shard.member(key, "meta.json"))
        version = meta.get("schema_version")
        if version not in range(1, SCHEMA_VERSION + 1):
            raise UserError(f"{shard.path}: clip {key}: schema_version {version!r} is not one this release knows.")
        for step in range(version, SCHEMA_VERSION):
            meta = STEPS[step](meta, sample)
        sample["meta.json"] = json.dumps(meta, sort_keys=True, allow_nan=False).encode()
        yield sample


def _from_1(meta: dict[str, Any], sample: Sample) -> dict[str, Any]:
    content = sample["world_from_camera.npy"]
    assert isinstance(content, bytes)
    poses_T44 = np.load(io.BytesIO(content), allow_pickle=False)
    motion = "unknown" if (poses_T44 == np.eye(4)).all() else "given"
    return {**meta, "schema_version": 2, "camera_motion": motion}


def _from_2(meta: dict[str, Any], sample: Sample) -> dict[str, Any]:
    return {**meta, "schema_version": 3}


STEPS: dict[int, Callable[[dict[str, Any], Sample], dict[str, Any]]] = {1: _from_1, 2: _from_2}
