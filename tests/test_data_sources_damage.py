"""Damaged data sets: each becomes a rejection with its reason, what is whole beside it is read, nothing crashes."""

from __future__ import annotations

import io
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.sources.folder import DataSet, Kind, recordings
from data.sources.mapping import GroupsLayout, shipped
from data.sources.recording import Recording
from data.video import Unreadable
from tests import source_files as made
from tests.source_files import FRAMES, FRONT, WRIST

Damage = Callable[[Path], Any]
JOINTS = next(shape.hands.names for shape in shipped() if isinstance(shape, GroupsLayout) and shape.hands)


def audit(kind: Kind, root: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """Reads everything. Names of the episodes that are whole, and (reason, detail) of all that is not."""
    whole, wrong = [], []
    for item in recordings(DataSet(kind, root)):
        if not isinstance(item, Recording):
            wrong.append((item.reason, f"{item.item} {item.detail}"))
            continue
        try:
            assert item.measured
            for camera in item.cameras.values():
                assert sum(1 for _ in camera.frames()) == item.frames
                assert camera.world_from_camera is None or len(camera.world_from_camera) == item.frames
            whole.append(item.name)
        except Unreadable as error:
            wrong.append((error.reason, error.detail))
    return whole, wrong


def check(kind: Kind, root: Path, whole: int, reason: str, says: str) -> None:
    found, wrong = audit(kind, root)
    assert len(found) == whole, (found, wrong)
    # an episode whose entry cannot be used is missing too
    assert reason in {why for why, _ in wrong} <= {reason, "missing"}, wrong
    assert any(says in detail for _, detail in wrong), wrong


def changed(**values: Any) -> Damage:
    """meta/info.json with other values."""
    return lambda root: made.edited(root / "meta/info.json", lambda info: info.update(values))


def feature(name: str, **values: Any) -> Damage:
    return lambda root: made.edited(root / "meta/info.json", lambda info: info["features"][name].update(values))


def column(name: str, values: Any, episode: int = 1) -> Damage:
    """Another column in one episode; None takes it out, a function changes what is there."""

    def damage(root: Path) -> None:
        found = made.rows(episode, episode * FRAMES)
        new = values(found.pop(name)) if callable(values) else values
        found.pop(name, None)
        made.write_table(
            root / f"data/chunk-000/episode_{episode:06d}.parquet", found | ({} if new is None else {name: new})
        )

    return damage


def pictures(*encoded: Any) -> Damage:
    """The first pictures of the second episode, as bytes or as a row of the column."""

    def swap(values: Any) -> Any:
        rows = values.to_pylist()
        for place, one in enumerate(encoded):
            rows[place] = one if isinstance(one, dict) else {"bytes": one, "path": None}
        return pa.array(rows, values.type)

    return column(WRIST, swap)


def at(place: int, value: float) -> Callable[[Any], Any]:
    """A column of lists with one value of one row replaced."""

    def swap(values: Any) -> Any:
        rows = values.to_pylist()
        rows[place][0] = value
        return pa.array(rows, values.type)

    return swap


def cut(name: str, share: float = 0.5) -> Damage:
    def damage(root: Path) -> None:
        data = (root / name).read_bytes()
        (root / name).write_bytes(data[: int(len(data) * share)])

    return damage


def written(name: str, content: str | bytes) -> Damage:
    return lambda root: (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def gone(name: str) -> Damage:
    return lambda root: (root / name).unlink()


def filmed(frames: int = FRAMES, fps: int = made.FPS, size: tuple[int, int] = made.VIDEO_SIZE) -> Damage:
    """Another video for the second episode."""
    path = f"videos/chunk-000/{FRONT}/episode_000001.mp4"
    return lambda root: made.video(root / path, [90] * frames, fps, size)


def png_bomb() -> bytes:
    """A PNG of a few bytes that declares 60000x60000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def pickled_npy() -> bytes:
    out = io.BytesIO()
    np.save(out, np.array([{"run": print}], object), allow_pickle=True)
    return out.getvalue()


PICKLE = pickle.dumps(print)
LINE = '{"episode_index": 1, "tasks": ["task 1"], "length": %s}\n'
LISTED = "meta/episodes.jsonl"


def listed(second: str) -> Damage:
    """meta/episodes.jsonl with another second line."""

    def damage(root: Path) -> None:
        lines = (root / LISTED).read_text().splitlines(keepends=True)
        (root / LISTED).write_text("".join([lines[0], second, lines[2]]))

    return damage


LEROBOT_21: dict[str, tuple[Damage, int, str, str]] = {
    "missing video": (gone(f"videos/chunk-000/{FRONT}/episode_000001.mp4"), 2, "missing", "episode_000001.mp4"),
    "missing parquet": (gone("data/chunk-000/episode_000001.parquet"), 2, "missing", "Copy it"),
    "video shorter than the rows": (filmed(frames=4), 2, "truncated", "only 4 of 6"),
    "truncated video": (
        cut(f"videos/chunk-000/{FRONT}/episode_000001.mp4"),
        2,
        "no_video_stream",
        "episode_000001.mp4",
    ),
    "video of another size": (filmed(size=(32, 32)), 2, "mixed_sizes", "[32, 32, 3]"),
    "video of another rate": (filmed(fps=10), 2, "bad_timestamps", "due at"),
    "video is text": (
        written(f"videos/chunk-000/{FRONT}/episode_000001.mp4", "hello"),
        2,
        "unreadable",
        "episode_000001.mp4",
    ),
    "missing column": (column("action", None), 2, "missing", "there is no column 'action'"),
    "other rate": (changed(fps=30), 0, "mixed_fps", "20 Hz"),
    "wrong shape": (feature("action", shape=[3]), 0, "bad_shape", "2 values a row"),
    "ragged actions": (column("action", pa.array([[1.0]] + [[1.0, 2.0]] * 5)), 2, "ragged", "1 to 2 values"),
    "nan action": (column("action", at(3, float("nan"))), 2, "not_finite", "frame 3"),
    "infinite state": (column("observation.state", at(0, float("inf"))), 2, "not_finite", "proprio"),
    "value beyond f32": (column("action", pa.array([[1e300, 0.0]] * FRAMES)), 2, "not_finite", "actions"),
    "pickled actions": (column("action", pa.array([PICKLE] * FRAMES)), 2, "bad_dtype", "binary"),
    "action as text": (column("action", pa.array(["1", "2"] * 3)), 2, "bad_dtype", "string"),
    "missing values": (column("task_index", pa.array([1, None] * 3)), 2, "bad_shape", "3 values are missing"),
    "unknown task": (column("task_index", pa.array([7] * FRAMES)), 2, "missing", "task_index: 7"),
    "times run back": (column("timestamp", pa.array([0, 0.1, 0.05, 0.15, 0.2, 0.25])), 2, "bad_timestamps", "increase"),
    "times stand still": (column("timestamp", pa.array([0.0] * FRAMES)), 2, "bad_timestamps", "increase"),
    "times are not numbers": (column("timestamp", pa.array([float("nan")] * FRAMES)), 2, "bad_timestamps", "finite"),
    "fewer rows than listed": (listed(LINE % 9), 2, "bad_shape", "6 rows, meta/ promises 9"),
    "negative length": (listed(LINE % -1), 2, "bad_info", "length: -1"),
    "length beyond all sense": (listed(LINE % 10**18), 2, "bad_info", "not a number of frames"),
    "length is text": (listed(LINE % '"6"'), 2, "bad_info", "'6'"),
    "truncated parquet": (cut("data/chunk-000/episode_000001.parquet"), 2, "unreadable", "parquet"),
    "parquet is text": (written("data/chunk-000/episode_000001.parquet", "a,b\n1,2\n"), 2, "unreadable", "parquet"),
    "no image": (pictures(b"\x00" * 100), 2, "not_an_image", "row 0"),
    "empty image": (pictures(b""), 2, "not_an_image", "0 bytes"),
    "no bytes and no path": (pictures({"bytes": None, "path": None}), 2, "not_an_image", "neither bytes nor a path"),
    "pickle as image": (pictures(pickled_npy()), 2, "not_an_image", "no JPEG or PNG"),
    "truncated image": (pictures(made.picture(9)[:60]), 2, "not_an_image", "row 0"),
    "png bomb": (pictures(png_bomb()), 2, "too_large", "pixels"),
    "image sizes differ": (pictures(made.picture(9), made.picture(9, (16, 16))), 2, "mixed_sizes", "frame 1"),
    "image path leads out": (pictures({"bytes": None, "path": "../../x.png"}), 2, "unsafe_path", "../../x.png"),
    "image path is absolute": (pictures({"bytes": None, "path": "/etc/passwd"}), 2, "unsafe_path", "/etc/passwd"),
    "video path leads out": (
        changed(video_path="../{video_key}/{episode_index:06d}.mp4"),
        0,
        "unsafe_path",
        "video_path",
    ),
    "data path is absolute": (changed(data_path="/data/{episode_index:06d}.parquet"), 0, "unsafe_path", "data_path"),
    "path asks for attributes": (changed(data_path="{episode_index.__class__}"), 0, "bad_info", "is not known"),
    "path of a billion signs": (changed(data_path="{episode_index:0999999999d}"), 0, "bad_info", "is not known"),
    "path is no template": (changed(data_path="data/{episode_index"), 0, "bad_info", "data_path"),
    "feature name with slashes": (
        changed(features={"../../x": {"dtype": "video", "shape": [1]}}),
        0,
        "unsafe_path",
        "x",
    ),
    "feature without a shape": (feature("action", shape=None), 0, "bad_info", "action"),
    "no features": (changed(features={}), 0, "bad_info", "features"),
    "unknown version": (changed(codebase_version="v9.0"), 0, "unknown_version", "v9.0"),
    "no version": (changed(codebase_version=None), 0, "unknown_version", "None"),
    "fps of zero": (changed(fps=0), 0, "bad_info", "fps"),
    "info is no JSON": (written("meta/info.json", "{'fps': 20}"), 0, "bad_json", "info.json"),
    "info nests without end": (written("meta/info.json", "[" * 200_000), 0, "bad_json", "info.json"),
    "info is not text": (written("meta/info.json", b"\xff\xfe\x00"), 0, "bad_json", "UTF-8"),
    "info is missing": (gone("meta/info.json"), 0, "missing", "info.json"),
    "a broken line": (listed('{"episode_index": 1, \n'), 2, "bad_json", "line 2"),
    "a line that is a list": (listed("[1]\n"), 2, "bad_json", "line 2"),
    "a broken line of tasks": (written("meta/tasks.jsonl", '{"task_index": 0,'), 0, "bad_json", "tasks.jsonl"),
    "an episode twice": (listed(LINE.replace("1,", "0,", 1) % 6), 1, "duplicate", "listed 2 times"),
    "no episodes": (written(LISTED, ""), 0, "empty", "no episode"),
    "fewer listed than promised": (changed(total_episodes=5), 3, "missing", "promises 5"),
}


@pytest.mark.parametrize("name", LEROBOT_21)
def test_damaged_lerobot_21(tmp_path: Path, name: str) -> None:
    damage, whole, reason, says = LEROBOT_21[name]
    damage(made.lerobot_21(tmp_path))
    check("lerobot", tmp_path, whole, reason, says)


def places(**values: list[Any] | None) -> Damage:
    """meta/episodes of v3.0 with other columns."""
    short = {
        "begin": f"videos/{FRONT}/from_timestamp",
        "end": f"videos/{FRONT}/to_timestamp",
        "file": "data/file_index",
    }

    def damage(root: Path) -> None:
        found = made.places_30()
        for name, column in values.items():
            found.pop(short.get(name, name))
            found |= {} if column is None else {short.get(name, name): column}
        made.write_table(root / "meta/episodes/chunk-000/file-000.parquet", found)

    return damage


def reordered(root: Path) -> None:
    path = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    pq.write_table(table.take([*range(5), 6, 5, *range(7, 3 * FRAMES)]), path)


def rows_of(root: Path, episodes: list[int]) -> None:
    """Only the rows of some episodes."""
    kept = [pa.table(made.rows(episode, episode * FRAMES)) for episode in episodes]
    pq.write_table(pa.concat_tables(kept), root / ROWS)


def twice(root: Path) -> None:
    (root / "data/chunk-000/file-001.parquet").write_bytes((root / ROWS).read_bytes())


ROWS, VIDEO = "data/chunk-000/file-000.parquet", f"videos/{FRONT}/chunk-000/file-000.mp4"
LEROBOT_30: dict[str, tuple[Damage, int, str, str]] = {
    "negative first row": (places(dataset_from_index=[0, -6, 12]), 2, "bad_frame_range", "-6"),
    "rows overlap": (places(dataset_from_index=[0, 5, 12], dataset_to_index=[6, 11, 18]), 1, "bad_frame_range", "rows"),
    "range is not the length": (places(dataset_to_index=[6, 11, 18]), 2, "bad_frame_range", "6..11"),
    "negative second": (places(begin=[0.0, -0.3, 0.6]), 2, "bad_frame_range", "-0.3"),
    "second is not a number": (places(begin=[0.0, float("nan"), 0.6]), 2, "bad_frame_range", "no time"),
    "stretches overlap": (places(begin=[0.0, 0.1, 0.6]), 1, "bad_frame_range", "overlaps"),
    "stretch is too short": (places(end=[0.3, 0.4, 0.9]), 2, "bad_frame_range", "hold no 6 frames"),
    "column of places is missing": (places(dataset_from_index=None), 0, "bad_frame_range", "dataset_from_index"),
    "an episode in two files": (twice, 0, "duplicate", "2 files"),
    "rows are missing": (lambda root: rows_of(root, [0, 2]), 2, "missing", "0 files"),
    "no rows at all": (gone(ROWS), 0, "missing", "0 files"),
    "an episode twice": (places(episode_index=[0, 2, 2]), 1, "duplicate", "listed 2 times"),
    "rows do not count on": (
        places(dataset_from_index=[0, 6, 18], dataset_to_index=[6, 12, 24]),
        2,
        "bad_frame_range",
        "18",
    ),
    "rows are scattered": (reordered, 1, "bad_frame_range", "scattered"),
    "video ends early": (lambda root: made.video(root / VIDEO, [20] * 14), 2, "truncated", "only 2 of 6"),
    "no list of episodes": (gone("meta/episodes/chunk-000/file-000.parquet"), 0, "missing", "no parquet file"),
    "broken list of episodes": (cut("meta/episodes/chunk-000/file-000.parquet"), 0, "unreadable", "parquet"),
    "no tasks": (gone("meta/tasks.parquet"), 0, "missing", "tasks.parquet"),
    "broken rows": (cut(ROWS), 0, "unreadable", "parquet"),
}


@pytest.mark.parametrize("name", LEROBOT_30)
def test_damaged_lerobot_30(tmp_path: Path, name: str) -> None:
    damage, whole, reason, says = LEROBOT_30[name]
    damage(made.lerobot_30(tmp_path))
    check("lerobot", tmp_path, whole, reason, says)


def second(change: Callable[[dict[str, Any]], Any]) -> Damage:
    """The second of three RLDS episodes with other features."""

    def damage(root: Path) -> None:
        features = [made.steps(number) for number in range(3)]
        change(features[1])
        made.shard(root).write_bytes(b"".join(made.framed(made.example(one)) for one in features))

    return damage


def flipped(place: Callable[[int, int], int]) -> Damage:
    """One bit of the second record turned over; place: of its start and its length."""

    def damage(root: Path) -> None:
        data = bytearray(made.shard(root).read_bytes())
        start = 16 + struct.unpack_from("<Q", data)[0]
        data[place(start, struct.unpack_from("<Q", data, start)[0])] ^= 1
        made.shard(root).write_bytes(data)

    return damage


def record(content: bytes) -> Damage:
    """Another second record, in a sound frame."""

    def damage(root: Path) -> None:
        parts = [made.example(made.steps(0)), content, made.example(made.steps(2))]
        made.shard(root).write_bytes(b"".join(map(made.framed, parts)))

    return damage


def endless(root: Path) -> None:
    """A record of 2^60 bytes whose length is sound."""
    length = struct.pack("<Q", 1 << 60)
    made.shard(root).write_bytes(
        made.framed(made.example(made.steps(0))) + length + struct.pack("<I", made.crc32c(length))
    )


def headless(root: Path) -> None:
    made.shard(root).write_bytes(made.framed(made.example(made.steps(0))) + bytes(7))


def unstepped(root: Path) -> None:
    made.edited(root / "features.json", lambda tree: tree["featuresDict"]["features"].pop("steps"))


def told(**values: Any) -> Damage:
    return lambda root: made.edited(root / "dataset_info.json", lambda info: info.update(values))


def split(**values: Any) -> Damage:
    return told(splits=[{"name": "train", "shardLengths": ["3"]} | values])


def replace(name: str, place: int, value: Any) -> Damage:
    return second(lambda one: one[name].__setitem__(place, value))


SHARD, IMAGE = "toy-train.tfrecord-00000-of-00001", "steps/observation/image_2"
RLDS: dict[str, tuple[Damage, int, str, str]] = {
    "truncated in a record": (cut(SHARD, 0.5), 1, "truncated", "at byte"),
    "truncated in a head": (headless, 1, "truncated", "inside the head"),
    "wrong checksum of a length": (
        flipped(lambda start, length: start),
        1,
        "bad_checksum",
        "of the length of record 1",
    ),
    "wrong checksum of data": (
        flipped(lambda start, length: start + 100),
        2,
        "bad_checksum",
        "of the data of record 1",
    ),
    "wrong stored checksum": (flipped(lambda start, length: start + 12 + length), 2, "bad_checksum", "record 1"),
    "record of 2^60 bytes": (endless, 1, "truncated", "bytes are missing"),
    "empty shard": (written(SHARD, b""), 0, "truncated", "the file holds 0"),
    "fewer records than promised": (split(shardLengths=["5"]), 3, "truncated", "promises 5"),
    "more records than promised": (split(shardLengths=["2"]), 3, "bad_info", "promises 2"),
    "no protobuf": (record(b"\xff" * 50), 2, "bad_example", "byte"),
    "text as record": (record(b"hello, world"), 2, "bad_example", "byte"),
    "another message": (record(b"\x08\x01"), 2, "bad_example", "not of tf.train.Example"),
    "empty record": (record(b""), 2, "bad_example", "no feature"),
    "cut message": (record(made.example(made.steps(1))[:-40]), 2, "bad_example", "beyond byte"),
    "ragged action": (second(lambda one: one["steps/action"].pop()), 2, "ragged", "41 numbers for 6 steps of 7"),
    "missing feature": (second(lambda one: one.pop("steps/action")), 2, "missing", "steps/action"),
    "fewer pictures of one camera": (second(lambda one: one[IMAGE].pop()), 2, "ragged", "numbers of pictures differ"),
    "nan action": (replace("steps/action", 8, float("nan")), 2, "not_finite", "frame 1"),
    "infinite state": (replace("steps/observation/state", 0, float("inf")), 2, "not_finite", "proprio"),
    "bytes for numbers": (second(lambda one: one.update({"steps/action": [PICKLE]})), 2, "bad_dtype", "holds bytes"),
    "words are not text": (replace("steps/language_instruction", 2, b"\xff\xfe"), 2, "bad_text", "UTF-8"),
    "no image": (replace(IMAGE, 3, b"nothing"), 2, "not_an_image", "step 3"),
    "first image is none": (replace(IMAGE, 0, b""), 2, "not_an_image", "step 0"),
    "png bomb": (replace(IMAGE, 3, png_bomb()), 2, "too_large", "pixels"),
    "image sizes differ": (replace(IMAGE, 3, made.picture(9, (8, 8))), 2, "mixed_sizes", "frame 3"),
    "images of another size": (
        second(lambda one: one.update({IMAGE: [made.picture(9, (8, 8))] * 6})),
        2,
        "mixed_sizes",
        "features.json",
    ),
    "missing shard": (gone(SHARD), 0, "missing", "Copy it"),
    "split leads out": (split(name="../../x"), 0, "unsafe_path", "../../x"),
    "template leads out": (split(filepathTemplate="../{DATASET}"), 0, "unsafe_path", "filepathTemplate"),
    "name leads out": (told(name="../x"), 0, "unsafe_path", "name"),
    "another format of files": (told(fileFormat="array_record"), 0, "unsupported_format", "array_record"),
    "a split twice": (
        told(splits=[{"name": name, "shardLengths": ["3"]} for name in ("a", "A")]),
        0,
        "duplicate",
        "alike",
    ),
    "shape is a list": (
        written("features.json", '{"featuresDict": {"features": {"x": {"tensor": {"shape": [1]}}}}}'),
        0,
        "bad_info",
        "x: shape",
    ),
    "no splits": (told(splits=None), 0, "bad_info", "splits"),
    "lengths are words": (split(shardLengths=["many"]), 0, "bad_info", "shardLengths"),
    "no layout fits": (unstepped, 0, "no_layout", "episode_metadata/episode_id"),
    "features are no tree": (
        written("features.json", '{"featuresDict": {"features": {"steps": 3}}}'),
        0,
        "bad_info",
        "steps",
    ),
    "broken features": (written("features.json", "{"), 0, "bad_json", "features.json"),
}


@pytest.mark.parametrize("name", RLDS)
def test_damaged_rlds(tmp_path: Path, name: str) -> None:
    damage, whole, reason, says = RLDS[name]
    damage(made.rlds(tmp_path))
    check("rlds", tmp_path, whole, reason, says)


def within(change: Callable[[Any], Any]) -> Damage:
    """A change to the second demonstration."""

    def damage(root: Path) -> None:
        with h5py.File(root / "demo.hdf5", "r+") as file:
            change(file)

    return damage


def stored(name: str, **settings: Any) -> Damage:
    """Another data set in the second demonstration."""

    def change(file: Any) -> None:
        del file[f"data/demo_1/{name}"]
        file.create_dataset(f"data/demo_1/{name}", **settings)

    return within(change)


def linked(link: Any) -> Damage:
    def change(file: Any) -> None:
        del file["data/demo_1/actions"]
        file["data/demo_1/actions"] = link(file)

    return within(change)


def virtual(file: Any) -> None:
    layout = h5py.VirtualLayout((FRAMES, 7), np.float64)
    layout[:] = h5py.VirtualSource("/etc/hosts", "x", (FRAMES, 7))
    del file["data/demo_1/actions"]
    file.create_virtual_dataset("data/demo_1/actions", layout)


def grouped(file: Any) -> None:
    del file["data/demo_1/actions"]
    file.create_group("data/demo_1/actions")


def emptied(file: Any) -> None:
    for name in list(file["data"]):
        del file["data"][name]


def attribute(text: str) -> Damage:
    """env_args, which tells the rate."""
    return within(lambda file: file["data"].attrs.__setitem__("env_args", text))


def rate(text: str) -> Damage:
    return attribute(f'{{"env_kwargs": {{"control_freq": {text}}}}}')


def referring(file: Any) -> None:
    file["data"].attrs.create("env_args", file["data"].ref, dtype=h5py.ref_dtype)


VIEW, WIDE = "obs/agentview_image", (FRAMES, 24, 32, 3)
HDF5: dict[str, tuple[Damage, int, str, str]] = {
    "objects": (
        stored("actions", shape=(FRAMES,), dtype=h5py.vlen_dtype(np.float32)),
        2,
        "bad_dtype",
        "objects are never read",
    ),
    "references": (stored("actions", shape=(FRAMES,), dtype=h5py.ref_dtype), 2, "bad_dtype", "plain numbers"),
    "pickles": (stored("actions", data=np.array([np.void(PICKLE)] * FRAMES)), 2, "bad_dtype", "plain numbers"),
    "texts for numbers": (stored("actions", data=[b"1"] * FRAMES), 2, "bad_dtype", "plain numbers"),
    "external link": (linked(lambda file: h5py.ExternalLink("/etc/hosts", "/x")), 2, "link_refused", "ExternalLink"),
    "soft link": (linked(lambda file: h5py.SoftLink("/data/demo_0/actions")), 2, "link_refused", "SoftLink"),
    "external storage": (
        stored("actions", shape=(FRAMES, 7), dtype="f8", external=[("/etc/hosts", 0, 1000)]),
        2,
        "link_refused",
        "other files",
    ),
    "virtual data set": (within(virtual), 2, "link_refused", "other files"),
    "unwritten pictures": (
        stored(VIEW, shape=(FRAMES, 4000, 4000, 3), dtype="u1", chunks=(1, 100, 100, 3)),
        2,
        "too_large",
        "stores 0",
    ),
    "chunk bomb": (
        stored(VIEW, shape=(FRAMES, 10000, 10000, 3), dtype="u1", chunks=(1, 10000, 10000, 3), compression="gzip"),
        2,
        "too_large",
        "chunks of",
    ),
    "rows without end": (
        stored(VIEW, shape=(10**12, 24, 32, 3), dtype="u1", chunks=(1, 24, 32, 3)),
        2,
        "too_large",
        "rows",
    ),
    "other number of pictures": (
        stored(VIEW, data=np.ones((5, 24, 32, 3), np.uint8)),
        2,
        "bad_shape",
        "[5, 24, 32, 3]",
    ),
    "other number of states": (stored("obs/robot0_eef_pos", data=np.ones((5, 3))), 2, "bad_shape", "robot0_eef_pos"),
    "pictures of floats": (stored(VIEW, data=np.ones(WIDE, np.float32)), 2, "bad_shape", "float32"),
    "pictures of four channels": (stored(VIEW, data=np.ones((FRAMES, 24, 32, 4), np.uint8)), 2, "bad_shape", "4]"),
    "pictures without pixels": (stored(VIEW, data=np.ones((FRAMES, 0, 32, 3), np.uint8)), 2, "too_large", "32x0"),
    "actions of three dimensions": (stored("actions", data=np.ones((FRAMES, 7, 2))), 2, "bad_shape", "rows of numbers"),
    "nan action": (stored("actions", data=np.full((FRAMES, 7), np.nan)), 2, "not_finite", "actions"),
    "no actions": (stored("actions", data=np.ones((0, 7))), 2, "empty", "no rows"),
    "missing data set": (
        within(lambda file: file.__delitem__("data/demo_1/obs/robot0_eef_pos")),
        2,
        "missing",
        "no data set",
    ),
    "a group for a data set": (within(grouped), 2, "missing", "no data set 'actions'"),
    "broken JSON in an attribute": (attribute("{"), 0, "bad_json", "env_args"),
    "rate below zero": (rate("-20"), 0, "bad_info", "rate: -20"),
    "rate is a word": (rate('"fast"'), 0, "bad_info", "fast"),
    "attribute of references": (within(referring), 0, "bad_dtype", "env_args"),
    "truncated file": (cut("demo.hdf5"), 0, "unreadable", "HDF5"),
    "text as file": (written("demo.hdf5", "hello"), 0, "unreadable", "HDF5"),
    "empty file": (written("demo.hdf5", b""), 0, "unreadable", "HDF5"),
    "no layout fits": (
        within(lambda file: file.move("data", "trials")),
        0,
        "no_layout",
        "trials/demo_0/actions float64 [6, 7]",
    ),
    "no demonstrations": (within(emptied), 0, "no_layout", "no episodes"),
}


@pytest.mark.parametrize("name", HDF5)
def test_damaged_hdf5(tmp_path: Path, name: str) -> None:
    damage, whole, reason, says = HDF5[name]
    damage(made.robomimic(tmp_path))
    check("hdf5", tmp_path, whole, reason, says)


def test_a_demonstration_with_damage_in_its_bytes(tmp_path: Path) -> None:
    """Packed pictures that cannot be unpacked any more: the others are read."""
    with h5py.File(made.robomimic(tmp_path) / "demo.hdf5", "r") as file:
        pictures: Any = file["data/demo_1/obs/agentview_image"]
        kept = pictures.id.get_chunk_info(0)
    data = bytearray((tmp_path / "demo.hdf5").read_bytes())
    data[kept.byte_offset : kept.byte_offset + kept.size] = bytes(kept.size)
    (tmp_path / "demo.hdf5").write_bytes(data)
    check("hdf5", tmp_path, 2, "unreadable", "demo.hdf5")


def posed(change: Callable[[Any], Any]) -> Damage:
    def damage(root: Path) -> None:
        with h5py.File(root / "basic/0.hdf5", "r+") as file:
            change(file)

    return damage


def scaled(file: Any) -> None:
    file["transforms/camera"][:] = 2 * np.eye(4)


def lost(file: Any) -> None:
    file["transforms/leftHand"][2] = np.nan


def shorter(file: Any) -> None:
    del file["transforms/leftThumbTip"]
    file["transforms/leftThumbTip"] = np.zeros((3, 4, 4), np.float32)


EGODEX: dict[str, tuple[Damage, str, str]] = {
    "missing video": (gone("basic/0.mp4"), "missing", "0.mp4"),
    "video is shorter": (lambda root: made.video(root / "basic/0.mp4", [20] * 3, fps=30), "truncated", "only 3 of 6"),
    "video is text": (written("basic/0.mp4", "hello"), "unreadable", "no video"),
    "camera pose is not rigid": (posed(scaled), "bad_pose", "transforms/camera"),
    "joint is not a number": (posed(lost), "not_finite", "left hand"),
    "joint has fewer rows": (posed(shorter), "bad_shape", "leftThumbTip"),
    "joint is missing": (posed(lambda file: file.__delitem__("transforms/rightHand")), "missing", "rightHand"),
    "intrinsics of zero": (
        posed(lambda file: file["camera/intrinsic"].__setitem__(..., 0)),
        "bad_shape",
        "camera matrix",
    ),
}


@pytest.mark.parametrize("name", EGODEX)
def test_damaged_egodex(tmp_path: Path, name: str) -> None:
    damage, reason, says = EGODEX[name]
    damage(made.egodex(tmp_path, JOINTS))
    check("hdf5", tmp_path, 0, reason, says)


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    """A layout that asks for more than a feature has: the layout is what must be corrected."""
    layout = tmp_path / "mine.yaml"
    actions = "actions: [{path: action, columns: [5, 9]}]"
    layout.write_text(f"{{format: rlds, name: mine, rate_hz: 5, cameras: {{a: observation/image_0}}, {actions}}}")
    (one, *_) = recordings(DataSet("rlds", made.rlds(tmp_path / "set")), layout)
    assert isinstance(one, Recording)
    with pytest.raises(Unreadable, match=r"no columns 5\.\.9 .* correct the layout"):
        assert one.actions


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (4, 2), (0, FRAMES + 1)])
def test_ranges_outside_an_episode_are_refused(tmp_path: Path, start: int, stop: int) -> None:
    (one,) = recordings(DataSet("rlds", made.rlds(tmp_path, episodes=1)))
    assert isinstance(one, Recording)
    with pytest.raises(Unreadable, match="bad_frame_range"):
        one.cameras["image_0"].frames(start, stop)


@pytest.mark.parametrize(
    ("kind", "write"), [("lerobot", made.lerobot_30), ("rlds", made.rlds), ("hdf5", made.robomimic)]
)
def test_random_damage_is_never_more_than_a_rejection(tmp_path: Path, kind: Kind, write: Callable[..., Path]) -> None:
    """Bytes of one file (no video) are changed, left out or cut off; ``audit`` lets nothing but rejections pass."""
    rng = np.random.default_rng(0)
    root = write(tmp_path, episodes=2)
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.suffix != ".mp4")
    for _ in range(25):
        path = files[rng.integers(len(files))]
        whole = path.read_bytes()
        data, at = bytearray(whole), int(rng.integers(len(whole)))
        data[at : at + int(rng.choice([1, 8, len(whole)]))] = rng.bytes(int(rng.choice([0, 1, 8])))
        path.write_bytes(data)
        audit(kind, root)
        path.write_bytes(whole)
    assert len(audit(kind, root)[0]) == 2
