"""A gripper model, registered to depth pictures that are drawn from it: found, followed, live, refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.config import IndexConfig
from data.episode import Frame
from extract.effector import Camera, extract
from extract.gripper.config import GripperConfig
from extract.gripper.registered.build import build_model, prepare_model
from extract.gripper.registered.extractor import RegisteredExtractor
from extract.gripper.registered.live import Estimate, RegisteredGripper
from extract.gripper.registered.model import GripperModel, State, load_model
from extract.gripper.registered.settings import RegisteredSettings
from pipeline.errors import UserError
from tests.disc_videos import write_disc
from tests.indexed import indexed

SIZE = 240
CAMERA = Camera(np.array([[330.0, 0, 120], [0, 330.0, 120], [0, 0, 1]]), (SIZE, SIZE), "given")
TABLE_M = 1.4
LOOK = np.array([[0.0, 0.8, 0.6], [1, 0, 0], [0, 0.6, -0.8]])  # camera_from_effector: down, and seen from above


def box(low: tuple[float, ...], high: tuple[float, ...], step: float = 0.0025) -> tuple[np.ndarray, np.ndarray]:
    """Points and normals of the faces of a box that the camera sees."""
    axes = [np.arange(a, b + step / 2, step) for a, b in zip(low, high, strict=True)]
    points, normals = [], []
    for axis, way in [(axis, way) for axis in range(3) for way in (-1.0, 1.0)]:
        normal = way * np.eye(3)[axis]
        if (LOOK @ normal)[2] < -0.2:
            sides = [*axes]
            sides[axis] = axes[axis][:1] if way < 0 else axes[axis][-1:]
            face = np.stack(np.meshgrid(*sides, indexing="ij"), -1).reshape(-1, 3)
            points.append(face)
            normals.append(np.tile(normal, (len(face), 1)))
    return np.concatenate(points), np.concatenate(normals)


@pytest.fixture(scope="module")
def model() -> GripperModel:
    """A palm with a knob and two jaws, seen from the camera's side only. x: where the jaws point; y: their axis."""
    palm, knob = box((-0.14, -0.05, -0.025), (-0.1, 0.05, 0.025)), box((-0.18, -0.02, -0.02), (-0.14, 0.02, 0.02))
    boxes = [palm, knob, *(box((-0.1, a, -0.008), (0.0, b, 0.008)) for a, b in ((0.0, 0.012), (-0.012, 0.0)))]
    sizes = [len(points) for points, _ in boxes]
    colours = np.array([(200, 20, 20), (30, 30, 200), (220, 220, 220), (0, 200, 220)], np.uint8)
    return GripperModel(
        points_M3=np.concatenate([points for points, _ in boxes]).astype(np.float32),
        normals_M3=np.concatenate([normals for _, normals in boxes]).astype(np.float32),
        colours_M3=np.repeat(colours, sizes, axis=0),
        part_M=np.repeat([0, 0, 1, 2], sizes).astype(np.int8),
        jaw_axis_3=np.array([0.0, 1.0, 0.0]),
        grasp_3=np.zeros(3),
        rotations_K33=LOOK[None],
        range_23=np.array([[-0.3, -0.3, 0.8], [0.3, 0.3, 1.3]]),
        jaws_22=np.array([[0.005, -0.005], [0.045, -0.045]]),
    )


def drawn(model: GripperModel, state: State | None, time: float) -> Frame:
    """The gripper over a table, as points drawn into a depth picture."""
    depth = np.full((SIZE, SIZE), TABLE_M, np.float32)
    image = np.full((SIZE, SIZE, 3), (120, 90, 60), np.uint8)
    if state is not None:
        points = model.placed(state)
        pixels = np.floor(CAMERA.project(points)).astype(int)
        for n in np.argsort(-points[:, 2], kind="stable"):
            column, row = pixels[n]
            if 0 < column < SIZE - 1 and 0 < row < SIZE - 1:
                depth[row, column] = points[n, 2]
                image[row, column] = model.colours_M3[n]
    return Frame(round(time * 20), time, image, depth)


def path(count: int) -> list[State]:
    """A gripper that moves and turns a little, and closes."""
    states = []
    for t in range(count):
        angle = 0.004 * t
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        half = 0.045 - 0.035 * t / count
        states.append(State(turn @ LOOK, np.array([-0.05 + 0.012 * t, 0.008 * t, 1.0]), np.array([half, -half])))
    return states


def test_it_is_found_and_followed(model: GripperModel) -> None:
    gripper = RegisteredGripper(model, CAMERA, 60)
    for t, state in enumerate(path(10)):
        seen = gripper.see(drawn(model, state, t / 20))
        assert isinstance(seen, Estimate)
        assert np.linalg.norm(seen.grasp_3 - model.grasp(state)) < 0.004
        assert abs(seen.opening - state.opening) < 0.004
        assert seen.points_N3.shape == (60, 3) and seen.visible_N.mean() > 0.5


def test_extraction_and_a_running_policy_see_the_same(model: GripperModel, tmp_path: Path) -> None:
    model.save(tmp_path / "model.npz")
    frames = [drawn(model, state, t / 20) for t, state in enumerate(path(12))]
    frames[6] = replace(frames[6], depth=None)
    config = GripperConfig.model_validate({"detect": {"name": "registered"}, "points": 40})
    settings = config.detect
    assert isinstance(settings, RegisteredSettings)
    extractor = RegisteredExtractor(config, settings, tmp_path / "model.npz")
    (track,) = extract(extractor, frames, CAMERA).tracks
    live = RegisteredGripper(load_model(tmp_path / "model.npz"), CAMERA, 40)
    seen = [live.see(frame) for frame in frames]
    assert seen[6] is None and track.grasp is not None and track.confidence[6] == 0
    for t, estimate in enumerate(seen):
        if estimate is not None:
            assert np.array_equal(track.points[t], estimate.points_N3)
            assert np.array_equal(track.grasp[t], estimate.grasp_3)
    middle = (track.points[5] + track.points[7]) / 2
    assert np.allclose(track.points[6], middle, atol=1e-6)
    assert track.sigma[6, 0] > track.sigma[5, 0]


