"""The simulate stage: same bytes whoever makes them, finished work is kept, other settings are refused."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from data.config import IndexConfig
from data.simulation.config import SimulateConfig
from data.simulation.jobs import episode_jobs
from data.simulation.run import run_job, simulate
from pipeline.errors import Refused
from pipeline.logs import StageLog
from tests.indexed import indexed

CONFIG = SimulateConfig(
    labelled_tasks=("button-press-v3",),
    video_only_tasks=("window-open-v3",),
    robot_episodes=1,
    hand_episodes=1,
    closeup_clips=1,
    closeup_size=(96, 64),
    closeup_seconds=0.2,
    resolution=48,
)


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """One simulate stage, by a spawned worker process."""
    out = tmp_path_factory.mktemp("run")
    assert simulate(CONFIG, out / "simulate", seed=1, workers=1, log=StageLog(out, "simulate")) == []
    return out / "simulate"


def test_another_process_and_order_gives_the_same_bytes(made, tmp_path):
    for job in reversed(episode_jobs(CONFIG, seed=1)):
        run_job(job, tmp_path)
    assert _digests(tmp_path) == _digests(made / "episodes")


def test_finished_episodes_are_kept_and_missing_ones_made_again(made, tmp_path):
    episodes = made / "episodes"
    before, times = _digests(episodes), {path: path.stat().st_mtime_ns for path in episodes.iterdir()}
    lost = episodes / "button-press-v3-hand-000.json"
    lost.unlink()
    simulate(CONFIG, made, seed=1, workers=1, log=StageLog(tmp_path, "simulate"))
    assert _digests(episodes) == before
    untouched = [path for path in times if not path.name.startswith("button-press-v3-hand")]
    assert all(path.stat().st_mtime_ns == times[path] for path in untouched)


def test_other_settings_are_refused_with_the_differing_key(made, tmp_path):
    other = CONFIG.model_copy(update={"action_noise": 0.1})
    with pytest.raises(Refused, match="action_noise"):
        simulate(other, made, seed=1, workers=1, log=StageLog(tmp_path, "simulate"))


def test_every_episode_is_an_ordinary_video_with_a_valid_sidecar(made, tmp_path):
    sources = IndexConfig.model_validate({"sources": [{"name": "simulation", "kind": "simulation"}]})
    episodes, rejected = indexed(sources, tmp_path / "index", made / "episodes")
    assert rejected == [] and len(episodes) == 5
    by_name = {episode.path.stem: episode for episode in episodes}
    robot, twin = by_name["button-press-v3-robot-000"], by_name["button-press-v3-hand-000"]
    assert robot.group == twin.group and robot.sidecar.labelled and not twin.sidecar.labelled
    assert not by_name["window-open-v3-robot-000"].sidecar.labelled
    assert all(episode.sidecar.simulated for episode in episodes)
    for episode in episodes:
        assert episode.arrays_path is not None
        with np.load(episode.arrays_path, allow_pickle=False) as arrays:
            assert all(len(arrays[name]) == episode.frames for name in arrays.files)
            assert arrays["depth"].dtype == np.uint16 and arrays["mask"].any(axis=(1, 2)).all()
            assert ("actions" in arrays.files) == episode.sidecar.labelled
        assert episode.fps == (25 if "closeup" in episode.path.stem else 20)


def test_more_episodes_do_not_change_those_there_were():
    few, more = episode_jobs(CONFIG, 1), episode_jobs(CONFIG.model_copy(update={"robot_episodes": 3}), 1)
    few_names = {name for job in few for name in job.items}
    more_names = {name for job in more for name in job.items}
    assert few_names < more_names
    assert len(more_names) == sum(len(job.items) for job in more)
    first = few[1].generator(0).random(4)
    same = next(job for job in more if (job.kind, job.task) == (few[1].kind, few[1].task))
    np.testing.assert_array_equal(first, same.generator(0).random(4))


def test_settings_start_no_simulator():
    code = "import sys, data.simulation.config, data.simulation.jobs; sys.exit('mujoco' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=False).returncode == 0


def test_unknown_task_is_answered_with_the_nearest():
    with pytest.raises(ValidationError, match="did you mean 'drawer-open-v3'"):
        SimulateConfig.model_validate({"labelled_tasks": ["drawer-opn-v3"]})
