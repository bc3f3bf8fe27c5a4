"""Folders of colour and depth: read as they were written, frame by frame, or rejected with a reason."""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from data.config import IndexConfig
from data.index import Episode, Rejection
from data.reader import EpisodeReader
from data.sources.folder import DataSet, data_sets, recordings, reopened
from data.sources.mapping import read_layout
from data.sources.recording import Recording, Rejected
from data.video import Unreadable
from pipeline.errors import UserError
from tests import rgbd_files as made
from tests.indexed import indexed
from tests.rgbd_files import FRAMES, MATRIX, SIZE

MINE = """
format: rgbd
name: mine
episodes: [c]
cameras:
  head:
    color: "c/{frame}.*"
    depth: "d/{frame}.*"
    depth_unit_m: 0.0005
    intrinsics: [[50, 0, 16], [0, 51, 12], [0, 0, 1]]
rate_hz: 10
instruction: [{at: info.json, key: [task, said]}, {at: said.txt}]
"""
Damage = Callable[[Path], Any]


def mine(root: Path, suffix: str = "png") -> Path:
    """A folder of the layout above, with its layout beside it."""
    for frame in range(FRAMES):
        made.write(root / f"c/{frame + 5}.jpg", made.color(frame))
        made.write(root / f"d/{frame + 5}.{suffix}", made.depth(frame))
    (root / "said.txt").write_text("put it\nthere\n")
    (root.parent / "mine.yaml").write_text(MINE)
    return root


def read(root: Path, layout: Path | None = None) -> list[Recording | Rejected]:
    (one,) = data_sets(root, layout)
    return list(recordings(one, layout))


def only(root: Path, layout: Path | None = None) -> Recording:
    (found,) = read(root, layout)
    assert isinstance(found, Recording), found
    return found


def assert_depth(one: Recording, camera: str, unit_m: float, first: int = 0) -> None:
    """Every frame is what was written."""
    found = list(one.cameras[camera].depth())
    assert len(found) == FRAMES
    for frame, metres in enumerate(found):
        np.testing.assert_array_equal(metres, made.depth(frame + first).astype(np.float32) * np.float32(unit_m))


def assert_colors(one: Recording, camera: str) -> None:
    shown = [float(image.mean()) for image in one.cameras[camera].frames()]
    assert shown == pytest.approx([20 + 10 * frame for frame in range(FRAMES)], abs=2)


def test_tum_pairs_by_time_and_places_the_camera(tmp_path: Path) -> None:
    one = only(made.tum(tmp_path))
    assert one.license == "CC-BY-4.0" and one.frames == FRAMES
    np.testing.assert_allclose(one.timestamps, np.arange(FRAMES) / 30, atol=1e-5)
    assert_depth(one, "rgb", 0.0002)
    assert_colors(one, "rgb")
    poses = one.cameras["rgb"].world_from_camera
    assert poses is not None
    np.testing.assert_allclose(poses[:, :3, 3], [[k / 30, 0, 1] for k in range(FRAMES)], atol=1e-5)
    np.testing.assert_allclose(np.arctan2(poses[:, 1, 0], poses[:, 0, 0]), np.arange(FRAMES) / 60, atol=1e-4)


def test_pictures_without_a_partner_in_time_are_left_out_and_told(tmp_path: Path) -> None:
    """One of six is named, two are more than the shipped layout allows."""
    root = made.tum(tmp_path)
    lines = (root / "depth.txt").read_text().splitlines(keepends=True)
    (root / "depth.txt").write_text("".join(lines[:3] + lines[4:]))
    told, one = read(root)
    assert isinstance(told, Rejected) and told.reason == "unpaired" and "no depth within 0.02 s" in told.detail
    assert isinstance(one, Recording) and one.frames == 5
    np.testing.assert_allclose(one.timestamps * 30, [0, 1, 3, 4, 5], atol=1e-3)
    assert [int(image[0, 1] / 0.0002 / 7 / 1000) for image in one.cameras["rgb"].depth()] == [0, 1, 3, 4, 5]
    poses = one.cameras["rgb"].world_from_camera
    assert poses is not None and poses[2, 0, 3] == pytest.approx(0.1, abs=1e-4)
    (root / "depth.txt").write_text("".join(lines[:3] + lines[5:]))
    (refused,) = read(root)
    assert isinstance(refused, Rejected) and refused.reason == "missing" and "2 of 6 pictures" in refused.detail


