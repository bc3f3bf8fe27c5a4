"""The loader: a pure function of seed and step, disjoint over ranks, exact in time, resumable anywhere."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data import rows
from data.clips import Clip, decode_image, encode_depth_mm, encode_image, write_shard
from data.config import MixtureConfig, WindowConfig
from data.geometry import invert_rigid, rigid_fit, transform
from data.letterbox import letterbox, letterbox_depth, nearest
from data.loader import WindowDataset, batches, collate, motion
from data.mixture import Order
from pipeline.errors import UserError

WINDOW = WindowConfig(points=16, image_size=64, action_chunk=3)


@pytest.fixture
def shards(make_clip: Callable[..., Clip], tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "a.tar", tmp_path / "b.tar"]
    for number, path in enumerate(paths):
        write_shard(path, [make_clip(3 * number + k, labelled=k == 0) for k in range(3)])
    return paths


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return all(
        torch.equal(value, second[name]) if torch.is_tensor(value) else value == second[name]
        for name, value in first.items()
        if not name.endswith("opening")
    )


def test_a_step_is_the_same_wherever_the_iteration_began_and_however_it_is_read(shards: list[Path]) -> None:
    dataset = WindowDataset(shards, WINDOW)
    straight = list(islice(batches(dataset, 4, seed=1), 6))
    resumed = list(islice(batches(dataset, 4, seed=1, first=12), 3))
    in_processes = list(islice(batches(dataset, 4, seed=1, first=12, workers=2), 3))
    for k in range(3):
        assert same(straight[3 + k], resumed[k])
        assert same(straight[3 + k], in_processes[k])
    assert not same(straight[0], next(batches(dataset, 4, seed=2)))


def test_ranks_split_the_single_process_batch(shards: list[Path]) -> None:
    dataset = WindowDataset(shards, WINDOW)
    whole = next(batches(dataset, 4, seed=1, first=20))
    parts = [next(batches(dataset, 2, seed=1, first=20, rank=rank, world=2)) for rank in range(2)]
    assert torch.equal(whole["past"], torch.cat([part["past"] for part in parts]))
    assert whole["key"] == [key for part in parts for key in part["key"]]


def test_every_epoch_visits_every_window_once() -> None:
    count = 37
    order = Order([range(count)], [1], seed=4)
    for epoch in range(3):
        visited = [order.at(epoch * count + place)[0] for place in range(count)]
        assert sorted(visited) == list(range(count)) != visited


def test_windows_are_exact_in_time(shards: list[Path], make_clip: Callable[..., Clip]) -> None:
    """The made-up clouds turn about a moving centre: their centroid moves at constant velocity up to turning."""
    dataset = WindowDataset(shards, WINDOW.model_copy(update={"horizons_s": (0.125,)}), all_points=True)
    clip = dataset.clip_of(4)
    sample = dataset[(4, 0)]
    now = dataset.windows[4].now
    points = clip.arrays["points"]
    np.testing.assert_array_equal(sample["past"][-1], points[now])
    expected = (points[now + 2] + points[now + 3]) / 2
    np.testing.assert_allclose(sample["future"][0], expected, atol=1e-6)
    both = clip.arrays["visible"][now + 2] & clip.arrays["visible"][now + 3]
    np.testing.assert_array_equal(sample["future_visible"][0], both)


@pytest.mark.parametrize("moving", [False, True])
def test_what_is_read_by_rows_is_what_the_whole_clip_gives(
    moving: bool, make_clip: Callable[..., Clip], tmp_path: Path
) -> None:
    clip = make_clip(1, frames=50)
    rng = np.random.default_rng(0)
    clip.arrays["timestamps"][:] = np.cumsum(rng.uniform(0.01, 0.12, 50))
    clip.arrays["points"] = np.asfortranarray(clip.arrays["points"]) if moving else clip.arrays["points"]
    clip.arrays["opening"][10:20] = np.nan
    clip.arrays["world_from_camera"][20:, 0, 3] = 0.1 * moving
    write_shard(tmp_path / "a.tar", [make_clip(0), clip])
    dataset = WindowDataset([tmp_path / "a.tar"], WINDOW, all_points=True)
    read = 0
    for index, window in enumerate(dataset.windows):
        if window.key != clip.key:
            continue
        image, intrinsics = letterbox(clip.image(window.now), clip.arrays["intrinsics"], WINDOW.image_size)
        expected = {"image": image.transpose(2, 0, 1), "intrinsics": intrinsics, "key": clip.key}
        expected |= {"text": clip.meta.instruction, "embodiment": clip.meta.embodiment}
        expected |= motion(clip.arrays, window.now, np.arange(24), WINDOW)
        sample = dataset[(index, 0)]
        for name, value in expected.items():
            np.testing.assert_array_equal(sample[name], value, err_msg=f"{name} at {window.now}")
        read += 1
    assert read > 30


def test_memory_is_bounded_and_changes_nothing(shards: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "OPEN_FILES", 1)
    roomy, none = WindowDataset(shards, WINDOW), WindowDataset(shards, WINDOW, cache_mb=0)
    tight = WindowDataset(shards, WINDOW, cache_mb=1)
    for index in list(range(len(roomy))) * 2:
        sample = collate([roomy[index, 5]])
        assert same(sample, collate([none[index, 5]])) and same(sample, collate([tight[index, 5]]))
    kept = [dataset._squares.nbytes + dataset._clips.nbytes for dataset in (roomy, tight, none)]
    assert kept[0] > 2**20 >= kept[1] > 0.7 * 2**20 and kept[2] == 0


def test_a_dataset_travels_without_what_it_has_read(shards: list[Path]) -> None:
    dataset = WindowDataset(shards, WINDOW)
    sample = dataset[(3, 1)]
    packed = pickle.dumps(dataset)
    assert len(packed) < 3000
    assert same(collate([pickle.loads(packed)[(3, 1)]]), collate([sample]))


def test_names_too_long_for_a_plain_archive_are_read_all_the_same(
    make_clip: Callable[..., Clip], tmp_path: Path
) -> None:
    clips = [replace(make_clip(number), key=f"{'long-' * 30}{number}") for number in range(3)]
    write_shard(tmp_path / "long.tar", clips)
    write_shard(tmp_path / "short.tar", [make_clip(number) for number in range(3)])
    long, short = (WindowDataset([tmp_path / f"{name}.tar"], WINDOW) for name in ("long", "short"))
    for dataset in (long, pickle.loads(pickle.dumps(long))):
        assert len(dataset) == len(short)
        assert {window.key for window in dataset.windows} == {clip.key for clip in clips}
        one, other = collate([dataset[(20, 1)]]), collate([short[(20, 1)]])
        assert same(one | {"key": 0}, other | {"key": 0})


def test_damaged_shards_are_named(shards: list[Path], tmp_path: Path) -> None:
    whole = shards[0].read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"cut.tar: (truncated inside clip made-up-|cannot be read as a shard)"):
        WindowDataset([tmp_path / "cut.tar"], WINDOW)
    (tmp_path / "none.tar").write_bytes(b"no archive" * 1000)
    with pytest.raises(UserError, match=r"none.tar: cannot be read as a shard"):
        WindowDataset([tmp_path / "none.tar"], WINDOW)
    dataset = WindowDataset(shards, WINDOW)
    shards[1].write_bytes(shards[1].read_bytes()[:2000])
    with pytest.raises(UserError, match=r"b.tar: (truncated|has changed)"):
        dataset[(len(dataset) - 1, 0)]


def test_beyond_the_ends_is_marked_invalid(shards: list[Path]) -> None:
    dataset = WindowDataset(shards, WINDOW, all_points=True)
    first, last = dataset[(0, 0)], dataset[(17, 0)]
    assert first["past_valid"].tolist() == [False, False, False, True]
    assert last["future_valid"].tolist() == [True, False, False, False, False]


def test_points_are_expressed_in_the_camera_of_now(make_clip: Callable[..., Clip], tmp_path: Path) -> None:
    """A moving camera that looks at a resting cloud sees no motion in the camera frame of now."""
    clip = make_clip(0)
    rng = np.random.default_rng(0)
    world = np.tile(clip.arrays["points"][0], (clip.frames, 1, 1)).astype(np.float64)
    poses = np.tile(np.eye(4), (clip.frames, 1, 1))
    for k in range(clip.frames):
        poses[k, :3, :3] = np.linalg.qr(np.eye(3) + 0.02 * k * np.array([[0, 1, 0], [-1, 0, 0.5], [0, -0.5, 0]]))[0]
        poses[k, :3, :3] *= np.sign(np.linalg.det(poses[k, :3, :3]))
        poses[k, :3, 3] = 0.01 * k * rng.normal(size=3)
    clip.arrays["points"] = transform(invert_rigid(poses), world).astype(np.float32)
    clip.arrays["world_from_camera"] = poses.astype(np.float32)
    write_shard(tmp_path / "m.tar", [clip])
    sample = WindowDataset([tmp_path / "m.tar"], WINDOW, all_points=True)[(6, 0)]
    for cloud in (*sample["past"], *sample["future"]):
        np.testing.assert_allclose(cloud, sample["past"][-1], atol=1e-5)


def test_a_mixture_has_as_many_names_as_it_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than fit into 16 bits, each with a window or two of its own."""
    many = 2**15 + 10
    clips = [(0, 0, 1 + number % 2, f"task-{number:05d}") for number in range(many)]
    monkeypatch.setattr(WindowDataset, "_scan", lambda self, shard, mixture: iter(clips))
    dataset = WindowDataset([Path("made-up.tar")], WINDOW, mixture=MixtureConfig(by="task", weights={"*": 1}))
    order = dataset.order(seed=0)
    owner = np.repeat(np.arange(many), [count for *_, count, _ in clips])
    drawn = [owner[order.at(position)[0]] for position in range(many)]
    assert sorted(drawn) == list(range(many)), "a block holds every name once"


