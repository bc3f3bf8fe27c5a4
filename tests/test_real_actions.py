"""The shipped configuration for labelled data sets of others, in small, on a real robot's actions."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from align.evaluate import MEAN, POLICY, REPEAT
from data.clips import Shard
from data.index import read_index
from data.reader import EpisodeReader

ROOT = Path(__file__).resolve().parent.parent
SMALL = ("pretrain.steps=2", "pretrain.batch_size=4", "align.steps=2", "align.batch_size=4", "align.action_chunk=4")


def test_a_labelled_data_set_becomes_a_policy_whose_errors_stand_beside_references(
    footage: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    said = (
        f"run.out={run}",
        f"index.sources.0.path={footage / 'robot/bridge_rlds'}",
        "index.sources.0.cameras=[image_0]",
        *SMALL,
    )
    overrides = [part for setting in said for part in ("--set", setting)]
    command = [
        sys.executable,
        "-m",
        "pipeline",
        "run",
        "pipeline/configs/data_set.yaml",
        "--until",
        "align",
        *overrides,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    evaluated = json.loads((run / "align/eval.json").read_text())
    assert set(evaluated["errors"]) == {POLICY, REPEAT, MEAN}
    shards = {
        split: [Shard(path) for path in sorted((run / "pack").glob(f"{split}-*.tar"))] for split in ("train", "val")
    }
    clips = {split: [shard.clip(key) for shard in found for key in shard.keys] for split, found in shards.items()}
    assert len(clips["train"]) + len(clips["val"]) == 25
    assert evaluated["episodes"] == len({clip.meta.group for clip in clips["val"]}) > 0
    episodes = {episode.episode_id: episode for episode in read_index(run / "index")}
    for clip in clips["val"]:
        recorded = EpisodeReader(episodes[clip.meta.episode_id]).arrays["actions"]
        np.testing.assert_array_equal(clip.arrays["actions"], recorded)
    mean_A = np.concatenate([clip.arrays["actions"] for clip in clips["train"]]).mean(0)
    first_A = np.concatenate([np.abs(clip.arrays["actions"] - mean_A) for clip in clips["val"]]).mean(0)
    np.testing.assert_allclose(evaluated["errors"][MEAN]["first"], first_A, rtol=0.2)
