"""What the benchmark of pretraining learns from and is judged on: simulated clips, made by the project's own stages.

Training and tuning clips are one run (simulate, index, extract, pack), test clips another with other seeds: other
starts of the same tasks, with other looks, hands and cameras. Everything is kept and goes on where it was.

Shapes: T frames, N points, H x W pixels.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from data.clips import Clip, Shard, write_shard
from data.index import Episode, read_index
from data.pack import packed
from data.reader import EpisodeReader
from extract.depth.sensor import SensorDepth, SensorDepthSettings
from extract.lift.unproject import Unproject, UnprojectConfig
from extract.passage import camera_of
from extract.steps import Shot
from extract.track.chaining import inside
from extract.track.lucas_kanade import LucasKanade, LucasKanadeConfig
from pipeline.atomic import publishing_dir, write_bytes, write_json
from pipeline.fingerprint import digest, is_done, mark_done, read_done
from pipeline.units import finished_shards
from pretrain.shards import identities

TASKS = {
    "labelled_tasks": ["drawer-close-v3", "window-close-v3", "button-press-v3", "faucet-close-v3"],
    "video_only_tasks": ["drawer-open-v3", "window-open-v3"],
}
# A hand shows the motion of the robot episode of its number: beyond those, people show what no robot did.
EPISODES = {
    "train": {"robot_episodes": 12, "hand_episodes": 16},
    "test": {"robot_episodes": 8, "hand_episodes": 6},
}
SEEDS = {"train": 0, "test": 1}
RATE_HZ = 20
GRID = 14  # points along each side of the picture: 196, where clips of effectors have 200
# Small patches, as a point beside the effector must not follow it, and no common motion of all points.
GRID_TRACKER = LucasKanadeConfig(patch=0.1, levels=2, anchor=False)
ON_EFFECTOR = "grid_on_effector"
GRID_LIFT = UnprojectConfig(give_m=0.1, settle_below=0)  # each point at its own depth; the scene is not one solid


@dataclass(frozen=True)
class Data:
    """Shards to train on, to tune on and to test on; ``grid``: those to train on with points all over the picture.
    facts: what there is, for the page."""

    train: list[Path]
    val: list[Path]
    test: list[Path]
    grid: list[Path]
    facts: dict[str, Any]

    @property
    def identity(self) -> dict[str, Any]:
        """SHA-256 of all shards, by use."""
        return {name: identities(getattr(self, name)) for name in ("train", "val", "test", "grid")}


def make_data(cache: Path, jobs: int, episodes: dict[str, dict[str, int]] = EPISODES) -> Data:
    """Makes what is not there yet, with ``jobs`` processes."""
    configs = {split: _config(split, episodes[split]) for split in episodes}
    folder = cache / f"data-{digest(configs)[:12]}"
    for split, raw in configs.items():
        _run(raw, folder / split, jobs)
    train, val = (packed(folder / "train" / "pack", split) for split in ("train", "val"))
    test = [path for path, _ in finished_shards(folder / "test" / "extract")]
    grid = grid_shards(train, folder / "train" / "index", folder / "grid")
    facts: dict[str, Any] = {name: _facts(part) for name, part in (("train", train), ("val", val), ("test", test))}
    on_effector = [shard.meta(key).quality[ON_EFFECTOR] for shard in map(Shard, grid) for key in shard.keys]
    facts[ON_EFFECTOR] = float(np.mean(on_effector))
    return Data(train, val, test, grid, facts)


def _config(split: str, episodes: dict[str, int]) -> dict[str, Any]:
    stages: dict[str, Any] = {
        "simulate": {**TASKS, **episodes, "closeup_clips": 0},
        "index": {"sources": [{"name": "simulated", "kind": "simulation", "license": "Apache-2.0"}]},
        "extract": {"rate_hz": RATE_HZ},
    }
    if split == "train":
        stages["pack"] = {"val_fraction": 0.2}
    return {"run": {"seed": SEEDS[split]}, **stages}


def _run(raw: dict[str, Any], out: Path, jobs: int) -> None:
    path = out / "benchmark.yaml"
    raw = raw | {"run": raw["run"] | {"out": str(out), "workers": jobs}}
    write_bytes(path, yaml.safe_dump(raw, sort_keys=False).encode())
    if read_done(out) is not None:
        return
    _stages(path, "--until", "simulate")
    for sidecar in sorted((out / "simulate" / "episodes").glob("*.json")):
        # the motion of seed 1 is another than that of seed 0, whatever its number
        stored, name = json.loads(sidecar.read_text()), f"seed-{raw['run']['seed']}"
        if not stored["group"].startswith(name):
            write_json(sidecar, stored | {"group": f"{name}-{stored['group']}"})
    _stages(path, "--from", "index")
    mark_done(out, {"benchmark": "data", "config": raw["run"]["seed"]})


def _stages(config: Path, *options: str) -> None:
    subprocess.run([sys.executable, "-m", "pipeline", "run", str(config), *options], check=True, env=os.environ)


def _facts(shards: list[Path]) -> dict[str, Any]:
    metas = [shard.meta(key) for shard in map(Shard, shards) for key in shard.keys]
    return {
        "clips": len(metas),
        "motions": len({meta.group for meta in metas}),
        "robot_clips": sum(meta.embodiment != "human-hand" for meta in metas),
        "hand_clips": sum(meta.embodiment == "human-hand" for meta in metas),
        "frames": sum(len(meta.source_frames) for meta in metas),
    }


def grid_shards(shards: list[Path], index: Path, out: Path) -> list[Path]:
    """The same shards in ``out``, of clips with points all over the picture; returns those to train on.

    index: that of the clips' episodes, which must have depth.
    """
    document = {"benchmark": "grid", "version": 2, "shards": identities(shards), "side": GRID}
    document |= {"tracker": GRID_TRACKER.model_dump(), "lift": GRID_LIFT.model_dump()}
    if not is_done(out, document):
        by_id = {episode.episode_id: episode for episode in read_index(index)}
        with publishing_dir(out) as temporary:
            for path in shards:
                clips = Shard(path).clips()
                write_shard(temporary / path.name, (grid_clip(clip, by_id[clip.meta.episode_id]) for clip in clips))
            mark_done(temporary, document)
    return packed(out, "train")


def grid_clip(clip: Clip, episode: Episode) -> Clip:
    """The same clip with points that start as a uniform grid over its middle frame, effector or not: tracked and lifted
    as extraction does it, from the episode's own depth."""
    wanted = set(clip.meta.source_frames)
    frames = [frame for frame in EpisodeReader(episode).frames(RATE_HZ) if frame.index in wanted]
    shot = Shot(frames, camera_of(episode, 60.0))
    height, width = frames[0].image.shape[:2]
    everywhere = [np.ones((height, width), bool)] * len(frames)
    middle, pixels_N2 = len(frames) // 2, grid_pixels(height, width)
    tracks = LucasKanade(GRID_TRACKER).follow(shot, everywhere, pixels_N2, middle)
    depth = SensorDepth(SensorDepthSettings())(shot, [])
    lifted = Unproject(GRID_LIFT)(shot, everywhere, tracks, depth)
    arrays = {name: array for name, array in clip.arrays.items() if name != "raw_points"}
    arrays |= {"points": lifted.points, "visible": lifted.visible, "sigma": lifted.sigma}
    quality = clip.meta.quality | {ON_EFFECTOR: float(inside(frames[middle].mask, pixels_N2).sum())}
    return replace(clip, arrays=arrays, meta=clip.meta.model_copy(update={"quality": quality}))


def grid_pixels(height: int, width: int) -> np.ndarray:
    """f64 [GRID^2,2]: x, y at the centres of equal cells of the picture."""
    y, x = np.mgrid[:GRID, :GRID] + 0.5
    return np.stack([x * width / GRID, y * height / GRID], -1).reshape(-1, 2)