def test_labels_follow_the_frame(shards: list[Path]) -> None:
    dataset = WindowDataset(shards, WINDOW, labels="only")
    assert {window.key for window in dataset.windows} == {dataset.windows[0].key, dataset.windows[-1].key}
    for index in (0, 5, len(dataset) - 1):
        clip, now, sample = dataset.clip_of(index), dataset.windows[index].now, dataset[(index, 0)]
        rest = clip.arrays["actions"][now : now + 3]
        np.testing.assert_array_equal(sample["actions"][: len(rest)], rest)
        assert sample["actions_valid"].sum() == len(rest)
        np.testing.assert_array_equal(sample["proprio"], clip.arrays["proprio"][now])


def test_clips_without_labels_can_be_read_beside_those_with(shards: list[Path]) -> None:
    mixture = MixtureConfig(by="labels", weights={"labelled": 1, "video": 3})
    dataset = WindowDataset(shards, WINDOW, labels="where_known", mixture=mixture)
    assert len(dataset) == len(WindowDataset(shards, WINDOW))
    batch = next(batches(dataset, 32, seed=0))
    labelled = batch["actions_valid"].any(1)
    known = {window.key for window in WindowDataset(shards, WINDOW, labels="only").windows}
    assert labelled.tolist() == [key in known for key in batch["key"]] and int(labelled.sum()) == 8
    assert batch["actions"][labelled].any() and not batch["actions"][~labelled].any()
    assert batch["proprio"][labelled].any() and not batch["proprio"][~labelled].any()


