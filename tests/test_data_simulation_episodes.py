"""Robot episode, its twin and the closed-loop environment agree with the simulator and with each other."""

import numpy as np
import pytest

from data.episode import Frame
from data.simulation.environment import TaskEnvironment
from data.simulation.film import robot_episode
from data.simulation.metaworld import CONTROL_HZ, record_expert
from data.simulation.render import backproject
from data.simulation.scene import GRIPPER_PARTS, TaskScene, random_look
from data.simulation.surface import hand_distance
from data.simulation.twin import between, pose_hand, random_manner, source_times, stance, twin_episode
from data.simulation.write import DEPTH_UNIT_M
from extract.hand.config import HandConfig
from extract.hand.detect import HandFinder
from pipeline.errors import UserError

TASK = "drawer-close-v3"
JITTER_M = 0.06


@pytest.fixture(scope="module")
def recording():
    return record_expert(TASK, 1, seed=2, noise=0.2)


@pytest.fixture(scope="module")
def robot(recording):
    with TaskScene(TASK, 128, show_goal=False) as scene:
        half_sizes = [scene.model.geom(name).size.copy() for name in GRIPPER_PARTS]
        return robot_episode(scene, recording, np.random.default_rng(7), JITTER_M, labelled=True), half_sizes


@pytest.fixture(scope="module")
def twin(recording):
    with TaskScene(TASK, 128, show_goal=False, hand_side="right") as scene:
        return twin_episode(scene, recording, np.random.default_rng(8), JITTER_M)


def _points(episode, frame):
    arrays = episode.arrays
    depth = arrays["depth"][frame] * DEPTH_UNIT_M
    return backproject(depth, np.array(episode.sidecar["intrinsics"]), arrays["mask"][frame])


def _box_distance(points_N3, part_from_camera_44, half_size_3):
    local = np.abs(points_N3 @ part_from_camera_44[:3, :3].T + part_from_camera_44[:3, 3]) - half_size_3
    outside = np.linalg.norm(np.maximum(local, 0), axis=1)
    return np.abs(outside + np.minimum(local.max(axis=1), 0))


def test_finger_pixels_lie_on_the_simulators_own_boxes(robot):
    episode, half_sizes = robot
    seen = 0
    for frame in range(0, len(episode.images), 4):
        points = _points(episode, frame)
        for part in (1, 2):
            pose = np.linalg.inv(episode.arrays["truth_gripper_parts"][frame, part].astype(float))
            distance = _box_distance(points, pose, half_sizes[part])
            near = distance[distance < 0.002]  # the mask also covers the palm
            seen += len(near)
            if len(near):
                assert near.mean() < 0.0001
    assert seen > 100


def test_recorded_effector_pose_is_the_palm_at_the_tool_centre_point(robot):
    arrays = robot[0].arrays
    poses = np.linalg.inv(arrays["world_from_camera"].astype(float)) @ arrays["base_from_effector"]
    assert arrays["base_from_effector"].dtype == np.float64
    assert np.linalg.norm(poses[:, :3, 3] - arrays["truth_tcp"], axis=1).max() < 0.01  # jaws are not always centred
    np.testing.assert_allclose(poses[:, :3, :3], arrays["truth_gripper_parts"][:, 0, :3, :3], atol=1e-5)


def test_twin_pixels_lie_on_the_hand(twin):
    for frame in range(0, len(twin.images), 4):
        points = _points(twin, frame)
        assert len(points) > 30
        arrays = twin.arrays
        distance = np.abs(hand_distance(points, arrays["truth_capsules"][frame], arrays["truth_ellipsoids"][frame]))
        assert distance.mean() < 0.00015 and distance.max() < 0.001


def test_twin_pinches_where_the_gripper_was_at_that_time(twin, recording):
    arrays = twin.arrays
    for frame, time_s in enumerate(arrays["truth_source_time"]):
        state = between(recording.snapshots, float(time_s))
        pose = arrays["world_from_camera"][frame]
        pinch = pose[:3, :3] @ arrays["truth_tcp"][frame] + pose[:3, 3]
        assert np.linalg.norm(pinch - state.tcp) < 0.006 * np.sqrt(3) + 1e-4
        assert arrays["opening"][frame] == pytest.approx(state.opening, abs=0.003)


