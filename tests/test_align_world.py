"""A simulated task in a process of its own: it shows what rollouts see, and answers every question."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from align.config import RolloutConfig
from align.episode import show
from align.eyes import Eyes
from align.followers import following
from align.framed import receive, send
from align.lerobot_plugin.names import GRASP, INTRINSICS, OBSERVATION, OPENING, POINTS, VISIBLE
from align.lerobot_plugin.simulated import SimulatedEnv, Where
from align.origin import policy_folder
from align.world.cli import serve
from align.world.world import World
from data.simulation.config import SimulateConfig
from data.simulation.environment import TaskEnvironment
from data.simulation.scene import random_look
from extract.config import ExtractConfig
from extract.effector import Camera
from extract.mask.extractor import NAME as MASKS
from pipeline.config import Config
from pretrain.model.configuration_kinecloud import KinecloudConfig
from tests.align_runs import ROOT, simulated_run

TASK, SEED = "drawer-close-v3", 11
ACTIONS = np.array([[0.5, -0.3, 0.2, -1], [0, 1, 0, 1], [-1, 0.4, -0.6, 1]], np.float32)


@pytest.fixture(scope="module")
def aligned(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return simulated_run(tmp_path_factory.mktemp("aligned"), (TASK,))


@pytest.fixture(scope="module")
def simulated(aligned: Config) -> Iterator[SimulatedEnv]:
    """The task behind a process, as lerobot has it."""
    environment = SimulatedEnv(Where(str(ROOT), sys.executable, str(aligned.path), (), TASK))
    yield environment
    environment.close()


def as_rollouts_see(config: Config) -> list[dict[str, np.ndarray]]:
    """The views of an episode under the fixed actions, by the means of the rollout stage."""
    policy = KinecloudConfig.from_pretrained(policy_folder(config))
    follow = following(MASKS, config.section("extract", ExtractConfig), config.folder("extract"))
    jitter_m, seen = config.section("simulate", SimulateConfig).camera_jitter_m, []
    with TaskEnvironment(TASK, 64) as environment:
        observation = environment.reset(SEED, random_look(np.random.default_rng([config.run.seed, SEED]), jitter_m))
        eyes = Eyes(Camera(environment.intrinsics, environment.image_size, "given"), follow, policy, 256)
        for action in (None, *ACTIONS):
            if action is not None:
                environment.step(action)
                observation = environment.observe()
            show(observation, eyes, follow.sensors)
            view = eyes.view()
            assert view is not None
            past = view.past
            cloud = {POINTS: past.clouds_PN3[-1], VISIBLE: past.visible_PN[-1], GRASP: past.grasp_P3[-1]}
            cloud |= {OPENING: past.opening_P[-1:], INTRINSICS: view.intrinsics_33.astype(np.float32)}
            seen.append({name.removeprefix(OBSERVATION): array for name, array in cloud.items()})
            seen[-1] |= {"picture": view.image, "proprio": observation.proprio}
    return seen


def test_an_episode_is_what_rollouts_see(aligned: Config, simulated: SimulatedEnv) -> None:
    first, info = simulated.reset(seed=SEED)
    found, ended = [first], [False]
    for action in ACTIONS:
        observation, reward, terminated, truncated, info = simulated.step(action)
        assert reward == float(terminated) == float(info["is_success"])
        found.append(observation)
        ended.append(terminated or truncated)
    assert ended == [False] * 4
    for step, (ours, theirs) in enumerate(zip(found, as_rollouts_see(aligned), strict=True)):
        assert simulated.observation_space.contains(ours), step
        np.testing.assert_array_equal(ours["pixels"]["camera"], theirs.pop("picture"))
        np.testing.assert_array_equal(ours["agent_pos"], theirs.pop("proprio"))
        for name, array in theirs.items():
            np.testing.assert_array_equal(ours[name], array, err_msg=f"{step} {name}")
    assert not np.array_equal(found[0]["kinecloud.points"], found[-1]["kinecloud.points"])


def test_time_ends_an_episode_and_a_new_one_begins(aligned: Config, simulated: SimulatedEnv) -> None:
    seconds = aligned.section("rollout", RolloutConfig).max_seconds
    assert simulated._max_episode_steps == round(20 * seconds) == 8
    assert simulated.task_description == "close the drawer"
    simulated.reset(seed=1)
    ended = [simulated.step(np.zeros(4, np.float32))[2:4] for _ in range(8)]
    assert ended == [(False, False)] * 7 + [(False, True)]
    again, _ = simulated.reset(seed=1)
    other, _ = simulated.reset()
    assert simulated.render().shape == (64, 64, 3)
    assert not np.array_equal(again["pixels"]["camera"], other["pixels"]["camera"])


def test_a_wrong_action_is_told_and_the_episode_goes_on(simulated: SimulatedEnv) -> None:
    simulated.reset(seed=SEED)
    for wrong in (np.zeros(3), np.full(4, np.nan)):
        with pytest.raises(RuntimeError, match=r"action: found .*; expected \[4\] finite numbers"):
            simulated.step(wrong)
    assert simulated.step(ACTIONS[0])[3] is False


def test_a_question_that_is_none_is_told(aligned: Config) -> None:
    questions, answers = io.BytesIO(), io.BytesIO()
    send(questions, {"colour": "blue"})
    questions.seek(0)
    serve(World(aligned, TASK), questions, answers)
    answers.seek(0)
    first, second = receive(answers), receive(answers)
    assert first is not None and first["actions"].tolist() == ["dx", "dy", "dz", "gripper"]
    assert second is not None and str(second["error"]) == "question: found colour; expected seed or action"
    assert receive(answers) is None


def test_a_process_that_was_killed_is_told(aligned: Config) -> None:
    environment = SimulatedEnv(Where(str(ROOT), sys.executable, str(aligned.path), (), TASK))
    os.kill(environment._world._process.pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match="align world ended with exit code -9"):
        environment.reset(seed=SEED)
    environment.close()
    environment.close()
    world = environment._world
    assert world._errors.closed and world._process.stdout is not None and world._process.stdout.closed


def test_a_process_that_ends_while_it_answers_is_told(tmp_path: Path) -> None:
    (tmp_path / "align").mkdir()
    (tmp_path / "align" / "__main__.py").write_text(
        "import os, sys\nos.write(1, (100).to_bytes(8, 'little') + b'half')\nsys.exit('no memory left')\n"
    )
    with pytest.raises(RuntimeError, match="align world ended with exit code 1:\nno memory left"):
        SimulatedEnv(Where(str(tmp_path), sys.executable, "unread.yaml", (), TASK))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "fold-v9"}, r"--task fold-v9: not a task of the simulator; known: .*drawer-close-v3"),
        ({"overrides": ("run.out=nowhere",)}, r"(?s)exit code 2:.*align.*has not"),
        ({"python": "no/python"}, r"env.python: found no .*no/python; expected .*install.sh"),
    ],
)
def test_what_cannot_start_is_told(aligned: Config, change: dict[str, str], message: str) -> None:
    where = {"python": sys.executable, "overrides": (), "task": TASK} | change
    with pytest.raises(RuntimeError, match=message):
        SimulatedEnv(Where(str(ROOT), config=str(aligned.path), **where))


def test_messages_are_whole_and_hold_arrays_alone() -> None:
    stream = io.BytesIO()
    send(stream, {"a": np.arange(3), "text": "née", "yes": True})
    whole = stream.getvalue()
    message = receive(io.BytesIO(whole))
    assert message is not None and message["a"].tolist() == [0, 1, 2]
    assert str(message["text"]) == "née" and bool(message["yes"]) is True
    assert receive(io.BytesIO()) is None
    npy = io.BytesIO()
    np.save(npy, np.arange(3))
    for cut in (4, len(whole) - 1):
        with pytest.raises(ValueError, match="message: found"):
            receive(io.BytesIO(whole[:cut]))
    for body in (b"", b"PK\x03\x04" + bytes(40), npy.getvalue()):
        with pytest.raises(ValueError, match="expected an npz archive"):
            receive(io.BytesIO(len(body).to_bytes(8, "little") + body))
    with pytest.raises(ValueError, match="expected a length of at most"):
        receive(io.BytesIO(b"\xff" * 20))
    pickled = io.BytesIO()
    send(pickled, {"a": np.array([{}], object)})
    pickled.seek(0)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        receive(pickled)