def with_scene(clip: Clip, depth: bool = True) -> Clip:
    """The clip with a scene whose grey level is its frame's number, and whose depth grows to the right."""
    scenes = [encode_image(np.full((48, 64, 3), 5 * frame, np.uint8)) for frame in range(clip.frames)]
    columns = np.tile(0.5 + 0.01 * np.arange(64, dtype=np.float32), (48, 1))
    depths = [encode_depth_mm(columns + 0.1 * frame) for frame in range(clip.frames)] if depth else []
    return replace(clip, scenes=scenes, depths=depths)


def test_a_window_shows_the_scene_it_is_asked_for(make_clip: Callable[..., Clip], tmp_path: Path) -> None:
    clip = with_scene(make_clip(0))
    write_shard(tmp_path / "a.tar", [clip, with_scene(make_clip(1), depth=False)])
    datasets = {
        scene: WindowDataset([tmp_path / "a.tar"], WINDOW.model_copy(update={"scene": scene}), image_later=True)
        for scene in ("none", "image", "depth")
    }
    plain, image, depth = (dataset[(4, 0)] for dataset in datasets.values())
    assert "depth" not in plain and "depth" not in image
    for sample in (image, depth):
        assert (sample["image"][:, 8:56] == decode_image(clip.scenes[4])[0, 0, 0]).all()
        np.testing.assert_array_equal(sample["image_later"], plain["image_later"])
        np.testing.assert_array_equal(sample["past"], plain["past"])
    assert depth["depth"].shape == (64, 64) and depth["depth"].dtype == np.float32
    assert (depth["depth"][:8] == 0).all() and (depth["depth"][56:] == 0).all()
    np.testing.assert_allclose(depth["depth"][30], 0.9 + 0.01 * np.arange(64), atol=5e-4)
    last = datasets["depth"][(len(datasets["depth"]) - 1, 0)]
    assert last["depth"].shape == (64, 64) and not last["depth"].any(), "a clip without depth: nothing is known"
    assert collate([depth, last])["depth"].shape == (2, 64, 64)