def test_twin_is_an_unlabelled_simulated_human_hand(twin):
    assert twin.sidecar["embodiment"] == "human-hand" and twin.sidecar["effector"] == "mask"
    assert twin.sidecar["simulated"] is True and twin.sidecar["labelled"] is False
    assert not {"actions", "proprio"} & set(twin.arrays) and twin.sidecar["action_spec"] is None


def test_robot_labels_are_the_executed_actions(robot, recording):
    episode, _ = robot
    np.testing.assert_array_equal(episode.arrays["actions"], recording.actions())
    assert episode.sidecar["action_spec"]["rate_hz"] == 20
    assert len(episode.images) == recording.frames == len(episode.arrays["proprio"])


def test_unlabelled_robot_episode_holds_no_action(recording):
    with TaskScene(TASK, 32, show_goal=False) as scene:
        episode = robot_episode(scene, recording, np.random.default_rng(0), 0.0, labelled=False)
    assert not {"actions", "proprio"} & set(episode.arrays)


def test_the_hand_detector_sees_the_twin(recording):
    """As large as the tasks show it, 480 pixels wide: what it cannot see, nothing can be learned from."""
    with TaskScene(TASK, 480, show_goal=False, hand_side="right") as scene:
        images = twin_episode(scene, recording, np.random.default_rng(8), 0.0).images
    frames = [Frame(number, number / 20, image) for number, image in enumerate(images)]
    found = [hands for _, hands in HandFinder(HandConfig(max_hands=1))(frames)]
    assert np.mean([len(hands) for hands in found]) > 0.8


def test_the_twins_forearm_leans_away_from_the_camera(recording, monkeypatch):
    state, eye = recording.snapshots[0], random_look(np.random.default_rng(0), 0.0).view.world_from_camera()[:3, 3]
    away = (eye - state.tcp) / np.linalg.norm(eye - state.tcp)

    def towards_camera(scene, seed):
        manner, side = stance(scene.hand, state, random_manner(np.random.default_rng(seed)), eye)
        pose_hand(scene.hand, state, manner, side)
        return scene.hand.forearm_direction() @ away

    with TaskScene(TASK, 32, show_goal=False, hand_side="right") as scene:
        leaning = np.array([towards_camera(scene, seed) for seed in range(5)])
        monkeypatch.setattr("data.simulation.twin.LEAN", 0.0)
        upright = np.array([towards_camera(scene, seed) for seed in range(5)])
    assert (leaning < 0).all() and (leaning - upright < -0.3).all()


def test_twin_time_runs_forward_within_the_recording():
    for seed in range(50):
        times = source_times(1.5, random_manner(np.random.default_rng(seed)))
        assert times[0] == 0 and (np.diff(times) > 0.02).all() and times[-1] <= 1.5 + 1e-9


def test_interpolated_state_hits_the_control_steps(recording):
    for step in (0, 5, len(recording.snapshots) - 2):
        state = between(recording.snapshots, step / CONTROL_HZ)
        np.testing.assert_allclose(state.geom_position, recording.snapshots[step].geom_position, atol=1e-6)


def test_closed_loop_sees_the_same_pixels_as_the_recording_and_solves_the_task(robot, recording):
    episode, _ = robot
    with TaskEnvironment(TASK, 128) as environment:
        observation = environment.reset(recording.seed, random_look(np.random.default_rng(7), JITTER_M))
        np.testing.assert_array_equal(observation.frame.image, episode.images[0])
        np.testing.assert_array_equal(observation.frame.mask, episode.arrays["mask"][0])
        assert observation.frame.depth is not None
        np.testing.assert_allclose(observation.frame.depth, episode.arrays["depth"][0] * DEPTH_UNIT_M, atol=1e-6)
        np.testing.assert_allclose(environment.intrinsics, episode.sidecar["intrinsics"])
        np.testing.assert_array_equal(observation.proprio, episode.arrays["proprio"][0])
        for action in episode.arrays["actions"]:
            environment.step(action)
        assert environment.success and environment.seconds == pytest.approx(len(episode.images) / 20)


