"""Recorded expert motion: labels are what was executed, and seeds fix everything."""

import numpy as np
import pytest

from data.simulation.metaworld import STEPS_PER_FRAME, Recording, environment, record_expert, reset

TASK = "drawer-close-v3"


@pytest.fixture(scope="module")
def recording() -> Recording:
    return record_expert(TASK, 0, seed=5, noise=0.3, tail_s=0.5)


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
    record_expert(TASK, 3, seed=5)
    again = record_expert(TASK, 0, seed=5, noise=0.3, tail_s=0.5)
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
    calm = record_expert(TASK, 0, seed=5, noise=0.0)
    assert calm.seed == recording.seed
    np.testing.assert_array_equal(calm.snapshots[0].geom_position, recording.snapshots[0].geom_position)
    assert not np.array_equal(calm.commands[:20], recording.commands[:20])


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
