"""Foreign data sets are read as they were written, whatever their format; files made here in the writers' layouts."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data.sources.folder import DataSet, data_sets, recordings, reopened
from data.sources.lerobot_depth import Quantised
from data.sources.mapping import GroupsLayout, StepsLayout, full, read_layout, shipped
from data.sources.parquet import EpisodeRows
from data.sources.pictures import decode_depth
from data.sources.recording import Recording
from pipeline.errors import UserError
from tests import source_files as made


def read(root: Path, layout: Path | None = None) -> list[Recording]:
    """All recordings of the one data set below a folder; nothing may be rejected."""
    (one,) = data_sets(root)
    found = list(recordings(one, layout))
    assert all(isinstance(item, Recording) for item in found), found
    return [item for item in found if isinstance(item, Recording)]


def assert_shades(found: Recording, camera: str, episode: int, start: int = 0, stop: int = made.FRAMES) -> None:
    """Pictures are those of the episode, frame by frame; compression may move a grey by 2 of 255."""
    shown = [float(image.mean()) for image in found.cameras[camera].frames(start, stop)]
    assert shown == pytest.approx([made.shade(episode, frame) for frame in range(start, stop)], abs=2)


@pytest.mark.parametrize("write", [made.lerobot_21, made.lerobot_30])
def test_lerobot_episodes_are_read_as_written(tmp_path: Path, write) -> None:
    found = read(write(tmp_path / "set"))
    assert [one.name for one in found] == ["episode-000000", "episode-000001", "episode-000002"]
    for number, one in enumerate(found):
        assert one.frames == made.FRAMES and one.robot == "toy"
        assert one.actions is not None and one.proprio is not None
        np.testing.assert_array_equal(one.actions.values, made.actions(number))
        np.testing.assert_array_equal(one.proprio.values, made.states(number))
        assert one.actions.names == ("x", "y") and one.proprio.names == ("a", "b", "c")
        assert one.instructions == (f"task {number % 2}",) * made.FRAMES
        np.testing.assert_allclose(one.timestamps, np.arange(made.FRAMES) / made.FPS, atol=1e-6)
        for camera, size in ((made.FRONT, made.VIDEO_SIZE), (made.WRIST, made.IMAGE_SIZE)):
            assert (one.cameras[camera].width, one.cameras[camera].height) == size
            assert_shades(one, camera, number)
            assert_shades(one, camera, number, 2, 5)


def test_rows_are_found_where_they_are_not_where_meta_has_them(tmp_path: Path) -> None:
    """lerobot's converter tells the wrong file for an episode that begins a new one."""
    root = made.lerobot_30(tmp_path)
    table: Any = pq.read_table(root / "data/chunk-000/file-000.parquet")
    for number in range(3):
        part = table.slice(number * made.FRAMES, made.FRAMES)
        pq.write_table(part, root / f"data/chunk-000/file-{number:03d}.parquet")
    for number, one in enumerate(read(root)):
        assert one.actions is not None
        np.testing.assert_array_equal(one.actions.values, made.actions(number))
        assert_shades(one, made.WRIST, number)


def test_pictures_in_tables_are_not_held(tmp_path: Path) -> None:
    """A row group passes through page by page; a page is some 1000 rows."""
    noise = np.random.default_rng(0).bytes(2_000)
    path = tmp_path / "file.parquet"
    values = pa.array([{"bytes": noise[k % 2000 :] + noise[: k % 2000], "path": ""} for k in range(8192)])
    pq.write_table(pa.table({"image": values}), path, use_dictionary=False)
    before = pa.total_allocated_bytes()
    held = [pa.total_allocated_bytes() - before for _ in EpisodeRows(path, 8192).stream("image", 100, 8100)]
    assert len(held) == 8000 and max(held) < 8192 * 2000 / 4


