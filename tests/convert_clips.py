"""Clips of all kinds, shards of them, and conversion there and back, for the tests of ``data convert``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from data.clips import Clip, encode_depth_mm, encode_image, write_shard
from data.convert.from_lerobot import from_lerobot
from data.convert.stored import open_sets
from data.convert.to_lerobot import Summary
from data.convert.write import Limits

ROOMY = Limits(100 << 20, 1000)
Make = Callable[..., Clip]


def with_scene(clip: Clip) -> Clip:
    """The clip with grasp points, unknown at first, and a grey scene that comes nearer."""
    grasp = clip.arrays["points"].mean(1)
    grasp[0] = np.nan
    scene = encode_image(np.full((48, 64, 3), 90, np.uint8))
    depths = [encode_depth_mm(np.full((48, 64), 1.5 - 0.01 * frame, np.float32)) for frame in range(clip.frames)]
    return dataclasses.replace(clip, arrays=clip.arrays | {"grasp": grasp}, scenes=[scene] * clip.frames, depths=depths)


def uneven(clip: Clip) -> Clip:
    """The clip with times that jitter, points as they were before smoothing, and openings of odd bits.

    These are NaN of two kinds, one with the sign set, and negative zero: equal to others, but for their bits.
    """
    odd = np.array([0x7FC12345, 0xFFC00001, 0x80000000], np.uint32).view(np.float32)
    times = clip.arrays["timestamps"] + np.random.default_rng(0).uniform(0, 0.01, clip.frames)
    changed = {
        "timestamps": times + 1000 / 3,
        "raw_points": clip.arrays["points"] + np.float32(0.001),
        "opening": np.concatenate([odd, clip.arrays["opening"][3:]]),
    }
    return dataclasses.replace(clip, arrays=clip.arrays | changed)


def assorted(make_clip: Make) -> list[Clip]:
    """Two of each: plain, labelled, with scenes, uneven, with other points; and one frame alone."""
    clips = [make_clip(number, frames=8 + number) for number in range(2)]
    clips += [make_clip(number, frames=8 + number, labelled=True) for number in range(2, 4)]
    clips += [with_scene(make_clip(number, frames=8 + number, labelled=number == 5)) for number in range(4, 6)]
    clips += [uneven(make_clip(number, frames=8 + number)) for number in range(6, 8)]
    clips += [make_clip(number, frames=8 + number, points=7) for number in range(8, 10)]
    return [*clips, make_clip(10, frames=1)]


def write_shards(folder: Path, clips: list[Clip], per_shard: int = 4) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for start in range(0, len(clips), per_shard):
        paths.append(folder / f"train-{start // per_shard:05d}.tar")
        write_shard(paths[-1], clips[start : start + per_shard])
    return paths


def back(folder: Path, out: Path) -> Summary:
    return from_lerobot(open_sets(folder), out)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def tables(root: Path) -> list[Any]:
    return [pq.read_table(path) for path in sorted((root / "data").glob("*/*.parquet"))]


def info_of(root: Path) -> dict[str, Any]:
    return json.loads((root / "meta/info.json").read_text())
