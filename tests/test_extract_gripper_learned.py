"""A gripper network, taught by drawn episodes: found, followed, live as extracted, without depth; refused damaged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from align.followers import following
from data.config import IndexConfig
from data.index import Episode, read_index
from data.scan.build import build_index
from data.video import pinhole
from extract.config import ExtractConfig
from extract.effector import Camera, EffectorTrack, extract
from extract.effectors import build_extractor
from extract.gates import faults
from extract.gripper.config import GripperConfig
from extract.gripper.labelled import usable_episodes
from extract.gripper.learned.body import body_of, riders
from extract.gripper.learned.build import build_network, prepare_network
from extract.gripper.learned.extractor import LearnedExtractor
from extract.gripper.learned.gaze import SIDE, Picture, gaze_at
from extract.gripper.learned.labels import labelled
from extract.gripper.learned.live import WIDEST, LearnedEstimate, LearnedGripper, search_places
from extract.gripper.learned.model import LearnedGripperModel, load_network
from extract.gripper.learned.settings import LearnedSettings
from extract.gripper.learned.steady import smoothed_positions
from extract.run import run_extract
from pipeline.config import load as load_config
from pipeline.errors import UserError
from tests.drawn_gripper import CAMERA, Drawn, drawn, written

SETTINGS = LearnedSettings(steps=230, batch_size=20)
HELD_OUT = (100, 101, 102)  # seeds of scenes that nothing is learnt from
POINTS = 40


@pytest.fixture(scope="module")
def episodes(tmp_path_factory: pytest.TempPathFactory) -> list[Episode]:
    return written(tmp_path_factory.mktemp("drawn"), labelled=9, unlabelled=3)


@pytest.fixture(scope="module")
def folder(episodes: list[Episode], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an extract stage in which the network has been taught."""
    path = tmp_path_factory.mktemp("extract")
    config = GripperConfig(detect=SETTINGS)
    prepare_network(episodes, config, path, seed=0)
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> LearnedGripperModel:
    return load_network(folder / "gripper-network.npz")


@pytest.fixture(scope="module")
def extractor(folder: Path) -> LearnedExtractor:
    config = ExtractConfig.model_validate({"gripper": {"detect": {"name": "learned"}, "points": POINTS}})
    made = build_extractor("gripper", config, folder)
    assert isinstance(made, LearnedExtractor)
    return made


def errors(grasp_T3: np.ndarray, made: Drawn) -> tuple[np.ndarray, np.ndarray]:
    """f64 [T] metres each: across and along the true viewing ray."""
    truth = made.poses_T44[:, :3, 3]
    ray = truth / np.linalg.norm(truth, axis=1, keepdims=True)
    along = ((grasp_T3 - truth) * ray).sum(1)
    return np.linalg.norm(grasp_T3 - truth - along[:, None] * ray, axis=1), np.abs(along)


def test_a_gaze_shows_what_it_looks_at_in_the_middle_and_always_at_the_same_size() -> None:
    for place in np.array([[0.0, 0, 1], [0.3, -0.2, 0.9], [-0.4, 0.3, 1.7]]):
        gaze = gaze_at(place, 0.2, roll=0.4)
        seen, depth = gaze.seen(place[None])
        assert np.allclose(seen, 0) and np.allclose(depth, np.linalg.norm(place))
        side = place + 0.05 * gaze.gaze_from_camera_33[0]
        assert np.allclose(gaze.seen(side[None])[0], [[0.25, 0]])
        points = place + np.random.default_rng(0).normal(scale=0.05, size=(6, 3))
        assert np.allclose(gaze.placed(*gaze.seen(points)), points)


def test_a_crop_shows_the_pixel_that_its_middle_is_projected_to() -> None:
    image = np.zeros((160, 160, 3), np.uint8)
    column, row = 123, 47
    place = CAMERA.unproject(np.array([column + 0.5, row + 0.5]), np.array(1.0))
    image[row - 1 : row + 2, column - 1 : column + 2] = 255
    crop = Picture(image, CAMERA).crop(gaze_at(place, 0.2)).astype(float).sum(2)
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
    middle = np.array([(columns * crop).sum(), (rows * crop).sum()]) / crop.sum()
    assert np.abs(middle - SIDE / 2).max() < 0.1