def test_a_card_declares_the_licence(tmp_path: Path) -> None:
    root = made.lerobot_21(tmp_path, episodes=1)
    (root / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Toy\n")
    assert [(one.license, one.origin["license"]) for one in read(root)] == [("apache-2.0", "README.md: license")]


def test_lerobot_depth_video_is_metric(tmp_path: Path) -> None:
    """Levels that LeRobot's formula makes of known distances come back as these distances, and the lowest as a hole."""
    root = made.lerobot_21(tmp_path, episodes=1)
    name, wanted = f"{made.FRONT}_depth", np.array([0.3, 0.6, 1.2, 2.4, 4.8, 9.6])
    feature = {"dtype": "video", "shape": [48, 64, 1], "names": ["height", "width", "channels"]}
    made.edited(
        root / "meta/info.json",
        lambda info: info["features"].update({name: {**feature, "info": {"is_depth_map": True}}}),
    )
    levels = np.rint((np.log(wanted + 3.5) - np.log(3.51)) / (np.log(13.5) - np.log(3.51)) * 4095).astype(np.uint16)
    path = root / f"videos/chunk-000/{name}/episode_000000.mp4"
    path.parent.mkdir(parents=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("hevc", rate=made.FPS, options={"x265-params": "lossless=1:log-level=none"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "gray12le"
        for level in levels:
            image = np.full((48, 64), level, np.uint16)
            image[0, 0] = 0
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="gray12le")))
        container.mux(stream.encode(None))
    (one,) = read(root)
    depth = list(one.cameras[made.FRONT].depth())
    assert name not in one.cameras and depth[0].dtype == np.float32
    np.testing.assert_allclose([image[10, 10] for image in depth], wanted, atol=0.003)
    assert all(image[0, 0] == 0 for image in depth)
    np.testing.assert_allclose(
        [image[10, 10] for image in one.cameras[made.FRONT].depth(3, 5)], wanted[3:5], atol=0.003
    )


def test_even_depth_levels_are_metres() -> None:
    scale = Quantised(nearest_m=1.0, farthest_m=5.095, logarithmic=False)
    np.testing.assert_allclose(scale.metres(np.array([0, 1000, 4095])), [0, 2.0, 5.095], rtol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "stored", "unit_m"), [(np.float32, 1.25, None), (np.uint16, 1250, None), (np.uint16, 5, 0.25)]
)
def test_depth_pictures_are_metres(dtype: type, stored: float, unit_m: float | None) -> None:
    """Floats are metres and integers millimetres unless told otherwise; what is no distance is a hole."""
    values = np.full((4, 6), stored, dtype)
    values[0, 0] = np.nan if dtype is np.float32 else 0
    out = io.BytesIO()
    Image.fromarray(values).save(out, "TIFF")
    depth = decode_depth(out.getvalue(), unit_m, "here")
    assert depth.dtype == np.float32 and depth[0, 0] == 0
    np.testing.assert_allclose(depth[1:], 1.25)


@pytest.mark.parametrize(
    "layout", [shape for shape in shipped() if shape.format == "rlds"], ids=lambda shape: shape.name
)
def test_each_rlds_layout_is_chosen_for_its_own_features(tmp_path: Path, layout: StepsLayout) -> None:
    """Features of 3 numbers each, under the names that the layout uses, and others beside them."""
    features: dict[str, Any] = {"steps/is_first": [1, 0]}
    tree: dict[str, Any] = {}
    for name in sorted(layout.needs()):
        image, words = name in map(full, layout.cameras.values()), name in map(full, layout.instruction)
        features[name] = [made.picture(50)] * 2 if image else [b"go"] * 2 if words else [1.0] * 6
        shape = {"dimensions": ["3"]}
        leaf = {"image": {}} if image else {"text": {}} if words else {"tensor": {"shape": shape, "dtype": "float32"}}
        tree[name.removeprefix("steps/")] = leaf
    root = made.rlds(tmp_path, episodes=1)
    step = {"featuresDict": {"features": tree}}
    steps = {"featuresDict": {"features": {"steps": {"sequence": {"feature": step}}}}}
    made.write_json(root / "features.json", steps)
    made.shard(root).write_bytes(made.framed(made.example(features)))
    (one,) = read(root)
    assert one.origin["timestamps"] == f"regular at {layout.rate_hz:g} Hz, as the {layout.name} layout says"
    assert one.actions is not None and one.actions.values.shape == (2, 3 * len(layout.actions))
    assert set(one.instructions) == {"go"} and set(one.cameras) == set(layout.cameras)


