"""Bringing shards of an older schema version up to this release's.

Version 1 knew nothing of camera motion: identity poses meant both a static camera and one that nobody had looked at.
They become ``unknown``, as no more can be told from the clip; poses that the source gave become ``given``.

Version 2 knew no grasp points, pictures of the scene or depth. All of them are optional: its clips have none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.clips import Shard, write_samples
from data.schema import SCHEMA_VERSION
from pipeline.atomic import publishing
from pipeline.errors import UserError

Sample = dict[str, bytes | str]


def targets(paths: Sequence[Path], out: Path) -> list[Path]:
    """Where each of the shards goes, ``out/NAME.tar``.

    Raises UserError where two would go to one place, or one over any of them.
    """
    found = [out / path.name for path in paths]
    for number, (path, target) in enumerate(zip(paths, found, strict=True)):
        if target in found[:number]:
            other = paths[found.index(target)]
            raise UserError(
                f"{path}: {other} has the same name. Bring them up one after the other, each into a folder."
            )
        if target.resolve() in {one.resolve() for one in paths}:
            raise UserError(f"--out {out}: {target} is one of the shards. Name another folder.")
    return found


def upgrade(path: Path, target: Path) -> int:
    """Writes the shard at ``path`` as ``target`` in this release's version; returns its number of clips.

    Raises UserError for a shard that cannot be read, or is newer than this release.
    """
    shard = Shard(path)
    with publishing(target) as temporary:
        return write_samples(temporary, _upgraded(shard))


def _upgraded(shard: Shard) -> Iterator[Sample]:
    for key in shard.keys:
        sample = shard.raw(key)
        try:
            meta = json.loads(shard.member(key, "meta.json"))
            version = meta["schema_version"]
            if not isinstance(version, int) or version not in range(1, SCHEMA_VERSION + 1):
                raise UserError(f"{shard.path}: clip {key}: schema_version {version!r} is not one this release knows.")
            for step in range(version, SCHEMA_VERSION):
                meta = STEPS[step](meta, shard, key)
            sample["meta.json"] = json.dumps(meta, sort_keys=True, allow_nan=False).encode()
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(
                f"{shard.path}: clip {key}: cannot be brought up ({error!r}). `python -m data verify` tells what is "
                "wrong with the shard."
            ) from None
        yield sample


def _from_1(meta: dict[str, Any], shard: Shard, key: str) -> dict[str, Any]:
    motion = "unknown" if (shard.array(key, "world_from_camera") == np.eye(4)).all() else "given"
    return {**meta, "schema_version": 2, "camera_motion": motion}


def _from_2(meta: dict[str, Any], shard: Shard, key: str) -> dict[str, Any]:
    return {**meta, "schema_version": 3}


STEPS: dict[int, Callable[[dict[str, Any], Shard, str], dict[str, Any]]] = {1: _from_1, 2: _from_2}