def test_scenes_that_are_not_there_are_named_with_the_remedy(make_clip: Callable[..., Clip], tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", [with_scene(make_clip(0), depth=False), make_clip(1)])
    with pytest.raises(UserError, match=r"a.tar: clip made-up-0001-00 has no pictures of the scene.*extract.scenes"):
        WindowDataset([tmp_path / "a.tar"], WINDOW.model_copy(update={"scene": "image"}))
    write_shard(tmp_path / "b.tar", [with_scene(make_clip(0), depth=False)])
    with pytest.raises(UserError, match=r"b.tar: window.scene is 'depth', and no clip of these shards has depth"):
        WindowDataset([tmp_path / "b.tar"], WINDOW.model_copy(update={"scene": "depth"}))


@pytest.mark.parametrize("known", [False, True])
def test_grasp_points_and_waypoints_are_in_the_camera_of_now(
    known: bool, make_clip: Callable[..., Clip], tmp_path: Path
) -> None:
    """A camera that moves along with a cloud on a straight way: only the end lies ahead."""
    clip = make_clip(0)
    poses = np.tile(np.eye(4, dtype=np.float32), (clip.frames, 1, 1))
    poses[:, 2, 3] = 0.01 * np.arange(clip.frames)
    clip.arrays["world_from_camera"] = poses
    path = clip.arrays["points"].mean(1)
    if known:
        clip.arrays["grasp"] = path + np.float32(0.05)
        clip.arrays["grasp"][7] = np.nan
        path = np.where(np.isnan(clip.arrays["grasp"]), path, clip.arrays["grasp"])
    write_shard(tmp_path / "a.tar", [clip])
    config = WINDOW.model_copy(update={"waypoint_m": 0.3})
    sample = WindowDataset([tmp_path / "a.tar"], config)[(6, 0)]
    moved = np.array([0, 0, 0.01], np.float32)
    for name, steps in (("past_grasp", (-3, -2, -1, 0)), ("future_grasp", (2, 4, 6, 8, 10))):
        expected = [path[6 + step] + step * moved for step in steps]
        np.testing.assert_allclose(sample[name], expected, atol=1e-5, err_msg=name)
        assert sample[name].dtype == np.float32
    end = [*(path[19] + 13 * moved), 0.05]
    np.testing.assert_allclose(sample["waypoints"], [end] * 3, atol=1e-5)
    assert sample["waypoints_valid"].tolist() == [True, False, True]
    np.testing.assert_array_equal(sample["sigma"], clip.arrays["sigma"][6])


def test_depth_is_never_averaged() -> None:
    depth = np.where(np.arange(40) < 20, 0.5, 2.0).astype(np.float32) * np.ones((30, 1), np.float32)
    assert set(np.unique(letterbox_depth(depth, 64))) == {0.0, 0.5, 2.0}
    small = nearest(depth, 20, 15)
    assert small.shape == (15, 20) and (small[:, :10] == 0.5).all() and (small[:, 10:] == 2.0).all()
    image, _ = letterbox(np.full((30, 40, 3), 255, np.uint8), np.eye(3), 64)
    np.testing.assert_array_equal(image[..., 0] > 0, letterbox_depth(depth, 64) > 0)


def test_letterbox_keeps_the_projection() -> None:
    """A 3D point lands on the same spot of the picture before and after."""
    image = np.zeros((90, 160, 3), np.uint8)
    image[40:44, 100:104] = 255
    intrinsics = np.array([[150, 0, 80], [0, 150, 45], [0, 0, 1.0]])
    point = np.linalg.inv(intrinsics) @ [102.0, 42.0, 1.0]
    square, square_intrinsics = letterbox(image, intrinsics, 64)
    assert square.shape == (64, 64, 3)
    u, v, _ = square_intrinsics @ point
    bright = np.argwhere(square[..., 0] > 60) + 0.5
    np.testing.assert_allclose(bright.mean(0), [v, u], atol=0.75)


def test_no_windows_is_an_error_that_says_why(make_clip: Callable[..., Clip], tmp_path: Path) -> None:
    write_shard(tmp_path / "short.tar", [make_clip(0, frames=2)])
    with pytest.raises(UserError, match="shorter than the first horizon"):
        batches(WindowDataset([tmp_path / "short.tar"], WINDOW), 2, seed=0)


def test_rigid_fit_recovers_a_known_motion() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(50, 3))
    motion = np.eye(4)
    motion[:3, :3] = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    motion[:3, :3] *= np.sign(np.linalg.det(motion[:3, :3]))
    motion[:3, 3] = [1, 2, 3]
    np.testing.assert_allclose(rigid_fit(points, transform(motion, points)), motion, atol=1e-9)
    np.testing.assert_allclose(invert_rigid(motion) @ motion, np.eye(4), atol=1e-12)