def test_rlds_episodes_are_read_as_written(tmp_path: Path) -> None:
    found = read(made.rlds(tmp_path))
    assert [one.name for one in found] == [f"train-00000-{number:06d}" for number in range(3)]
    for number, one in enumerate(found):
        written = made.steps(number)
        assert one.actions is not None and one.proprio is not None
        np.testing.assert_array_equal(one.actions.values.ravel(), written["steps/action"])
        np.testing.assert_array_equal(one.proprio.values.ravel(), written["steps/observation/state"])
        assert one.instructions == (f"task {number}",) * made.FRAMES
        assert one.timestamps[1] == 0.2 and one.robot == "widowx"
        assert set(one.cameras) == {f"image_{n}" for n in range(4)}
        assert_shades(one, "image_2", number)


def test_integers_of_every_length_are_read(tmp_path: Path) -> None:
    """Variable-length integers, negative ones too, against protobuf's own writer."""
    from data.sources.example import features

    values = [0, 1, 127, 128, 300, 2**31, 2**62, -1, -(2**63)]
    data = made.example({"numbers": values, "words": [b"", b"a"]})
    found = features(data, 0, len(data))
    assert found["numbers"].numbers().tolist() == values
    assert [found["words"].text(place) for place in range(2)] == [b"", b"a"]


def test_an_rlds_layout_puts_parts_in_its_order(tmp_path: Path) -> None:
    root = made.rlds(tmp_path / "set")
    layout = tmp_path / "mine.yaml"
    layout.write_text(
        "{format: rlds, name: mine, rate_hz: 10, cameras: {top: observation/image_3},"
        " instruction: [language_instruction],"
        " actions: [{path: observation/state, columns: [6, 7]}, {path: action, columns: [0, 2], names: [x, y]}]}"
    )
    (first, *_) = read(root, layout)
    assert first.actions is not None and first.actions.names == ("state_0", "x", "y")
    np.testing.assert_array_equal(first.actions.values[1], [13, 3.5, 4.0])
    assert list(first.cameras) == ["top"] and first.proprio is None and first.timestamps[1] == 0.1


def test_robomimic_demonstrations_are_read_as_written(tmp_path: Path) -> None:
    found = read(made.robomimic(tmp_path))
    assert [one.name for one in found] == ["demo-demo-0", "demo-demo-1", "demo-demo-2"]
    for number, one in enumerate(found):
        assert one.actions is not None and one.proprio is not None
        np.testing.assert_array_equal(one.actions.values[:, 6], made.actions(number)[:, 0])
        assert one.actions.names[-1] == "gripper" and one.proprio.values.shape == (made.FRAMES, 9)
        assert set(one.cameras) == {"agentview", "robot0_eye_in_hand"}
        assert_shades(one, "robot0_eye_in_hand", number)
        assert one.timestamps[1] == 1 / made.FPS and set(one.instructions) == {""}


def test_libero_pictures_stand_upright_and_say_what_to_do(tmp_path: Path) -> None:
    one = read(made.libero(tmp_path))[1]
    image = next(one.cameras["agentview"].frames())
    assert image[0, 0, 0] == 2 * image[-1, 0, 0]
    assert set(one.instructions) == {"put it there"}


def test_egodex_hands_are_metres_in_the_camera_frame(tmp_path: Path) -> None:
    """A joint half a metre before the camera, 10 cm left of its axis (world y), lies at (-0.1, -height, 0.5)."""
    layout = next(shape for shape in shipped() if isinstance(shape, GroupsLayout) and shape.hands)
    assert layout.hands is not None
    (one,) = read(made.egodex(tmp_path, layout.hands.names))
    assert one.hands is not None and one.hands.names[:2] == ("Hand", "ThumbKnuckle") and len(one.hands.names) == 25
    np.testing.assert_allclose(
        one.hands.joints["left"][:, 3], np.tile([-0.1, -0.003, 0.5], (made.FRAMES, 1)), atol=1e-6
    )
    np.testing.assert_allclose(one.hands.joints["right"][0, 0], [0.1, 0, 0.5], atol=1e-6)
    np.testing.assert_allclose(one.hands.confidence["left"], 0.9)
    assert set(one.instructions) == {"close it"} and one.license == "CC-BY-NC-ND-4.0" and one.robot == "human-hand"
    camera = one.cameras["egocentric"]
    assert camera.intrinsics is not None and camera.intrinsics[0, 2] == 32
    assert camera.world_from_camera is not None and camera.world_from_camera[0, 0, 3] == 1
    assert_shades(one, "egocentric", 0)


