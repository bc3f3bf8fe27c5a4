"""What a running policy sees is what its training clips showed; and what the controls for comparison do."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from align.control import Proportional, TrueFuture, expert_path
from align.episode import show
from align.eyes import Eyes, View
from align.followers import Following, Sighting, following
from align.moments import Past
from data.clips import Clip, decode_depth, decode_image, encode_depth_mm, encode_image
from data.config import IndexConfig
from data.episode import Frame
from data.index import Episode
from data.reader import EpisodeReader
from data.simulation.config import SimulateConfig
from data.simulation.environment import Observation, TaskEnvironment
from data.simulation.jobs import episode_jobs
from data.simulation.run import run_job
from data.simulation.sensors import Sensors
from data.simulation.write import encode_video
from extract.config import ExtractConfig
from extract.effector import Camera, EffectorTrack, Extraction
from extract.mask.extractor import NAME as MASKS
from extract.mask.extractor import MaskExtractor
from extract.passage import Passage
from pipeline.errors import UserError
from pretrain.model.configuration_kinecloud import KinecloudConfig
from pretrain.model.modeling_kinecloud import KinecloudPrediction
from tests.indexed import indexed

TASK = "drawer-close-v3"
EXTRACT = ExtractConfig.model_validate({"mask": {"points": 30}, "image_side": 64})


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Episode, Clip]:
    """A simulated episode, and the clip that extraction makes of it."""
    folder = tmp_path_factory.mktemp("simulated")
    settings = {"labelled_tasks": (TASK,), "video_only_tasks": (), "robot_episodes": 1, "hand_episodes": 0,
                "closeup_clips": 0, "resolution": 96}  # fmt: skip
    for job in episode_jobs(SimulateConfig.model_validate(settings), seed=0):
        run_job(job, folder)
    config = IndexConfig.model_validate({"sources": [{"name": "simulated", "path": str(folder)}]})
    (episode,), _ = indexed(config, folder.with_name("index"), folder)
    (clip,) = Passage(episode, MaskExtractor(EXTRACT.mask), EXTRACT, lambda: None).clips()
    return episode, clip


def observations(episode: Episode) -> list[Observation]:
    """The recorded frames as a running simulator would show them."""
    reader = EpisodeReader(episode)
    frames = list(reader.frames(None))
    indices = np.array([frame.index for frame in frames])
    grasp, opening = reader.per_frame("grasp", indices), reader.per_frame("opening", indices)
    assert grasp is not None and opening is not None
    return [
        Observation(frame, np.zeros(4, np.float32), float(opening[k]), frame.actor, grasp[k])  # pyright: ignore
        for k, frame in enumerate(frames)
    ]


@pytest.mark.parametrize(("scene", "depth"), [("none", False), ("image", False), ("depth", True)])
def test_a_running_policy_sees_what_its_clips_showed(recorded: tuple[Episode, Clip], scene: str, depth: bool) -> None:
    episode, clip = recorded
    config = KinecloudConfig(past_times=(-0.05, 0.0), horizons=(0.1,), scene=scene, depth=depth)
    camera = Camera(np.array(episode.sidecar.intrinsics), (episode.width, episode.height), "given")
    eyes = Eyes(camera, following(MASKS, EXTRACT, Path()), config, EXTRACT.image_side)
    assert eyes.view() is None
    for row, observation in enumerate(observations(episode)[: clip.frames]):
        show(observation, eyes, "truth")
        view = eyes.view()
        assert view is not None
        np.testing.assert_allclose(view.past.grasp_P3[-1], clip.arrays["grasp"][row], atol=1e-6)
        assert (view.depth is not None) is depth
        if scene == "none":
            np.testing.assert_array_equal(view.image, observation.frame.image)
        else:
            stored = decode_image(clip.scenes[row]).astype(float)
            assert view.image.shape == stored.shape == (64, 64, 3)
            assert np.abs(view.image - stored).mean() < 4  # it was stored as JPEG
            np.testing.assert_allclose(view.intrinsics_33, clip.arrays["intrinsics"], atol=1e-5)
        if view.depth is not None:
            stored = decode_depth(clip.depths[row])
            np.testing.assert_allclose(view.depth, stored, atol=6e-4)  # stored in millimetres


class Pointing:
    """Knows where the effector is, in extraction as before a running policy, and what a frame tells of it is told."""

    name, nothing, weights_sha256, gates = "pointing/1", "no_effector", {}, {}
    points_N3 = np.random.default_rng(0).normal((0.02, 0.0, 0.5), 0.01, (30, 3)).astype(np.float32)

    def see(self, frame: Frame) -> Sighting:
        return Sighting(self.points_N3, np.ones(30, bool))

    def look(self, frames: Iterable[Frame], camera: Camera) -> Iterator[Any]:
        for frame in frames:
            yield SimpleNamespace(time=frame.time, found=True, boxes=np.zeros((0, 4)))

    def lift(self, sights: Sequence[Any], camera: Camera) -> Extraction:
        count = len(sights)
        track = EffectorTrack(
            np.arange(count), np.tile(self.points_N3, (count, 1, 1)), np.ones((count, 30), bool),
            np.full((count, 2), 0.01), np.ones(count), np.full(count, np.nan), None, "metric", "sensor",
        )  # fmt: skip
        return Extraction([track])


def masked_episode(folder: Path, width: int) -> Episode:
    """One second of noise with a mask in a corner, depth, and nothing said of the actor."""
    count, height = 20, width * 3 // 4
    images = np.random.default_rng(0).integers(0, 256, (count, height // 8, width // 8, 3), dtype=np.uint8)
    encode_video(folder / "a.mp4", [image.repeat(8, 0).repeat(8, 1) for image in images], 20)
    mask = np.zeros((count, height, width), bool)
    mask[:, : height // 3, : width // 3] = True
    depth = np.full(mask.shape, 500, np.uint16)
    np.savez(folder / "a.npz", mask=mask, depth=depth, world_from_camera=np.tile(np.eye(4), (count, 1, 1)))
    intrinsics = [[width, 0, width / 2], [0, width, height / 2], [0, 0, 1]]
    told = {"effector": "mask", "arrays": "a.npz", "intrinsics": intrinsics, "labelled": False}
    (folder / "a.json").write_text(json.dumps(told))
    config = IndexConfig.model_validate({"sources": [{"name": "mine", "path": str(folder)}]})
    (episode,), _ = indexed(config, folder.with_name("index"))
    return episode


@pytest.mark.parametrize("width", [96, 960])
def test_a_scene_without_the_masks_pixels_is_that_of_its_clip_to_the_byte(tmp_path: Path, width: int) -> None:
    (tmp_path / "videos").mkdir()
    episode = masked_episode(tmp_path / "videos", width)
    (clip,) = Passage(episode, Pointing(), EXTRACT, lambda: None).clips()
    camera = Camera(np.array(episode.sidecar.intrinsics), (episode.width, episode.height), "given")
    pointing = Following(lambda camera: Pointing(), "truth", "it knows")
    eyes = Eyes(camera, pointing, KinecloudConfig(scene="depth", depth=True), EXTRACT.image_side)
    for row, frame in enumerate(EpisodeReader(episode).frames(EXTRACT.rate_hz)):
        eyes.see(frame, np.nan)
        view = eyes.view()
        assert view is not None and view.depth is not None
        assert encode_image(view.image) == clip.scenes[row]
        assert encode_depth_mm(view.depth) == clip.depths[row]
    assert clip.frames == 20


@pytest.mark.parametrize("sensors", ["rgbd", "rgb"])
def test_without_masks_nothing_of_the_simulators_truth_is_seen(sensors: Sensors) -> None:
    class Nobody:
        def see(self, frame: Any) -> None:
            assert frame.mask is None and frame.actor is None and (frame.depth is not None) is (sensors == "rgbd")

    camera = Camera(np.array([[60.0, 0, 16], [0, 60.0, 16], [0, 0, 1]]), (32, 32), "given")
    blindfolded = replace(following(MASKS, EXTRACT, Path()), start=lambda camera: Nobody())
    eyes = Eyes(camera, blindfolded, KinecloudConfig(scene="depth", depth=True), 32)
    with TaskEnvironment(TASK, 32) as world:
        show(world.reset(0), eyes, sensors)
    assert eyes.view() is None


def test_an_extractor_that_cannot_run_live_is_refused() -> None:
    with pytest.raises(UserError, match=r"extracted by steps/1, which cannot follow a running policy"):
        following("steps/1", EXTRACT, Path())


class Oracle:
    """In the place of a policy: its actions are the motion that it was told to follow."""

    config = SimpleNamespace(action_chunk=1, action_names=["dx", "dy", "dz", "gripper"], horizons=(0.1, 0.2))
    device = torch.device("cpu")

    def __init__(self, moves_3: tuple[float, float, float] = (0, 0, 0), opening: float = 0.1):
        self.moves, self.opening = torch.tensor(moves_3), opening

    def predict(self, *observation: Any, follow: KinecloudPrediction | None = None) -> KinecloudPrediction:
        now = torch.as_tensor(observation[9])[None, None, -1].expand(1, 2, 3)
        self.told = follow
        if follow is not None:
            return KinecloudPrediction(points=follow.points, actions=torch.zeros(1, 1, 4))
        points = torch.zeros(1, 2, 5, 3)
        return KinecloudPrediction(points, torch.full((1, 2), self.opening), now + self.moves)

    def denormalize(self, values: torch.Tensor, kind: str) -> torch.Tensor:
        return values


def view_at(grasp_3: np.ndarray) -> View:
    past = Past(np.zeros((2, 5, 3), np.float32), np.ones((2, 5), bool), np.ones(2, bool), np.zeros(2),
                np.tile(grasp_3, (2, 1)).astype(np.float32))  # fmt: skip
    return View(np.zeros((32, 32, 3), np.uint8), None, np.eye(3), past)


def test_the_proportional_controller_goes_where_the_prediction_points_and_no_further_than_it_can() -> None:
    with TaskEnvironment(TASK, 32) as world:
        observation = world.reset(0)
        far = Proportional(Oracle((0.0, -1.0, 0.0)), world, "robot").decide(observation, view_at(observation.grasp))  # pyright: ignore
        near = Oracle((0.0, -0.02, 0.0), opening=0.0)
        control = Proportional(near, world, "robot")  # pyright: ignore
        actions_KA = control.decide(observation, view_at(observation.grasp)).actions_KA
        up_3 = world.world_from_camera[:3, :3] @ np.array([0, -0.02, 0])
    np.testing.assert_allclose(actions_KA[0, :3], up_3 / 0.08, rtol=1e-4)
    assert np.abs(far.actions_KA).max() == 1 and far.actions_KA[0, 3] == -1 and actions_KA[0, 3] == 1


def test_a_true_future_is_the_experts_from_where_the_effector_is() -> None:
    path_T3, opening_T = expert_path(TASK, 5, 0.0)
    assert len(path_T3) == len(opening_T) > 60
    with TaskEnvironment(TASK, 32) as world:
        policy = Oracle()
        control = TrueFuture(policy, world, "robot", 5, 0.0)  # pyright: ignore
        observation = world.reset(5)
        camera_from_world = np.linalg.inv(world.world_from_camera)
        control.decide(observation, view_at(observation.grasp))
        told = policy.told
        assert told is not None
        at = np.stack([path_T3[8], path_T3[16]]) @ camera_from_world[:3, :3].T + camera_from_world[:3, 3]
        np.testing.assert_allclose(told.grasp[0].numpy(), at, atol=2e-3)  # it has not moved: the path's beginning
        moved = told.points[0] - torch.zeros(5, 3)
        np.testing.assert_allclose(moved[:, 0], at - observation.grasp, atol=2e-3)
