"""A small pretrained and aligned run on made-up clips, for the tests of alignment, rollout and export."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from align.train import align
from data.clips import Clip, write_shard
from data.simulation.metaworld import ACTION_SPEC
from extract.mask.extractor import NAME as MASKS
from pipeline.config import Config, load
from pretrain.train import pretrain
from tests.pretrain_clips import moving_clip, write_clips

ROOT = Path(__file__).parents[1]


def config_file(
    folder: Path, shards: tuple[Path, Path], pretrain: dict[str, Any] | None = None, **align_changes: Any
) -> Path:
    """The configuration of a run in ``folder`` on two shards. pretrain: changes of that section."""
    common = {
        "train_shards": [str(shards[0])],
        "val_shards": [str(shards[1])],
        "batch_size": 8,
        "checkpoint_every": 2,
        "warmup_steps": 1,
        "threads": 1,
        "device": "cpu",
    }
    document = {
        "run": {"out": str(folder / "run"), "seed": 3},
        "pretrain": {
            **common,
            "window": {"image_size": 32, "points": 12},
            "model": {"width": 32, "layers": 1, "heads": 2, "slots": 2},
            "steps": 2,
            **(pretrain or {}),
        },
        "align": {**common, "points": 12, "action_chunk": 4, "steps": 4, **align_changes},
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def pretrained(folder: Path, labelled: bool = True, **align_changes: Any) -> Config:
    """A run with a pretrained predictor."""
    config = load(config_file(folder, write_clips(folder / "clips", labelled=labelled), **align_changes))
    pretrain(config, resume=True)
    return config


def aligned(folder: Path, **align_changes: Any) -> Config:
    """A run with an aligned policy."""
    config = pretrained(folder, **align_changes)
    align(config, resume=True)
    return config


def command(*arguments: Any, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs this Python in a process of its own."""
    everything = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | environment
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, env=everything, capture_output=True, text=True
    )


def simulated_run(folder: Path, tasks: Sequence[str], max_seconds: float = 0.4) -> Config:
    """A run whose policy fits the simulator, though it knows nothing; its clips are labelled as of the first task."""
    shards = folder / "train.tar", folder / "val.tar"
    for number, shard in enumerate(shards):
        write_shard(shard, (_simulator_clip(10 * number + n, tasks[0]) for n in range(4)))
    path = config_file(folder, shards)
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    document["rollout"] = {"tasks": list(tasks), "episodes": 1, "max_seconds": max_seconds}
    document["simulate"] = {"resolution": 64}
    path.write_text(yaml.safe_dump(document))
    config = load(path)
    pretrain(config, resume=True)
    align(config, resume=True)
    return config


def _simulator_clip(number: int, task: str) -> Clip:
    """A made-up clip with labels of the simulator's kind."""
    clip = moving_clip(number, labelled=True)
    random = np.random.default_rng(number)
    arrays = {name: random.uniform(-1, 1, (clip.frames, 4)).astype(np.float32) for name in ("actions", "proprio")}
    meta = clip.meta.model_dump() | {"action_spec": ACTION_SPEC, "embodiment": "sawyer-gripper", "task": task}
    meta["extractor"] = MASKS
    return replace(clip, arrays=clip.arrays | arrays, meta=type(clip.meta).model_validate(meta))