def test_it_is_found_and_followed_in_scenes_that_it_was_not_taught_in(extractor: LearnedExtractor) -> None:
    found, across, along, opening = [], [], [], []
    for seed in HELD_OUT:
        made, gripper = drawn(seed), extractor.live(CAMERA)
        for t, frame in enumerate(made.frames()):
            assert frame.depth is None and frame.mask is None and frame.base_from_effector is None
            seen = gripper.see(frame)
            found.append(seen is not None)
            if seen is not None:
                wrong = errors(seen.grasp_3[None], Drawn([], made.poses_T44[t : t + 1], made.opening_T))
                across.append(float(wrong[0][0]))
                along.append(float(wrong[1][0]))
                opening.append(abs(seen.opening - made.opening_T[t]))
    assert np.mean(found) > 0.9
    assert np.median(across) < 0.005 and np.quantile(across, 0.9) < 0.012
    assert np.median(along) < 0.03
    assert np.median(opening) < 0.008


def test_a_track_is_identified_metric_and_says_how_far_it_may_be_off(extractor: LearnedExtractor) -> None:
    across_in, along_in = [], []
    for seed in HELD_OUT:
        made = drawn(seed)
        (track,) = extract(extractor, made.frames(), CAMERA).tracks
        assert track.scale == "metric" and track.depth_source == "learned" and track.grasp is not None
        assert track.points.shape == (len(track.frame_slots), POINTS, 3) and track.visible.mean() > 0.5
        assert not faults({"score": track.quality["score"]}, {"score": extractor.gates["score"]})
        at = Drawn([], made.poses_T44[track.frame_slots], made.opening_T[track.frame_slots])
        across, along = errors(track.grasp, at)
        across_in.append(across < 2 * 1.52 * track.sigma[:, 0])
        along_in.append(along < 2 * track.sigma[:, 1])
        assert (track.sigma > 0).all() and (track.sigma < 0.1).all()
        _still_shape(track, at)
    assert np.concatenate(across_in).mean() > 0.6 and np.concatenate(along_in).mean() > 0.6


def _still_shape(track: EffectorTrack, made: Drawn) -> None:
    """In the true effector frame, points stay where they are on the gripper, but for what jaws move."""
    local = np.einsum("tji,tnj->tni", made.poses_T44[:, :3, :3], track.points - made.poses_T44[:, None, :3, 3])
    assert np.median(np.linalg.norm(local - np.median(local, axis=0), axis=-1)) < 0.03
    assert np.linalg.norm(local, axis=-1).max() < 0.35


def test_extraction_and_a_running_policy_see_the_same(extractor: LearnedExtractor, folder: Path) -> None:
    frames = drawn(HELD_OUT[0]).frames()
    config = ExtractConfig.model_validate({"gripper": {"detect": {"name": "learned"}, "points": POINTS}})
    how = following(extractor.name, config, folder)
    assert how.sensors == "rgb"
    follower = how.start(CAMERA)
    sights = list(extractor.look(frames, CAMERA))
    for frame, sight in zip(frames, sights, strict=True):
        seen = follower.see(frame)
        assert (seen is None) == (sight.estimate is None)
        if seen is not None and sight.estimate is not None and seen.grasp_3 is not None:
            assert np.array_equal(seen.points_N3, sight.estimate.points_N3)
            assert np.array_equal(seen.grasp_3, sight.estimate.grasp_3)
    assert sum(sight.found for sight in sights) > 20


def test_what_comes_later_and_what_else_a_frame_holds_change_nothing(extractor: LearnedExtractor) -> None:
    frames = drawn(HELD_OUT[1]).frames()
    whole = [sight.estimate for sight in extractor.look(frames, CAMERA)]
    richer = [replace(frame, depth=np.full((160, 160), 0.5, np.float32)) for frame in frames[:9]]
    part = [sight.estimate for sight in extractor.look(richer, CAMERA)]
    for one, other in zip(part, whole, strict=False):
        assert isinstance(one, LearnedEstimate) and isinstance(other, LearnedEstimate)
        assert one.points_N3.tobytes() == other.points_N3.tobytes()


def test_an_empty_table_shows_nothing(extractor: LearnedExtractor) -> None:
    extraction = extract(extractor, drawn(200, 10, shown=False).frames(), CAMERA)
    assert extraction.tracks == [] and [reason for reason, _ in extraction.rejections] == ["no_fit"]