def test_environment_needs_a_reset_and_ends():
    with TaskEnvironment(TASK, 32) as environment:
        with pytest.raises(RuntimeError, match="reset"):
            environment.observe()
        environment.reset(0)
        while not environment.done:
            environment.step(np.zeros(4))
        with pytest.raises(RuntimeError, match="over"):
            environment.step(np.zeros(4))


def test_actor_is_the_effector_and_the_arm_that_it_belongs_to(robot, twin):
    for episode in (robot[0], twin):
        mask, actor = episode.arrays["mask"], episode.arrays["actor"]
        assert actor.dtype == bool and (actor | ~mask).all()  # the effector is part of the actor
        assert actor.sum() > 1.5 * mask.sum()
        assert actor.mean() < 0.5


def test_without_the_actor_only_things_and_table_are_seen(recording):
    """Where the actor is not, robot and twin of one motion show the same scene."""
    depths, actors = [], []
    for hand_side in (None, "right"):
        with TaskScene(TASK, 96, show_goal=False, hand_side=hand_side) as scene:
            scene.load(recording.snapshots[0])
            if scene.hand is not None:
                state = recording.snapshots[0]
                manner = random_manner(np.random.default_rng(0))
                pose_hand(scene.hand, state, manner, 1.0)
                scene.load(state)
            rendering, _ = scene.render()
            depths.append(rendering.depth)
            actors.append(scene.actor(rendering))
    free = ~(actors[0] | actors[1])
    assert free.mean() > 0.3
    np.testing.assert_allclose(depths[0][free], depths[1][free], atol=1e-4)


def test_grasp_point_is_the_tool_centre_point_in_the_camera_frame(robot, recording):
    arrays = robot[0].arrays
    pose = arrays["world_from_camera"].astype(float)
    world = np.einsum("fij,fj->fi", pose[:, :3, :3], arrays["grasp"]) + pose[:, :3, 3]
    np.testing.assert_allclose(world, recording.proprio()[:, :3], atol=1e-5)
    assert arrays["grasp"].dtype == np.float32
    with TaskEnvironment(TASK, 128) as environment:
        observation = environment.reset(recording.seed, random_look(np.random.default_rng(7), JITTER_M))
    np.testing.assert_allclose(observation.grasp, arrays["grasp"][0], atol=1e-6)
    np.testing.assert_array_equal(observation.actor, arrays["actor"][0])


def test_labels_of_a_mixed_robot_solve_the_task_on_that_robot_only(recording):
    with TaskScene(TASK, 32, show_goal=False) as scene:
        episode = robot_episode(scene, recording, np.random.default_rng(0), 0.0, labelled=True, action_mixing=5)
    assert "mixed" in episode.sidecar["action_spec"]["unit"]
    reached = {}
    for mixing in (5, None):
        with TaskEnvironment(TASK, 32, action_mixing=mixing) as environment:
            environment.reset(recording.seed)
            for action in episode.arrays["actions"]:
                environment.step(action)
            reached[mixing] = environment.observe().proprio[:3]
            assert environment.success == (mixing == 5)
    assert np.linalg.norm(reached[5] - recording.snapshots[-1].tcp) < 0.01


def test_the_marker_that_is_drawn_is_the_tasks_own():
    drawn = {}
    for task in ("coffee-pull-v3", "coffee-push-v3", "push-back-v3"):
        with TaskScene(task, 32, show_goal=True) as scene:
            (marker,) = np.flatnonzero(scene.model.site_rgba[:, 3] > 0)
            drawn[task] = scene.model.site(marker).name
    assert drawn == {"coffee-pull-v3": "mug_goal", "coffee-push-v3": "coffee_goal", "push-back-v3": "goal"}


def test_a_task_without_a_goal_marker_is_refused_by_name():
    with pytest.raises(UserError, match="handle-pull-v3 has no marker 'goal'"):
        TaskScene("handle-pull-v3", 32, show_goal=True)
