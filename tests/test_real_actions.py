"""The shipped configurations for labelled data sets of others, in small, on a real robot's actions."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align.evaluate import MEAN, POLICY, REPEAT
from data.clips import Clip, Shard
from data.index import read_index
from data.reader import EpisodeReader
from pipeline.errors import UserError
from tests.benchmarks.real_actions import DATA_SETS, footage_of_data_sets

ROOT = Path(__file__).resolve().parent.parent
SMALL = ("pretrain.steps=2", "pretrain.batch_size=4", "align.steps=2", "align.batch_size=4", "align.action_chunk=4")


def aligned(config: str, run: Path, data_set: Path, *settings: str) -> tuple[dict[str, Any], dict[str, list[Clip]]]:
    """What align/eval.json says after a short run, and the clips of each split."""
    said = (f"run.out={run}", f"index.sources.0.path={data_set}", "index.sources.0.cameras=[image_0]", *SMALL)
    overrides = [part for setting in (*said, *settings) for part in ("--set", setting)]
    command = [sys.executable, "-m", "pipeline", "run", f"pipeline/configs/{config}", "--until", "align", *overrides]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    shards = {
        split: [Shard(path) for path in sorted((run / "pack").glob(f"{split}-*.tar"))] for split in ("train", "val")
    }
    clips = {split: [shard.clip(key) for shard in found for key in shard.keys] for split, found in shards.items()}
    return json.loads((run / "align/eval.json").read_text()), clips


def test_a_labelled_data_set_becomes_a_policy_whose_errors_stand_beside_references(
    footage: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    evaluated, clips = aligned("data_set.yaml", run, footage / "robot/bridge_rlds")
    assert set(evaluated["errors"]) == {POLICY, REPEAT, MEAN}
    assert len(clips["train"]) + len(clips["val"]) == 25
    assert evaluated["episodes"] == len({clip.meta.group for clip in clips["val"]}) > 0
    episodes = {episode.episode_id: episode for episode in read_index(run / "index")}
    for clip in clips["val"]:
        recorded = EpisodeReader(episodes[clip.meta.episode_id]).arrays["actions"]
        np.testing.assert_array_equal(clip.arrays["actions"], recorded)
    mean_A = np.concatenate([clip.arrays["actions"] for clip in clips["train"]]).mean(0)
    first_A = np.concatenate([np.abs(clip.arrays["actions"] - mean_A) for clip in clips["val"]]).mean(0)
    np.testing.assert_allclose(evaluated["errors"][MEAN]["first"], first_A, rtol=0.2)


def test_videos_without_labels_are_learned_from_beside_it(footage: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "signing.mp4").symlink_to(footage / "human/asl_hand/asl_hand.mp4")
    evaluated, clips = aligned(
        "data_set_and_videos.yaml", tmp_path / "run", footage / "robot/bridge_rlds", f"index.sources.1.path={videos}"
    )
    assert {clip.meta.source for clip in clips["train"]} == {"robot", "videos"}
    every = [clip for found in clips.values() for clip in found]
    assert sum(clip.meta.action_spec is not None for clip in every) == 25
    assert not any("actions" in clip.arrays for clip in every if clip.meta.source == "videos")
    held_out = {clip.meta.group for clip in clips["val"] if clip.meta.action_spec is not None}
    assert evaluated["episodes"] == len(held_out) > 0


def test_the_benchmark_names_the_footage_that_it_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KINECLOUD_FOOTAGE", raising=False)
    with pytest.raises(UserError, match="KINECLOUD_FOOTAGE") as unset:
        footage_of_data_sets()
    assert all(each.folder in str(unset.value) for each in DATA_SETS)
    monkeypatch.setenv("KINECLOUD_FOOTAGE", str(tmp_path))
    (tmp_path / DATA_SETS[0].folder).mkdir(parents=True)
    with pytest.raises(UserError, match=DATA_SETS[1].folder) as lacking:
        footage_of_data_sets()
    assert DATA_SETS[0].folder not in str(lacking.value)
    (tmp_path / DATA_SETS[1].folder).mkdir(parents=True)
    assert footage_of_data_sets() == tmp_path