def test_open3d_recorder(tmp_path: Path) -> None:
    one = only(made.open3d(tmp_path))
    camera = one.cameras["color"]
    np.testing.assert_array_equal(camera.intrinsics, MATRIX)
    assert camera.fps == 30 and camera.world_from_camera is None
    assert_depth(one, "color", 0.001)
    told = {"depth_scale": 4000, "width": SIZE[0], "height": SIZE[1], "intrinsic_matrix": MATRIX}
    made.write_json(tmp_path / "camera_intrinsic.json", told)
    assert_depth(only(tmp_path), "color", 1 / 4000)


def test_dexycb_cameras_are_named_by_their_folders(tmp_path: Path) -> None:
    one = only(made.dexycb(tmp_path))
    assert one.name == "20200709-weiy-20200709-141754" and one.robot == "human-hand"
    assert list(one.cameras) == ["836212060125", "839512060362"]
    for number, (label, camera) in enumerate(one.cameras.items()):
        assert_depth(one, label, 0.001, number)
        assert camera.intrinsics is not None and camera.intrinsics.tolist()[0] == [600 + number, 0, 16]


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_a_layout_of_ones_own(tmp_path: Path, suffix: str) -> None:
    """Frames are in the order of their numbers: 10 comes after 9."""
    one = only(mine(tmp_path / "set", suffix), tmp_path / "mine.yaml")
    assert set(one.instructions) == {"put it there"} and one.cameras["head"].intrinsics is not None
    assert_depth(one, "head", 0.0005)
    assert_colors(one, "head")
    assert [image[0, 1] for image in one.cameras["head"].depth(2, 4)] == pytest.approx(
        [made.depth(frame)[0, 1] * 0.0005 for frame in (2, 3)]
    )
    made.write_json(tmp_path / "set/info.json", {"task": {"said": "as told"}})
    assert set(only(tmp_path / "set", tmp_path / "mine.yaml").instructions) == {"as told"}


def test_a_colour_video_with_depth_pictures_and_times(tmp_path: Path) -> None:
    root, times = tmp_path / "set", [0.0, 0.1, 0.2, 0.35, 0.4, 0.5]
    for frame in range(FRAMES):
        made.write(root / f"d/{frame}.png", made.depth(frame))
    with av.open(str(root / "color.mp4"), "w") as container:
        stream = container.add_stream("h264", rate=10)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for frame in range(FRAMES):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(made.color(frame), format="rgb24")))
        container.mux(stream.encode(None))
    (root / "times.txt").write_text("\n".join(f"{1000 * time:g}" for time in times))
    (tmp_path / "mine.yaml").write_text(
        "{format: rgbd, name: mine, episodes: [color.mp4], timestamps: times.txt, unit_s: 0.001,"
        " cameras: {a: {color: color.mp4, depth: 'd/{frame}.png', depth_unit_m: 0.001, pair: order}}}"
    )
    one = only(root, tmp_path / "mine.yaml")
    np.testing.assert_allclose(one.timestamps, times)
    assert_depth(one, "a", 0.001)
    assert_colors(one, "a")
    assert one.cameras["a"].fps == pytest.approx(10)


