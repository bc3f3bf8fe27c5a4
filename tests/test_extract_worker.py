"""A unit of extraction: what is wrong with one of its episodes is told of that one, and the others go on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from data.config import IndexConfig
from extract.config import ExtractConfig
from extract.worker import ExtractTask, make_handler
from pipeline.units import Unit
from tests.disc_videos import write_disc
from tests.indexed import indexed

FRAMES = 24


def test_poses_that_are_not_rigid_cost_their_episode_and_no_other(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    slide = np.linspace(0, 0.05, FRAMES)[:, None] * [1, 0]
    poses = {"stretched": 2 * np.eye(4), "unknown": np.full((4, 4), np.nan), "resting": np.eye(4)}
    for number, (name, pose) in enumerate(poses.items()):
        write_disc(videos / f"{name}.mp4", slide + 0.01 * number)
        np.savez(videos / f"{name}.npz", base_from_effector=np.tile(pose, (FRAMES, 1, 1)))
        told = {"effector": "gripper", "arrays": f"{name}.npz"}
        (videos / f"{name}.json").write_text(json.dumps(told))
    write_disc(videos / "z.mp4", slide)
    config = IndexConfig.model_validate({"sources": [{"name": "mine", "path": str(videos)}]})
    episodes, _ = indexed(config, tmp_path / "index")
    settings = ExtractConfig.model_validate({"gripper": {"detect": "proprio"}, "mask": {"points": 20}})
    handle = make_handler(settings, tmp_path / "extract", {}, overlap=False)
    unit = Unit("unit-0", tuple(episode.episode_id for episode in episodes))
    done = handle(ExtractTask(unit, tuple(episodes)), {}, lambda item: None)
    told = {one["item"].rsplit("-", 1)[0]: (one["reason"], one["detail"]) for one in done["rejections"]}
    assert {name: reason for name, (reason, _) in told.items()} == {
        "stretched": "bad_arrays", "unknown": "bad_arrays", "resting": "too_little_motion",
    }  # fmt: skip
    assert "frame 0 is no rigid pose ([[2.0, 0.0, 0.0, 0.0]" in told["stretched"][1]
    assert [account["clips"] for name, account in done["episodes"].items() if name.startswith("z-")] == [1]
