"""Other sensors than the simulator's truth: what is told, what is withheld, and no picture is made again."""

import json
from pathlib import Path

import numpy as np
import pytest

from data.simulation.config import SimulateConfig
from data.simulation.jobs import episode_jobs
from data.simulation.run import run_job
from data.simulation.sensors import derive
from pipeline.errors import UserError

SETTINGS = {
    "labelled_tasks": ("button-press-v3",),
    "video_only_tasks": ("window-open-v3",),
    "robot_episodes": 2,
    "labelled_episodes": 1,
    "hand_episodes": 1,
    "hand_first": 2,
    "closeup_clips": 0,
    "resolution": 32,
    "action_noise": 0.0,
    "tail_seconds": 0.0,
}
LABELLED, UNLABELLED = "button-press-v3-robot-000", "button-press-v3-robot-001"
HAND, VIDEO_ONLY = "button-press-v3-hand-000", "window-open-v3-robot-000"


def _make(folder: Path, **changed) -> Path:
    folder.mkdir()
    for job in episode_jobs(SimulateConfig.model_validate({**SETTINGS, **changed}), seed=3):
        run_job(job, folder)
    return folder


def _read(folder: Path, name: str) -> tuple[dict, set[str]]:
    with np.load(folder / f"{name}.npz") as arrays:
        return json.loads((folder / f"{name}.json").read_text()), set(arrays.files)


def _told(names: set[str]) -> set[str]:
    return {name for name in names if not name.startswith("truth_")}


@pytest.fixture(scope="module")
def truth(tmp_path_factory) -> Path:
    return _make(tmp_path_factory.mktemp("made") / "truth")


def test_truth_tells_actor_and_grasp(truth):
    sidecar, names = _read(truth, VIDEO_ONLY)
    assert {"mask", "actor", "depth", "grasp", "opening", "base_from_effector"} <= names
    assert sidecar["effector"] == "mask"


@pytest.mark.parametrize(("sensors", "seen"), [("rgbd", {"depth"}), ("rgb", set())])
def test_only_labelled_robots_tell_more_than_their_camera(truth, tmp_path, sensors, seen):
    assert derive(truth, tmp_path, sensors) == 6
    for name, effector in ((UNLABELLED, "gripper"), (VIDEO_ONLY, "gripper"), (HAND, "hand")):
        sidecar, names = _read(tmp_path, name)
        assert sidecar["effector"] == effector and sidecar["labelled"] is False and sidecar["action_spec"] is None
        assert _told(names) == seen
        assert {"truth_tcp", "truth_opening", "truth_world_from_camera"} <= names  # for scores
    sidecar, names = _read(tmp_path, LABELLED)
    assert sidecar["effector"] == "gripper" and sidecar["labelled"] is True
    recorded = {"base_from_effector", "opening", "actions", "proprio"}
    assert _told(names) == seen | recorded | {"world_from_camera"}


def test_derived_episodes_are_those_that_would_have_been_made(truth, tmp_path):
    derive(truth, tmp_path / "derived", "rgbd")
    made = _make(tmp_path / "made", sensors="rgbd", video_only_tasks=(), hand_episodes=0)
    for path in sorted(made.iterdir()):
        assert (tmp_path / "derived" / path.name).read_bytes() == path.read_bytes()
    derived = (tmp_path / "derived" / f"{HAND}.mp4").stat()
    assert derived.st_ino == (truth / f"{HAND}.mp4").stat().st_ino  # linked, not rendered


def test_hands_can_show_motions_that_no_robot_shows(truth):
    groups = {name: _read(truth, name)[0]["group"] for name in (LABELLED, UNLABELLED, HAND)}
    assert groups[HAND] == "button-press-v3-002" and len(set(groups.values())) == 3
    seeds = [_read(truth, name)[0]["seed"] for name in groups]
    assert len(set(seeds)) == 3


def test_derive_refuses_what_holds_no_truth(truth, tmp_path):
    with pytest.raises(UserError, match="no finished simulated episode"):
        derive(tmp_path, tmp_path / "out", "rgb")
    derive(truth, tmp_path / "rgb", "rgb")
    with pytest.raises(UserError, match=r"depth, mask is missing; derive from .*sensors: truth"):
        derive(tmp_path / "rgb", tmp_path / "rgbd", "rgbd")