def test_one_that_jumps_is_found_again(extractor: LearnedExtractor) -> None:
    made = drawn(HELD_OUT[2])
    far = [made.frames()[0], made.frames()[1], replace(made.frames()[23], time=0.1)]
    gripper = extractor.live(CAMERA)
    seen = [gripper.see(frame) for frame in far]
    assert np.linalg.norm(made.poses_T44[23, :3, 3] - made.poses_T44[1, :3, 3]) > 0.15
    assert seen[2] is not None
    assert errors(seen[2].grasp_3[None], Drawn([], made.poses_T44[23:], made.opening_T))[0][0] < 0.015


def test_wider_pictures_are_searched_in_more_places_but_not_without_end(model: LearnedGripperModel) -> None:
    def places(focal: float) -> np.ndarray:
        return np.array(search_places(Camera(pinhole(focal * 640, 640, 480), (640, 480), "given"), model))

    counts = [len(places(focal)) for focal in (2 * WIDEST, WIDEST, WIDEST / 1e6)]
    assert counts[1] == pytest.approx(4 * counts[0], rel=0.2)
    assert counts[2] == counts[1]
    for focal in (1.0, WIDEST / 1e6):
        assert np.isfinite(places(focal)).all() and (places(focal)[:, 2] > 0).all()


def test_the_cloud_has_points_on_the_palm_and_on_jaws_that_open(episodes: list[Episode]) -> None:
    shots = list(labelled(episodes[:6], SETTINGS))
    body = body_of([rider for shot in shots for rider in riders(shot, SETTINGS.reach_m, SETTINGS.camera.tracks)])
    moving = np.linalg.norm(body.slides_M3, axis=1) > 0
    assert len(body.points_M3) >= 12 and 0.1 < moving.mean() < 0.9
    for slide in np.unique(body.slides_M3[moving], axis=0):
        assert 0.25 < abs(slide[1]) < 0.75  # half the opening each, along the jaws' axis
    low, high = np.array([-0.2, -0.1, -0.05]) - 0.03, np.array([0.01, 0.1, 0.05]) + 0.03
    inside = ((body.at(0.05) > low) & (body.at(0.05) < high)).all(1)
    assert inside.mean() > 0.8


def test_a_camera_that_nobody_calibrated_is_found_from_the_recorded_motion(tmp_path: Path) -> None:
    episodes = written(tmp_path, labelled=2, world_from_camera=False)
    shots = list(labelled(episodes, SETTINGS))
    assert len(shots) == 2
    for seed, shot in enumerate(shots):
        off = shot.poses_T44[:, :3, 3] - drawn(seed).poses_T44[:, :3, 3]
        assert np.linalg.norm(np.median(off, axis=0)) < 0.05


@pytest.mark.parametrize("world_from_camera", [True, False])
def test_episodes_that_cannot_be_read_teach_nothing_and_keep_no_other_from_it(
    tmp_path: Path, world_from_camera: bool
) -> None:
    episodes = written(tmp_path, labelled=5, world_from_camera=world_from_camera)
    video, arrays, stretched = (episode.path for episode in episodes[:3])
    video.write_bytes(video.read_bytes()[:-2000])
    path = arrays.with_suffix(".npz")
    path.write_bytes(path.read_bytes()[:-500])
    if not world_from_camera:
        told = dict(np.load(stretched.with_suffix(".npz")))
        told["base_from_effector"] = 2 * told["base_from_effector"]
        np.savez(stretched.with_suffix(".npz"), allow_pickle=False, **told)
    usable = usable_episodes(episodes, None, ("base_from_effector", "opening"), "test")
    assert episodes[0] in usable and episodes[1] not in usable
    assert len(list(labelled(usable, SETTINGS))) == (3 if world_from_camera else 2)


def test_smoothing_keeps_a_steady_motion_and_lessens_noise() -> None:
    times, random = np.arange(30) / 20, np.random.default_rng(0)
    path = np.array([0.0, 0, 1]) + times[:, None] * np.array([0.2, 0.1, 0.3])
    noise = np.tile(np.diag([0.003**2, 0.003**2, 0.02**2]), (30, 1, 1))
    assert np.abs(smoothed_positions(times, path, noise) - path)[3:-3].max() < 0.002
    shaken = path + random.normal(size=(30, 3)) * [0.003, 0.003, 0.02]
    assert np.abs(smoothed_positions(times, shaken, noise) - path).mean() < 0.8 * np.abs(shaken - path).mean()


