"""Recorded expert motion: labels are what was executed, and seeds fix everything."""

import numpy as np
import pytest

from data.simulation.metaworld import (
    CONTROL_HZ,
    STEPS_PER_FRAME,
    Recording,
    environment,
    record_expert,
    reset,
    snapshot,
)
from data.simulation.mixing import mixed, mixing_matrix, unmixed
from data.simulation.retry import EMPTY_M, MISS_M
from data.simulation.wander import Wander

TASK = "drawer-close-v3"


@pytest.fixture(scope="module")
def recording() -> Recording:
    return record_expert(TASK, 0, seed=6, noise=0.3, tail_s=0.5)


def _tcp_path(recording: Recording, commands: np.ndarray) -> np.ndarray:
    env = environment(recording.task)
    reset(env, recording.seed)
    path = [env.tcp_center.copy()]
    for command in commands:
        env.step(command)
        path.append(env.tcp_center.copy())
    return np.array(path)


def test_executed_commands_replay_to_the_same_path(recording):
    expected = np.array([state.tcp for state in recording.snapshots])
    np.testing.assert_array_equal(_tcp_path(recording, recording.commands), expected)


def test_recording_does_not_depend_on_what_was_recorded_before(recording):
    record_expert(TASK, 3, seed=6)
    again = record_expert(TASK, 0, seed=6, noise=0.3, tail_s=0.5)
    np.testing.assert_array_equal(again.commands, recording.commands)
    np.testing.assert_array_equal(again.snapshots[-1].geom_position, recording.snapshots[-1].geom_position)


def test_actions_are_means_of_commands_within_bounds(recording):
    actions = recording.actions()
    assert actions.shape == (recording.frames, 4) and np.abs(actions).max() <= 1
    np.testing.assert_allclose(actions[2], recording.commands[8:12].mean(axis=0), rtol=1e-6)
    assert len(recording.snapshots) == recording.frames * STEPS_PER_FRAME + 1


def test_averaged_actions_still_solve_the_task(recording):
    env = environment(TASK)
    reset(env, recording.seed)
    success = False
    for action in np.repeat(recording.actions(), STEPS_PER_FRAME, axis=0):
        *_, info = env.step(action)
        success = success or info["success"] > 0.5
    assert success


def test_noise_changes_the_motion_but_not_the_scene(recording):
    calm = record_expert(TASK, 0, seed=6, noise=0.0)
    assert calm.seed == recording.seed
    np.testing.assert_array_equal(calm.snapshots[0].geom_position, recording.snapshots[0].geom_position)
    assert not np.array_equal(calm.commands, recording.commands)


def test_proprio_and_opening_are_metric(recording):
    proprio = recording.proprio()
    np.testing.assert_allclose(proprio[0, :3], recording.snapshots[0].tcp, rtol=1e-6)
    assert proprio[0, 3] == pytest.approx(0.088, abs=0.003)  # open gripper
    assert (proprio[:, 3] >= 0).all()


def test_wider_object_range_is_used_and_undone():
    def first_object(extra: float) -> np.ndarray:
        env = environment(TASK)
        reset(env, 11, extra)
        return env._last_rand_vec.copy()

    normal, wide, back = first_object(0.0), first_object(0.1), first_object(0.0)
    assert normal[0] != wide[0] and normal[1] == wide[1]
    np.testing.assert_array_equal(normal, back)


def test_noise_comes_in_lapses_of_the_stated_length_and_strength():
    wander = Wander(np.random.default_rng(0), 0.3, CONTROL_HZ)
    noise = np.array([wander.step() for _ in range(40_000)])
    lapse = (noise != 0).any(axis=1)
    lapses = np.flatnonzero(np.diff(lapse.astype(int)) == 1)
    assert lapse.mean() == pytest.approx(0.4, abs=0.06)
    assert len(lapses) == pytest.approx(len(noise) / CONTROL_HZ, rel=0.15)  # one begins per second on average
    assert noise[lapse].std() == pytest.approx(0.3, rel=0.1)


def test_mixing_is_undone_and_keeps_the_gripper():
    actions = np.random.default_rng(3).uniform(-1, 1, (50, 4)).astype(np.float32)
    commands = mixed(actions, 7)
    np.testing.assert_allclose(unmixed(commands, 7), actions, atol=1e-5)
    np.testing.assert_array_equal(commands[:, 3], actions[:, 3])
    assert np.abs(commands[:, :3] - actions[:, :3]).max() > 0.3
    np.testing.assert_array_equal(mixed(actions, None), actions)


def test_mixing_is_well_conditioned_whatever_the_seed():
    values = np.array([np.linalg.svd(mixing_matrix(seed))[1] for seed in range(50)])
    assert values.min() >= 0.6 and values.max() <= 1.4


def test_a_retried_grasp_closes_on_nothing_lifts_and_then_succeeds():
    """Before the jaws are shut the first time, the thing has not been taken; they open again high above it."""
    retried = record_expert("push-v3", 0, seed=4, retry_share=1.0)
    plain = record_expert("push-v3", 0, seed=4, retry_share=0.0)
    opening = np.array([state.opening for state in retried.snapshots])
    height = np.array([state.tcp[2] for state in retried.snapshots])
    shut = int(np.flatnonzero(opening < EMPTY_M)[0])
    puck = environment("push-v3").model.body("obj").geomadr[0]
    beside = retried.snapshots[shut].geom_position[puck][:2] - retried.snapshots[shut].tcp[:2]
    assert np.linalg.norm(beside) > MISS_M[0] / 2
    lifted = shut + int(np.argmax(height[shut : shut + 100]))
    assert height[lifted] > height[shut] + 0.1 and opening[lifted] > 0.05
    assert len(retried.commands) > len(plain.commands)
    assert opening[-1] > EMPTY_M  # this time the puck is between the jaws
    assert not (np.array([state.opening for state in plain.snapshots]) < EMPTY_M).any()


@pytest.mark.parametrize("task", ["drawer-open-v3", "window-close-v3", "lever-pull-v3"])
def test_what_is_seen_at_the_start_is_where_things_are(task):
    """Nothing has been touched after one control step, so only the hand may have moved since the start."""
    env = environment(task)
    for seed in (1, 2):
        observation = reset(env, seed, 0.1)
        before = snapshot(env).geom_position
        later, *_ = env.step(np.zeros(4, np.float32))
        things = env.model.geom_bodyid > env.model.body("leftpad").id
        np.testing.assert_allclose(before[things], snapshot(env).geom_position[things], atol=0.004)
        np.testing.assert_allclose(observation[4:7], later[4:7], atol=0.004)