@pytest.mark.parametrize("make", [made.tum, made.open3d, made.dexycb])
def test_recordings_are_found_again_and_indexed(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    make(tmp_path / "sets/one")
    episodes, rejected = index(tmp_path / "sets", tmp_path / "index")
    (one,) = (item for item in recordings(DataSet("rgbd", tmp_path / "sets")) if isinstance(item, Recording))
    again = reopened(DataSet("rgbd", tmp_path / "sets"), json.loads(json.dumps(one.address)))
    assert (again.name, again.frames, list(again.cameras)) == (one.name, one.frames, list(one.cameras))
    assert not rejected and len(episodes) == len(one.cameras) and len({episode.group for episode in episodes}) == 1
    for episode in episodes:
        assert episode.recording is not None
        frames = list(EpisodeReader(episode).frames(None))
        depths = one.cameras[episode.recording.camera].depth()
        assert len(frames) == FRAMES
        for frame, depth in zip(frames, depths, strict=True):
            np.testing.assert_array_equal(frame.depth, depth)
        assert ("world_from_camera" in EpisodeReader(episode).arrays) == (make is made.tum)
    shutil.copytree(tmp_path / "sets/one", tmp_path / "sets/two")
    again_found, refused = index(tmp_path / "sets", tmp_path / "index")
    if make is not made.dexycb:  # whose calibration lies at the root of its data set, which is another one now
        assert [episode.episode_id.rsplit("-", 1)[1] for episode in again_found] == [
            episode.episode_id.rsplit("-", 1)[1] for episode in episodes
        ]
        assert {one.reason for one in refused} == {"duplicate"}
    picture = sorted((tmp_path / "sets/one").rglob("*000003.jpg" if make is not made.tum else "rgb/3.png"))[0]
    made.write(picture, made.color(9))
    shutil.rmtree(tmp_path / "sets/two")
    changed, _ = index(tmp_path / "sets", tmp_path / "index")
    assert not {one.episode_id for one in changed} & {one.episode_id for one in episodes}, "content decides"


def index(folder: Path, out: Path, **source: Any) -> tuple[list[Episode], list[Rejection]]:
    given = {"name": "depth", "kind": "data_set", "path": folder, "effector": "hand", **source}
    return indexed(IndexConfig.model_validate({"sources": [given]}), out)


def bits(name: str, dtype: type) -> Damage:
    """Depth of one frame with another type."""
    return lambda root: made.write(root / name, made.depth(2).astype(dtype))


def png(width: int, height: int) -> bytes:
    """Declares these pixels of 16 bits, and holds none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(10))) + chunk(b"IEND", b"")


def text(name: str, content: str) -> Damage:
    return lambda root: (root / name).write_text(content)


def gone(name: str) -> Damage:
    return lambda root: (root / name).unlink()


def cut(name: str) -> Damage:
    return lambda root: (root / name).write_bytes((root / name).read_bytes()[:80])


def sized(name: str, size: tuple[int, int]) -> Damage:
    return lambda root: made.write(root / name, made.depth(1, size) if name.startswith("d") else made.color(1, size))


def all_depth_of(size: tuple[int, int]) -> Damage:
    return lambda root: [made.write(path, made.depth(1, size)) for path in sorted((root / "depth").glob("*.png"))]


def line(name: str, number: int, content: str) -> Damage:
    """One line of a text replaced."""

    def damage(root: Path) -> None:
        lines = (root / name).read_text().splitlines()
        lines[number] = content
        (root / name).write_text("\n".join(lines))

    return damage


THIRD, INTRINSIC = "depth/000003.png", "camera_intrinsic.json"
OPEN3D: dict[str, tuple[Damage, str, str]] = {
    "depth of a frame is missing": (gone(THIRD), "missing", "first is frame 000003"),
    "colour of a frame is missing": (gone("color/000000.jpg"), "missing", "1 of depth/{frame}.png no colour"),
    "8 bits": (bits(THIRD, np.uint8), "bad_dtype", "expected 16 bits"),
    "all depth is smaller": (all_depth_of((16, 12)), "mixed_sizes", "depth is 16x12, colour 32x24"),
    "one depth is smaller": (sized(THIRD, (16, 12)), "mixed_sizes", "frame 3"),
    "one colour is larger": (sized("color/000004.jpg", (64, 48)), "mixed_sizes", "frame 4"),
    "depth is colour": (lambda root: made.write(root / THIRD, made.color(1)), "bad_shape", "one channel"),
    "cut depth": (cut(THIRD), "not_an_image", "000003.png"),
    "cut colour": (cut("color/000001.jpg"), "not_an_image", "000001.jpg"),
    "text as depth": (text(THIRD, "hello"), "not_an_image", "no TIFF or PNG"),
    "empty depth": (text(THIRD, ""), "not_an_image", "0 bytes"),
    "png bomb": (lambda root: (root / THIRD).write_bytes(png(60_000, 60_000)), "too_large", "pixels"),
    "intrinsics of another size": (
        text(INTRINSIC, json.dumps({"width": 640, "height": 480, "intrinsic_matrix": MATRIX})),
        "mixed_sizes",
        "is for 640x480",
    ),
    "intrinsics are no matrix": (text(INTRINSIC, '{"intrinsic_matrix": [1, 2, 3]}'), "bad_shape", "no camera matrix"),
    "intrinsics are words": (text(INTRINSIC, '{"intrinsic_matrix": "wide"}'), "bad_text", "camera_intrinsic.json"),
    "negative focal length": (
        text(INTRINSIC, '{"intrinsic_matrix": [[-5, 0, 1], [0, 5, 1], [0, 0, 1]]}'),
        "bad_shape",
        "no camera matrix",
    ),
    "intrinsics are no JSON": (text(INTRINSIC, "{"), "bad_json", "JSON"),
    "intrinsics nest without end": (text(INTRINSIC, "[" * 100_000), "bad_json", "JSON"),
    "depth scale is a word": (text(INTRINSIC, '{"depth_scale": "mm"}'), "bad_info", "'mm'"),
}
TUM: dict[str, tuple[Damage, str, str]] = {
    "a listed picture is missing": (gone("rgb/2.png"), "missing", "which a list names"),
    "a path leads out": (line("depth.txt", 2, "1305031102.04 ../../x.png"), "unsafe_path", "../../x.png"),
    "an absolute path": (line("rgb.txt", 2, "1305031102.04 /etc/passwd"), "unsafe_path", "/etc/passwd"),
    "a time is a word": (line("rgb.txt", 2, "then rgb/1.png"), "bad_timestamps", "'then'"),
    "times run back": (line("rgb.txt", 2, "1305031102.0 rgb/1.png"), "bad_timestamps", "increase"),
    "a line of three words": (line("rgb.txt", 2, "1 2 3"), "bad_text", "3 words"),
    "the list is empty": (text("rgb.txt", "# nothing\n"), "ragged", "there are none"),
    "the list is no text": (lambda root: (root / "rgb.txt").write_bytes(b"\xff\xfe\x00"), "bad_text", "UTF-8"),
    "depth is of another time": (lambda root: made.tum(root, 0.5), "missing", "no depth within"),
    "poses are of another time": (text("groundtruth.txt", "1 0 0 0 0 0 0 1\n2 0 0 0 0 0 0 1"), "missing", "no pose"),
    "a pose of seven numbers": (text("groundtruth.txt", "1 2 3 4 5 6 7"), "bad_shape", "7 numbers"),
    "poses are ragged": (line("groundtruth.txt", 9, "1 2"), "ragged", "line 10"),
    "a pose is no number": (line("groundtruth.txt", 9, "a b c d e f g h"), "bad_text", "groundtruth"),
    "quaternions of zero": (text("groundtruth.txt", "1 0 0 0 0 0 0 0"), "bad_pose", "length 1"),
    "poses are not finite": (line("groundtruth.txt", 9, "nan 0 0 0 0 0 0 1"), "bad_timestamps", "finite"),
    "no poses": (text("groundtruth.txt", ""), "empty", "no numbers"),
}


def refusal(root: Path) -> tuple[str, str]:
    """Reads everything; the reason and detail of what is wrong."""
    try:
        for item in recordings(DataSet("rgbd", root)):
            if isinstance(item, Rejected):
                return item.reason, item.detail
            assert item.measured
            for camera in item.cameras.values():
                assert camera.world_from_camera is None or len(camera.world_from_camera) == item.frames
                for _ in zip(camera.frames(), camera.depth(), strict=True):
                    pass
    except Unreadable as error:
        return error.reason, error.detail
    return "", "nothing is wrong"


@pytest.mark.parametrize("name", OPEN3D)
def test_damaged_open3d(tmp_path: Path, name: str) -> None:
    damage, reason, says = OPEN3D[name]
    damage(made.open3d(tmp_path))
    found, detail = refusal(tmp_path)
    assert (found, says in detail) == (reason, True), (found, detail)


@pytest.mark.parametrize("name", TUM)
def test_damaged_tum(tmp_path: Path, name: str) -> None:
    damage, reason, says = TUM[name]
    damage(made.tum(tmp_path))
    found, detail = refusal(tmp_path)
    assert (found, says in detail) == (reason, True), (found, detail)


@pytest.mark.parametrize(
    ("name", "content", "reason", "says"),
    [
        ("said.txt", "x" * 3000, "bad_text", "2000 characters"),
        ("said.txt", "x" * (2 << 20), "too_large", "said.txt"),
        ("info.json", '{"task": {"said": [1, 2]}}', "bad_text", "[1, 2]"),
        ("info.json", '{"task": ', "bad_json", "JSON"),
    ],
)
def test_words_that_are_none_are_refused(tmp_path: Path, name: str, content: str, reason: str, says: str) -> None:
    (mine(tmp_path / "set") / name).write_text(content)
    (found,) = read(tmp_path / "set", tmp_path / "mine.yaml")
    assert isinstance(found, Rejected) and found.reason == reason and says in found.detail


def test_yaml_that_unfolds_is_refused(tmp_path: Path) -> None:
    laughs = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
    for last, name in pairwise("abcdefghi"):
        laughs += f"{name}: &{name} [{', '.join([f'*{last}'] * 9)}]\n"
    for path in made.dexycb(tmp_path).glob("calibration/intrinsics/*"):
        path.write_text(laughs + "color: *i\n")
    reason, detail = refusal(tmp_path)
    assert reason == "bad_json" and "aliases" in detail


def test_cameras_of_other_frames_are_no_recording(tmp_path: Path) -> None:
    root = made.dexycb(tmp_path)
    folder = next(root.rglob("839512060362"))
    for name in ("color_000005.jpg", "aligned_depth_to_color_000005.png"):
        (folder / name).rename(folder / name.replace("5.", "6."))
    reason, detail = refusal(root)
    assert reason == "ragged" and "not all cameras have the same frames" in detail
    for name in ("color_000006.jpg", "aligned_depth_to_color_000006.png"):
        (folder / name).unlink()
    assert refusal(root)[0] == "ragged"


def test_what_is_whole_beside_damage_is_read(tmp_path: Path) -> None:
    for name in ("a", "b", ".hidden"):
        made.open3d(tmp_path / name)
    (tmp_path / "a/depth/000001.png").unlink()
    (tmp_path / "c").mkdir()
    (tmp_path / "c/intrinsic.json").write_text("{}")  # of something else: there are no pictures
    found = read(tmp_path)
    assert [type(one).__name__ for one in found] == ["Rejected", "Recording"]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("    depth_unit_m: 0.0005\n", "", "depth_unit_m: say how many metres"),
        ("rate_hz: 10\n", "", "give rate_hz or timestamps"),
        ('"c/{frame}.*"', "c/1.png", "pictures need {frame}"),
        ('"d/{frame}.*"', "d.mp4", "not read from videos"),
        ('"c/{frame}.*"', '"{camera}/{frame}.png"', "belong together"),
        ('"c/{frame}.*"', '"../{frame}.png"', "below a folder"),
        ("info.json", "../info.json", "below a folder"),
        ('"c/{frame}.*"', "c.mp4", "by time or by order"),
        ("0.0005", "-1", "depth_unit_m"),
    ],
)
def test_a_layout_that_is_wrong_is_refused(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in MINE
    (tmp_path / "mine.yaml").write_text(MINE.replace(old, new))
    with pytest.raises(UserError) as caught:
        read_layout(tmp_path / "mine.yaml")
    assert says in str(caught.value)


def test_a_layout_of_another_kind_is_refused(tmp_path: Path) -> None:
    made.open3d(tmp_path / "set")
    with pytest.raises(UserError, match="does not fit"):
        index(tmp_path / "set", tmp_path / "index", layout="words")


def test_random_damage_is_never_more_than_a_rejection(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, make in (("tum", made.tum), ("open3d", made.open3d)):
        root = make(tmp_path / name)
        files = sorted(path for path in root.rglob("*") if path.is_file())
        for _ in range(40):
            path = files[rng.integers(len(files))]
            whole = path.read_bytes()
            data, at = bytearray(whole), int(rng.integers(len(whole)))
            data[at : at + int(rng.choice([1, 8, len(whole)]))] = rng.bytes(int(rng.choice([0, 1, 8])))
            path.write_bytes(data)
            refusal(root)
            path.write_bytes(whole)
        assert refusal(root) == ("", "nothing is wrong")


def test_real_depth_is_what_another_decoder_reads(footage: Path, tmp_path: Path) -> None:
    """CERD: 14 frames of a stereo camera, millimetres in 16 bits; every pixel beside OpenCV's decoder."""
    layout = tmp_path / "cerd.yaml"
    layout.write_text(
        "{format: rgbd, name: cerd, episodes: [calibration.json], timestamps: '{frame}',"
        " instruction: [{at: info.json, key: [task_description]}],"
        " cameras: {left: {color: 'rgb_left/{frame}.jpg', depth: 'depth_mm/{frame}.png', depth_unit_m: 0.001,"
        " intrinsics: [{at: calibration.json, key: [intrinsic_left, intrinsic_matrix]}]}}}"
    )
    episodes, rejected = index(footage / "rgbd/cerd_pour", tmp_path / "index", layout=layout)
    (episode,) = episodes
    assert not rejected and episode.fps == 1 and episode.instruction.startswith("E.g. The subject picks up")
    assert episode.sidecar.intrinsics is not None and episode.sidecar.intrinsics[0][0] == 691.371
    assert episode.license == "MIT License"
    folder = footage / "rgbd/cerd_pour/pour_water_01"
    stems = sorted(path.stem for path in (folder / "rgb_left").iterdir())
    frames = list(EpisodeReader(episode).frames(None))
    assert len(frames) == len(stems) == 14
    for frame, stem in zip(frames, stems, strict=True):
        stored = cv2.imread(str(folder / f"depth_mm/{stem}.png"), cv2.IMREAD_UNCHANGED)
        assert stored is not None and stored.dtype == np.uint16 and frame.depth is not None
        np.testing.assert_array_equal(frame.depth, stored.astype(np.float32) * np.float32(0.001))
        shown = cv2.imread(str(folder / f"rgb_left/{stem}.jpg"), cv2.IMREAD_COLOR)
        assert shown is not None and np.abs(shown[..., ::-1].astype(int) - frame.image).mean() < 1