def test_an_empty_table_shows_nothing(model: GripperModel, tmp_path: Path) -> None:
    model.save(tmp_path / "model.npz")
    config = GripperConfig.model_validate({"detect": "registered"})
    extractor = RegisteredExtractor(config, RegisteredSettings(), tmp_path / "model.npz")
    extraction = extract(extractor, [drawn(model, None, t / 20) for t in range(3)], CAMERA)
    assert extraction.tracks == [] and [reason for reason, _ in extraction.rejections] == ["no_fit"]


@pytest.mark.parametrize("metres", [0.0, 0.01, 30.0, np.inf, np.nan])
def test_frames_that_show_nothing_in_its_range_are_frames_without_it(model: GripperModel, metres: float) -> None:
    state = path(10)[0]
    shown = [drawn(model, state, t / 20) for t in range(3)]
    blind = [replace(shown[t], depth=np.full((SIZE, SIZE), metres, np.float32)) for t in (0, 1)]
    gripper = RegisteredGripper(model, CAMERA, 60)
    assert gripper.see(blind[0]) is None
    assert gripper.see(shown[1]) is not None
    assert gripper.see(replace(blind[1], time=0.075)) is None
    seen = gripper.see(shown[2])
    assert seen is not None and np.linalg.norm(seen.grasp_3 - model.grasp(state)) < 0.004


def test_one_that_is_gone_is_looked_for_less_often_and_found_when_it_is_back(
    model: GripperModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    gripper, searched = RegisteredGripper(model, CAMERA, 60), []
    search = RegisteredGripper._searched

    def counted(self: RegisteredGripper, depth: np.ndarray, image: np.ndarray) -> object:
        searched.append(1)
        return search(self, depth, image)

    monkeypatch.setattr(RegisteredGripper, "_searched", counted)
    for t in range(40):
        assert gripper.see(drawn(model, None, t / 20)) is None
    assert len(searched) < 15
    state = path(10)[0]
    seen = [gripper.see(drawn(model, state, t / 20)) for t in range(40, 50)]
    assert all(one is not None for one in seen[5:]) and len(searched) < 18
    gripper.see(drawn(model, None, 51 / 20))
    gripper.see(drawn(model, None, 52 / 20))
    assert gripper.see(drawn(model, state, 53 / 20)) is not None


def test_a_stored_model_is_the_same_and_has_the_same_bytes(model: GripperModel, tmp_path: Path) -> None:
    model.save(tmp_path / "a.npz")
    load_model(tmp_path / "a.npz").save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert np.array_equal(load_model(tmp_path / "b.npz").points_M3, model.points_M3)


def test_what_is_no_model_and_what_cannot_give_one_is_said(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", points=np.zeros(3))
    with pytest.raises(UserError, match=r"other\.npz has no points_M3"):
        load_model(tmp_path / "other.npz")
    config = GripperConfig.model_validate({"detect": "registered"})
    with pytest.raises(UserError, match="none of 0 labelled episodes"):
        prepare_model([], config, tmp_path)
    named = GripperConfig.model_validate({"detect": {"name": "registered", "model": str(tmp_path / "none.npz")}})
    with pytest.raises(UserError, match=r"none\.npz does not exist"):
        prepare_model([], named, tmp_path)


def test_episodes_that_cannot_be_read_are_left_out_of_what_a_model_is_built_from(tmp_path: Path) -> None:
    videos, count = tmp_path / "videos", 20
    videos.mkdir()
    spec = {"names": ["x"], "proprio_names": ["x"], "unit": "m", "frame": "base", "mode": "delta", "rate_hz": 20}
    for name in ("whole", "cut", "flat"):
        write_disc(videos / f"{name}.mp4", np.linspace(0, 0.05 + 0.01 * len(name), count)[:, None] * [1, 0])
        poses, numbers = np.tile(np.eye(4), (count, 1, 1)), np.zeros((count, 1))
        arrays = {"base_from_effector": poses, "world_from_camera": poses, "opening": np.full(count, 0.02)}
        arrays |= {"depth": np.load(videos / f"{name}.npz")["depth"], "actions": numbers, "proprio": numbers}
        if name == "flat":
            arrays["world_from_camera"] = np.zeros((count, 4, 4))
        np.savez(videos / f"{name}.npz", allow_pickle=False, **arrays)
        told = json.loads((videos / f"{name}.json").read_text())
        told |= {"effector": "gripper", "labelled": True, "action_spec": spec}
        (videos / f"{name}.json").write_text(json.dumps(told))
    config = IndexConfig.model_validate({"sources": [{"name": "mine", "path": str(videos)}]})
    episodes, _ = indexed(config, tmp_path / "index")
    assert len(episodes) == 3
    content = (videos / "cut.mp4").read_bytes()
    (videos / "cut.mp4").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"opening: changes by only 0\.0 mm"):  # what the whole one shows
        build_model(episodes, RegisteredSettings())
    for name in ("cut", "flat"):
        with pytest.raises(UserError, match=r"opening: changes by only 0\.0 mm"):
            build_model([one for one in episodes if one.path.stem == name], RegisteredSettings())
