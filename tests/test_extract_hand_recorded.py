"""Hands whose joints come with the episode: from EgoDex's files and from an NPZ file beside a video, to clips."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from data.clips import Clip
from data.config import IndexConfig
from data.index import Episode
from data.reader import EpisodeReader
from data.sources.mapping import GroupsLayout, shipped
from extract.config import ExtractConfig
from extract.effectors import build_extractor
from extract.passage import Passage
from tests import source_files as made
from tests.hand_cases import moving_hand
from tests.indexed import indexed

FRAMES, RATE_HZ, SIZE = 60, 30, (160, 120)
INTRINSICS = [[150.0, 0, 80], [0, 150, 60], [0, 0, 1]]


def layout_names() -> tuple[tuple[str, ...], tuple[str, ...]]:
    layout = next(shape for shape in shipped() if shape.name == "egodex")
    assert isinstance(layout, GroupsLayout) and layout.hands
    return layout.hands.names, layout.hands.order


def stored(file: h5py.File, name: str) -> h5py.Dataset:
    found = file[name]
    assert isinstance(found, h5py.Dataset)
    return found


def write_egodex(root: Path, joints_T213: np.ndarray, confidence_T: np.ndarray) -> np.ndarray:
    """A right hand, in the world; the left one is behind the camera. Returns world_from_camera, f64 [T,4,4]."""
    names, order = layout_names()
    made.egodex(root, names, FRAMES)
    angle = np.linspace(0, 0.4, FRAMES)
    camera = np.tile(np.eye(4), (FRAMES, 1, 1))
    camera[:, 0, 0] = camera[:, 2, 2] = np.cos(angle)
    camera[:, 0, 2], camera[:, 2, 0] = np.sin(angle), -np.sin(angle)
    camera[:, :3, 3] = [1.0, 2.0, 3.0]
    with h5py.File(root / "basic/0.hdf5", "r+") as file:
        stored(file, "transforms/camera")[:] = camera
        stored(file, "camera/intrinsic")[:] = INTRINSICS
        for name in names:
            at = joints_T213[:, order.index(name)] if name in order else joints_T213[:, 0]
            for side, place in (("right", at), ("left", at * [1, 1, -1])):
                world = np.einsum("tij,tj->ti", camera[:, :3, :3], place) + camera[:, :3, 3]
                stored(file, f"transforms/{side}{name}")[:, :3, 3] = world
                stored(file, f"confidences/{side}{name}")[:] = confidence_T
    made.video(root / "basic/0.mp4", [90] * FRAMES, fps=RATE_HZ, size=SIZE)
    return camera


def clips_of(episodes: list[Episode], **settings: Any) -> tuple[list[Clip], Passage]:
    (episode,) = episodes
    config = ExtractConfig.model_validate({"rate_hz": None, **settings})
    passage = Passage(episode, build_extractor("hand_joints", config), config, lambda: None)
    return list(passage.clips()), passage


def test_recorded_hands_of_egodex_are_clips_at_the_very_joints(tmp_path: Path) -> None:
    _, joints_T213 = moving_hand(FRAMES, RATE_HZ)
    confidence_T = np.where(np.arange(FRAMES) == 30, 0.1, 0.9)
    camera = write_egodex(tmp_path / "set", joints_T213, confidence_T)
    source = {"name": "egodex", "kind": "data_set", "path": tmp_path / "set", "effector": "hand_joints"}
    episodes, rejected = indexed(IndexConfig.model_validate({"sources": [source]}), tmp_path / "index")
    assert not rejected
    (clip,), passage = clips_of(episodes)
    assert not passage.rejections, "the left hand is behind the camera and no stretch of anything"
    assert (clip.meta.side, clip.meta.scale, clip.meta.depth_source) == ("right", "metric", "recorded")
    assert clip.meta.embodiment == "human-hand" and clip.meta.camera_motion == "given"
    grasp = (joints_T213[:, 4] + joints_T213[:, 8]) / 2
    known = np.arange(FRAMES) != 30
    np.testing.assert_allclose(clip.arrays["grasp"][known], grasp[known], atol=1e-4)
    np.testing.assert_allclose(clip.arrays["grasp"][30], grasp[30], atol=1e-3)  # between its neighbours
    assert not clip.arrays["visible"][30].any() and clip.arrays["visible"][known].mean() > 0.2
    nearest = np.linalg.norm(clip.arrays["points"][:, :, None] - joints_T213[:, None], axis=-1).min(2)
    assert nearest.max() < 0.05, "skin is near joints"
    np.testing.assert_allclose(clip.arrays["world_from_camera"], camera, atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_joints_in_an_npz_file_beside_a_video_do_as_well(tmp_path: Path, side: str) -> None:
    _, joints_T213 = moving_hand(FRAMES, RATE_HZ)
    joints_T213[20:40] = np.nan  # two thirds of a second in which the hand was not seen
    folder = tmp_path / "videos"
    folder.mkdir()
    made.video(folder / "a.mp4", [90] * FRAMES, fps=RATE_HZ, size=SIZE)
    arrays: dict[str, Any] = {f"joints_{side}": joints_T213.astype(np.float32)}
    np.savez(folder / "a.npz", **arrays)
    sidecar = {"effector": "hand_joints", "arrays": "a.npz", "intrinsics": INTRINSICS}
    (folder / "a.json").write_text(json.dumps(sidecar))
    source = {"name": "mine", "path": folder}
    episodes, rejected = indexed(IndexConfig.model_validate({"sources": [source]}), tmp_path / "index")
    assert not rejected
    clips, _ = clips_of(episodes, clips={"rest_s": None}, hand={"min_seconds": 0.5, "points": 50})
    assert [clip.arrays["points"].shape for clip in clips] == [(20, 50, 3), (20, 50, 3)]
    assert {clip.meta.side for clip in clips} == {side}


def test_without_joints_there_is_a_reason(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    made.video(folder / "a.mp4", [90] * 10, fps=RATE_HZ, size=SIZE)
    (folder / "a.json").write_text(json.dumps({"effector": "hand_joints", "intrinsics": INTRINSICS}))
    made.video(folder / "b.mp4", [80] * 10, fps=RATE_HZ, size=SIZE)
    np.savez(folder / "b.npz", joints_left=np.zeros((10, 20, 3)))
    sidecar = {"effector": "hand_joints", "arrays": "b.npz", "intrinsics": INTRINSICS}
    (folder / "b.json").write_text(json.dumps(sidecar))
    sources = [
        {"name": "mine", "path": folder},
        {"name": "lab", "kind": "data_set", "path": made.robomimic(tmp_path / "lab", 1), "effector": "hand_joints"},
    ]
    episodes, rejected = indexed(IndexConfig.model_validate({"sources": sources}), tmp_path / "index")
    assert [one.reason for one in rejected] == ["bad_sidecar", "no_joints"]
    assert "joints_left or joints_right" in rejected[0].detail and "effector: hand" in rejected[1].detail
    with pytest.raises(Exception, match=r"joints_left is \[10, 20, 3\], expected \[10, 21, 3\]"):
        list(EpisodeReader(episodes[0]).frames(None))