def test_a_layout_of_ones_own_reads_times_depth_and_words(tmp_path: Path) -> None:
    root = tmp_path / "set"
    root.mkdir()
    times = np.array([0.0, 0.1, 0.25])
    with h5py.File(root / "a.h5", "w") as file:
        file["ep/0/rgb"] = np.zeros((3, 4, 6, 3), np.uint8)
        file["ep/0/z"] = np.full((3, 4, 6, 1), 1500, np.uint16)
        file["ep/0/t"], file["ep/0/q"] = times, np.arange(3)
        file["ep/0/said"] = ["go", "go", "stop"]
    layout = tmp_path / "mine.yaml"
    layout.write_text(
        "{format: hdf5, name: mine, episodes: ep/*, length: q, rate_hz: 10, timestamps: t, proprio: [{path: q}],"
        " cameras: {head: {path: rgb, depth: z, depth_unit_m: 0.001}}, instruction: [{at: said}]}"
    )
    (one,) = read(root, layout)
    np.testing.assert_array_equal(one.timestamps, times)
    assert one.instructions == ("go", "go", "stop") and one.proprio is not None and one.proprio.values.shape == (3, 1)
    assert all(np.allclose(image, 1.5) for image in one.cameras["head"].depth())


@pytest.mark.parametrize("write", [made.lerobot_21, made.lerobot_30, made.rlds, made.robomimic])
def test_a_recording_is_found_again_by_its_address(tmp_path: Path, write) -> None:
    (one,) = data_sets(write(tmp_path))
    for found in recordings(one):
        assert isinstance(found, Recording)
        again = reopened(one, json.loads(json.dumps(found.address)))
        assert (again.name, again.frames, again.instructions) == (found.name, found.frames, found.instructions)
        assert again.actions is not None and found.actions is not None
        np.testing.assert_array_equal(again.actions.values, found.actions.values)
        assert all(piece.path.is_file() for camera in found.cameras.values() for piece in camera.pieces)


def test_names_that_differ_in_signs_only_stay_apart(tmp_path: Path) -> None:
    for name in ("a_b", "a-b"):
        made.robomimic(tmp_path / name, episodes=1)
    assert [one.name for one in read(tmp_path)] == ["a-b-demo-demo-0", "a-b-demo-demo-0-2"]


def test_several_data_sets_lie_in_one_folder(tmp_path: Path) -> None:
    made.lerobot_21(tmp_path / "one", 1)
    made.rlds(tmp_path / "two", 1)
    made.robomimic(tmp_path / "three", 1)
    assert [one.kind for one in data_sets(tmp_path)] == ["lerobot", "rlds", "hdf5"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "{format: hdf5, name: x, episodes: data/*, length: actions, rate_hz: 20, cameras: {a: {path: b}}, run: ls}",
            "run",
        ),
        ("!!python/object/apply:os.system [ls]", "YAML"),
        ("{format: rlds, name: x, rate_hz: -5, cameras: {a: b}}", "rate_hz"),
        ("{format: rlds, name: x, rate_hz: 5, cameras: {}}", "cameras"),
        ("{format: parquet, name: x}", "format"),
        ("{format: hdf5, name: x, episodes: ., length: q, rate_hz: 1, cameras: {a: {video: ../../b.mp4}}}", "video"),
        ("just words", "content"),
    ],
)
def test_a_layout_that_is_wrong_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "layout.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=says):
        read_layout(path)


def test_a_layout_of_another_format_is_refused(tmp_path: Path) -> None:
    layout = tmp_path / "mine.yaml"
    layout.write_text("{format: rlds, name: mine, rate_hz: 10, cameras: {top: observation/image}}")
    with pytest.raises(UserError, match="does not fit"):
        list(recordings(DataSet("hdf5", made.robomimic(tmp_path / "set")), layout))
