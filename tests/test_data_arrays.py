"""The NPZ file beside a video: sound ones come back as they are, damage and nonsense as a rejection that says what."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest

from data.footage import Video
from data.index import Episode
from data.reader import EpisodeReader
from data.sidecar import Sidecar
from data.video import Unreadable
from extract.gripper.labelled import has_array
from extract.gripper.learned.model import load_network
from extract.gripper.registered.model import load_model
from pipeline.errors import UserError

T, H, W = 5, 48, 64
SPEC = {"names": ["a"], "proprio_names": ["x", "y"], "unit": "m", "frame": "base", "mode": "delta", "rate_hz": 20}


def episode_in(folder: Path, frames: int = T, **told: Any) -> Episode:
    sidecar = {"arrays": "a.npz", "labelled": True, "action_spec": SPEC, "embodiment": "arm", **told}
    return Episode(
        episode_id="a-0", source="mine", path=folder / "a.mp4", bytes=1, sha256="0", width=W, height=H, fps=20,
        frames=frames, duration_s=0.25, focal_35mm=None, embodiment="arm", instruction="", group="a", license="",
        sidecar=Sidecar.model_validate(sidecar),
    )  # fmt: skip


def sound() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    poses = np.tile(np.eye(4), (T, 1, 1))
    return {
        "depth": random.integers(0, 1000, (T, H, W)).astype(np.uint16),
        "mask": random.random((T, H, W)) > 0.5,
        "actor": np.ones((T, H, W), np.uint8),
        "world_from_camera": poses,
        "base_from_effector": poses.astype(np.float32),
        "opening": np.full(T, np.nan),
        "grasp": random.normal(size=(T, 3)),
        "actions": random.normal(size=(T, 1)),
        "proprio": random.normal(size=(T, 2)),
        "joints_left": random.normal(size=(T, 21, 3)),
    }


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_sound_arrays_come_back_as_they_are_and_others_are_left_alone(
    tmp_path: Path, save: Callable[..., None]
) -> None:
    save(tmp_path / "a.npz", **sound(), notes=np.array(["mine"]))
    found = Video(episode_in(tmp_path)).arrays
    assert found.keys() == sound().keys()
    for name, array in sound().items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    assert "actions" not in Video(episode_in(tmp_path, labelled=False)).arrays


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("depth", np.zeros((T, H // 2, W)), r"a.npz: depth is \[5, 24, 64\], expected \[5, 48, 64\]"),
        ("mask", np.zeros((T, W, H)), r"a.npz: mask is \[5, 64, 48\], expected \[5, 48, 64\]"),
        ("depth", np.zeros((T - 1, H, W)), "a.npz: depth has 4 entries for 5 frames"),
        ("depth", np.array(3.0), r"a.npz: depth is \[\], expected \[5, 48, 64\]"),
        ("depth", np.full((T, H, W), "far"), "a.npz: depth has dtype <U3, expected numbers"),
        ("opening", np.full(T, None), "a.npz: opening has dtype object, expected numbers"),
        ("opening", np.zeros((T, 1)), r"a.npz: opening is \[5, 1\], expected \[5\]"),
        ("world_from_camera", np.zeros((T, 3, 4)), r"world_from_camera is \[5, 3, 4\], expected \[5, 4, 4\]"),
        ("base_from_effector", np.zeros((T, 16)), r"base_from_effector is \[5, 16\], expected \[5, 4, 4\]"),
        ("actions", np.zeros((T, 2)), r"a.npz: actions is \[5, 2\], expected \[5, 1\]"),
        ("actions", np.zeros((T, 1), complex), "a.npz: actions has dtype complex128, expected numbers"),
        ("proprio", np.zeros(T), r"a.npz: proprio is \[5\], expected \[5, 2\]"),
    ],
)
def test_what_an_array_cannot_be_is_told(tmp_path: Path, name: str, array: np.ndarray, message: str) -> None:
    np.savez(tmp_path / "a.npz", allow_pickle=True, **sound() | {name: array})
    with pytest.raises(Unreadable, match=message) as refused:
        _ = Video(episode_in(tmp_path)).arrays
    assert refused.value.reason == "bad_arrays"


def test_an_array_that_would_not_fit_into_memory_is_not_read(tmp_path: Path) -> None:
    with ZipFile(tmp_path / "a.npz", "w") as archive, archive.open("depth.npy", "w") as stream:
        huge = {"descr": "<f8", "fortran_order": False, "shape": (10**9, 10**6)}
        np.lib.format.write_array_header_1_0(stream, huge)
    with pytest.raises(Unreadable, match=r"depth is \[1000000000, 1000000\], expected \[5, 48, 64\]"):
        _ = Video(episode_in(tmp_path)).arrays


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damage_anywhere_is_a_rejection(tmp_path: Path, save: Callable[..., None]) -> None:
    random, path = np.random.default_rng(1), tmp_path / "a.npz"
    save(path, **sound())
    content = path.read_bytes()
    directory, refused = content.index(b"PK\x01\x02"), 0
    for trial in range(400):
        damaged = bytearray(content)
        if trial % 4 == 0:
            del damaged[random.integers(len(content)) :]
        else:  # in the data, or where the archive says what is in it
            start = 0 if trial % 4 == 1 else directory
            for place in random.integers(start, len(content), 3):
                damaged[place] = random.integers(256)
        path.write_bytes(damaged)
        try:
            _ = Video(episode_in(tmp_path)).arrays
        except Unreadable as error:
            refused += 1
            assert error.reason == "bad_arrays" and "a.npz" in error.detail
    assert refused > 200


@pytest.mark.parametrize("content", [b"", b"not an archive", b"\x93NUMPY\x01\x00", b"PK\x03\x04", b"PK\x05\x06"])
def test_what_is_no_archive_is_a_rejection_and_no_model(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(Unreadable, match=r"bad_arrays: a\.npz cannot be read"):
        _ = Video(episode_in(tmp_path)).arrays
    assert not has_array(episode_in(tmp_path), "depth")
    for load in (load_model, load_network):
        with pytest.raises(UserError, match=r"a\.npz cannot be read as a gripper"):
            load(tmp_path / "a.npz")


def test_depth_that_is_no_distance_is_not_measured(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    make_video(tmp_path / "a.mp4", frames=T)
    depth = np.full((T, H, W), 0.7, np.float32)
    depth[:, 0, :4] = np.nan, np.inf, -1, 0
    np.savez(tmp_path / "a.npz", depth=depth)
    episode = episode_in(tmp_path, depth_unit_m=1, labelled=False)
    for frame in EpisodeReader(episode).frames(None):
        assert frame.depth is not None and frame.depth.dtype == np.float32
        assert (frame.depth[0, :4] == 0).all() and (frame.depth[1:] == np.float32(0.7)).all()


def test_more_frames_than_the_file_promised_are_a_rejection(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    make_video(tmp_path / "a.mp4", frames=T + 2)
    np.savez(tmp_path / "a.npz", depth=sound()["depth"])
    with pytest.raises(Unreadable, match=r"a\.npz has 5 entries; frame 5 is none"):
        list(EpisodeReader(episode_in(tmp_path, frames=0, labelled=False)).frames(None))
