"""Real data sets: every number, word and picture is what an independent reading finds in the same files."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data.config import IndexConfig
from data.reader import EpisodeReader
from data.sources.folder import DataSet, data_sets, recordings
from data.sources.recording import Recording, Rejected
from tests.indexed import indexed
from tests.source_files import Example, crc32c

G1, BRIDGE = "robot/g1_inspire_lerobot", "robot/bridge_rlds"
CAMERA = "observation.images.cam_high"


def read(footage: Path, name: str) -> tuple[Path, list[Recording], list[Rejected]]:
    (one,) = data_sets(footage / name)
    found = list(recordings(one))
    rejected = [item for item in found if isinstance(item, Rejected)]
    return one.root, [item for item in found if isinstance(item, Recording)], rejected


def test_lerobot_g1(footage: Path) -> None:
    """v2.1: 3 of 100 episodes are there. Tables beside pyarrow, pictures beside PyAV."""
    root, found, rejected = read(footage, G1)
    assert [one.name for one in found] == ["episode-000028", "episode-000029", "episode-000030"]
    assert len(rejected) == 97 and {one.reason for one in rejected} == {"missing"}
    assert [one.frames for one in found] == [278, 221, 277]
    declared = json.loads((root / "meta/info.json").read_text())["features"]["action"]["names"][0]
    for one in found:
        stem = one.name.replace("-", "_")
        table: Any = pq.read_table(root / f"data/chunk-000/{stem}.parquet")
        assert one.actions is not None and one.proprio is not None
        np.testing.assert_array_equal(one.actions.values, np.array(table["action"].to_pylist(), np.float32))
        np.testing.assert_array_equal(one.proprio.values, np.array(table["observation.state"].to_pylist(), np.float32))
        np.testing.assert_array_equal(one.timestamps, table["timestamp"].to_numpy())
        assert list(one.actions.names) == declared and len(declared) == 26
        assert set(one.instructions) == {"Pick up the yellow bottle on the table."}
        assert (one.robot, one.license) == ("Unitree_G1_Inspire", "MIT License")
        camera = one.cameras[CAMERA]
        assert (camera.width, camera.height, camera.fps) == (640, 480, 30)
        pairs = zip(camera.frames(), pyav(root / f"videos/chunk-000/{CAMERA}/{stem}.mp4"), strict=True)
        count = 0
        for count, (ours, theirs) in enumerate(pairs, start=1):  # noqa: B007 - how many there were
            # two decoders of one stream differ in how they turn YUV into RGB, by a level or two
            assert np.abs(ours.astype(np.int16) - theirs).mean() < 1.5
        assert count == one.frames
    first = found[0].actions
    assert first is not None
    np.testing.assert_allclose(first.values[0, :3], [-0.7672546, 0.4340054, -0.5612147], rtol=1e-6)


def test_a_stretch_of_a_real_video_is_that_of_the_whole(footage: Path) -> None:
    _, found, _ = read(footage, G1)
    camera = found[1].cameras[CAMERA]
    whole = [image[::40, ::40].copy() for image in camera.frames()]
    part = [image[::40, ::40].copy() for image in camera.frames(100, 110)]
    np.testing.assert_array_equal(part, whole[100:110])


def pyav(path: Path) -> Iterator[np.ndarray]:
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


@pytest.mark.parametrize(
    ("name", "frames"),
    [("rt1", [33, 29, 32, 46, 39, 41]), ("widowx", [37, 16]), ("dexterous", [391, 399, 515])],
)
def test_robot_videos(footage: Path, tmp_path: Path, name: str, frames: list[int]) -> None:
    """Plain videos, from the index: every frame beside PyAV, in order."""
    source = {"name": name, "path": footage / "robot" / name, "effector": "gripper"}
    episodes, _ = indexed(IndexConfig.model_validate({"sources": [source]}), tmp_path)
    ordered = sorted(episodes, key=lambda episode: episode.path)
    assert [episode.frames for episode in ordered] == frames
    for episode in ordered:
        pairs = zip(EpisodeReader(episode).frames(None), pyav(episode.path), strict=True)
        for count, (ours, theirs) in enumerate(pairs):
            assert ours.index == count and ours.image.shape == theirs.shape
            assert np.abs(ours.image[::8, ::8].astype(np.int16) - theirs[::8, ::8]).mean() < 1.5, count


def test_rlds_bridge(footage: Path) -> None:
    """25 episodes of 10 steps, 4 cameras. Frames of the file by hand, messages by protobuf, pictures by Pillow."""
    root, found, rejected = read(footage, BRIDGE)
    shard = root / "bridge_dataset-train.tfrecord-00000-of-00001"
    messages = list(by_hand(shard.read_bytes()))
    assert len(found) == len(messages) == 25
    assert [(one.reason, Path(one.item).name) for one in rejected] == [
        ("missing", "bridge_dataset-val.tfrecord-00000-of-00001")
    ]
    pictures = 0
    for one, message in zip(found, messages, strict=True):
        feature = message.features.feature
        assert one.actions is not None and one.proprio is not None and one.frames == 10
        for ours, name in ((one.actions, "steps/action"), (one.proprio, "steps/observation/state")):
            np.testing.assert_array_equal(ours.values.ravel(), np.array(feature[name].float_list.value, np.float32))
        words = feature["steps/language_instruction"].bytes_list.value
        assert [word.encode() for word in one.instructions] == list(words)
        for name, camera in one.cameras.items():
            encoded = feature[f"steps/observation/{name}"].bytes_list.value
            for ours, theirs in zip(camera.frames(), encoded, strict=True):
                np.testing.assert_array_equal(ours, np.asarray(Image.open(io.BytesIO(theirs)).convert("RGB")))
                pictures += 1
    assert pictures == 25 * 10 * 4
    first, last = found[0].proprio, found[-1].actions
    assert first is not None and last is not None
    np.testing.assert_allclose(first.values[0, :3], [0.23381479, 0.11244296, 0.17504855], rtol=1e-6)
    assert found[0].instructions[0] == "put cup from counter or drying rack into sink"


def by_hand(data: bytes) -> Iterator[Any]:
    """Messages of a TFRecord file; the checksum of each length is made bit by bit (tests/source_files.py)."""
    at = 0
    while at < len(data):
        length, told = struct.unpack_from("<QI", data, at)
        assert told == crc32c(data[at : at + 8])
        yield Example.FromString(data[at + 12 : at + 12 + length])
        at += 16 + length


def test_a_real_shard_that_was_cut_off(footage: Path, tmp_path: Path) -> None:
    """Whatever is whole before the cut is read, and the rest is told with its place."""
    root = footage / BRIDGE / "bridge_dataset/1.0.0"
    for path in root.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    shard = tmp_path / "bridge_dataset-train.tfrecord-00000-of-00001"
    shard.write_bytes(shard.read_bytes()[:1_000_000])
    found = list(recordings(DataSet("rlds", tmp_path)))
    assert sum(isinstance(item, Recording) for item in found) == 7
    (cut,) = [item for item in found if isinstance(item, Rejected) and item.reason == "truncated"]
    assert "at byte" in cut.detail and "of 1000000" in cut.detail


@pytest.mark.parametrize("name", [G1, BRIDGE])
def test_names_are_unique_and_safe(footage: Path, name: str) -> None:
    _, found, _ = read(footage, name)
    names = [one.name for one in found]
    assert len(set(names)) == len(names) and all(
        set(one) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") for one in names
    )