def test_the_same_seed_teaches_the_same_network_and_stores_the_same_bytes(
    episodes: list[Episode], tmp_path: Path
) -> None:
    few = LearnedSettings(steps=3, batch_size=4, scenes=1)
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        build_network(episodes[:2], few, seed).save(tmp_path / f"{name}.npz")
    a, b, c = ((tmp_path / f"{name}.npz").read_bytes() for name in "abc")
    assert a == b != c
    load_network(tmp_path / "a.npz").save(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == a


def test_the_stage_teaches_before_the_first_video_and_only_once(episodes: list[Episode], tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    for path in [path for episode in episodes[:2] for path in episode.path.parent.glob(f"{episode.path.stem}.*")]:
        (videos / path.name).write_bytes(path.read_bytes())
    detect = {"name": "learned", "steps": 3, "batch_size": 4, "min_score": 0.999}
    config = {
        "run": {"out": str(tmp_path / "run"), "workers": 1, "seed": 5},
        "index": {"sources": [{"name": "drawn", "path": str(videos), "effector": "gripper"}]},
        "extract": {"gripper": {"detect": detect}},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    loaded = load_config(tmp_path / "run.yaml")
    build_index(loaded.section("index", IndexConfig), loaded.folder("index"), videos)
    run_extract(loaded, workers=1)
    network = tmp_path / "run" / "extract" / "gripper-network.npz"
    stored, taught_at = network.read_bytes(), network.stat().st_mtime_ns
    settings = LearnedSettings.model_validate(detect)
    again = build_network(read_index(loaded.folder("index")), settings, seed=5)
    again.save(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == stored
    run_extract(loaded, workers=1)
    assert network.stat().st_mtime_ns == taught_at
    summary = json.loads((network.parent / "summary.json").read_text())
    assert summary["episodes"] == 2 and summary["rejections"] == {"no_effector": 2}


def test_a_network_that_is_there_is_kept(folder: Path) -> None:
    before = (folder / "gripper-network.npz").read_bytes()
    prepare_network([], GripperConfig(detect=SETTINGS), folder, seed=1)
    assert (folder / "gripper-network.npz").read_bytes() == before


def test_damaged_networks_are_refused_with_what_is_wrong(model: LearnedGripperModel, tmp_path: Path) -> None:
    path = tmp_path / "damaged.npz"
    path.write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(UserError, match=r"damaged\.npz cannot be read as a gripper network"):
        load_network(path)
    model.save(path)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(UserError, match=r"damaged\.npz cannot be read"):
        load_network(path)
    np.savez(path, points=np.zeros(3))
    with pytest.raises(UserError, match=r"has no keypoints_K3, .*weights"):
        load_network(path)
    np.savez(path, keypoints_K3=np.array([{}], object))
    with pytest.raises(UserError, match="cannot be read"):
        load_network(path)
    replace(model, slides_M3=model.slides_M3[:-1]).save(path)
    with pytest.raises(UserError, match=r"slides_M3 is \["):
        load_network(path)
    replace(model, anchor_3=np.full(3, np.nan)).save(path)
    with pytest.raises(UserError, match="anchor_3 is empty or not finite"):
        load_network(path)
    name = next(iter(model.weights))
    replace(model, weights={**model.weights, name: model.weights[name][:1]}).save(path)
    with pytest.raises(UserError, match="weights do not fit the network"):
        LearnedGripper(load_network(path), CAMERA).see(drawn(0, 1).frames()[0])


def test_what_cannot_teach_a_network_is_said(episodes: list[Episode], tmp_path: Path) -> None:
    config = GripperConfig.model_validate({"detect": "learned"})
    with pytest.raises(UserError, match="learned: none of 0 labelled episodes"):
        prepare_network([e for e in episodes if not e.sidecar.labelled], config, tmp_path, seed=0)
    named = GripperConfig.model_validate({"detect": {"name": "learned", "model": str(tmp_path / "none.npz")}})
    with pytest.raises(UserError, match=r"none\.npz does not exist"):
        prepare_network(episodes, named, tmp_path, seed=0)
    with pytest.raises(UserError, match=r"gripper-network\.npz does not exist"):
        LearnedExtractor(config, LearnedSettings(), tmp_path / "gripper-network.npz")
    other = [e.model_copy(update={"embodiment": f"kind-{k}"}) for k, e in enumerate(episodes[:2])]
    with pytest.raises(UserError, match="show kind-0, kind-1"):
        prepare_network(other, config, tmp_path, seed=0)
