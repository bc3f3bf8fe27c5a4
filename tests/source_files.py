"""Small data sets in the formats of others, for tests: laid out as their own writers do, with known content.

LeRobot v2.1 and v3.0 after lerobot's ``dataset_writer.py`` and ``convert_dataset_v21_to_v30.py``, RLDS after the
TFRecord writer of TFDS, HDF5 after robomimic's ``dataset_states_to_obs.py``, LIBERO's ``create_dataset.py`` and the
reader of EgoDex.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from PIL import Image

FRAMES, FPS = 6, 20
FRONT, WRIST = "observation.images.front", "observation.images.wrist"
VIDEO_SIZE, IMAGE_SIZE = (64, 48), (32, 24)  # width, height


def shade(episode: int, frame: int) -> int:
    """Brightness of every picture of an episode at a frame."""
    return 20 + 60 * episode + 8 * frame


def actions(episode: int) -> np.ndarray:
    """f32 [T,2]"""
    return np.stack([np.arange(FRAMES) + 10 * episode, -np.arange(FRAMES)], axis=1).astype(np.float32)


def states(episode: int) -> np.ndarray:
    """f32 [T,3]"""
    return (np.arange(FRAMES * 3).reshape(FRAMES, 3) / 7 + episode).astype(np.float32)


def picture(value: int, size: tuple[int, int] = IMAGE_SIZE, kind: str = "PNG") -> bytes:
    """An encoded picture of one grey."""
    out = io.BytesIO()
    Image.new("RGB", size, (value, value, value)).save(out, kind)
    return out.getvalue()


def video(path: Path, shades: Sequence[int], fps: int = FPS, size: tuple[int, int] = VIDEO_SIZE) -> None:
    """H.264, a frame of one grey for each shade, every second one a key frame as LeRobot writes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=fps, options={"g": "2", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for value in shades:
            image = np.full((size[1], size[0], 3), value, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


def info(version: str, episodes: int) -> dict[str, Any]:
    """meta/info.json."""
    concatenated = version == "v3.0"
    place = "chunk-{chunk_index:03d}/file-{file_index:03d}" if concatenated else ""
    data = f"data/{place}.parquet" if place else "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    old = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    dims = ["height", "width", "channels"]
    return {
        "codebase_version": version,
        "robot_type": "toy",
        "total_episodes": episodes,
        "chunks_size": 1000,
        "fps": FPS,
        "data_path": data,
        "video_path": f"videos/{{video_key}}/{place}.mp4" if place else old,
        "features": {
            "observation.state": {"dtype": "float32", "shape": [3], "names": {"motors": ["a", "b", "c"]}},
            "action": {"dtype": "float32", "shape": [2], "names": ["x", "y"]},
            FRONT: {"dtype": "video", "shape": [VIDEO_SIZE[1], VIDEO_SIZE[0], 3], "names": dims},
            WRIST: {"dtype": "image", "shape": [3, IMAGE_SIZE[1], IMAGE_SIZE[0]], "names": ["channels", *dims[:2]]},
            **{name: {"dtype": "int64", "shape": [1], "names": None} for name in ("index", "task_index")},
        },
    }


def rows(episode: int, first: int) -> dict[str, Any]:
    """Columns of one episode; first: its first row in the data set."""
    encoded = [{"bytes": picture(shade(episode, frame)), "path": f"frame-{frame:06d}.png"} for frame in range(FRAMES)]
    return {
        "observation.state": pa.array(states(episode).tolist(), pa.list_(pa.float32(), 3)),
        "action": pa.array(actions(episode).tolist(), pa.list_(pa.float32(), 2)),
        WRIST: pa.array(encoded, pa.struct({"bytes": pa.binary(), "path": pa.string()})),
        "timestamp": pa.array(np.arange(FRAMES) / FPS, pa.float32()),
        "frame_index": pa.array(range(FRAMES), pa.int64()),
        "episode_index": pa.array([episode] * FRAMES, pa.int64()),
        "index": pa.array(range(first, first + FRAMES), pa.int64()),
        "task_index": pa.array([episode % 2] * FRAMES, pa.int64()),
    }


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_table(path: Path, columns: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def lerobot_21(root: Path, episodes: int = 3) -> Path:
    """v2.1: a parquet file and a video per episode."""
    write_json(root / "meta/info.json", info("v2.1", episodes))
    tasks = [{"task_index": number, "task": f"task {number}"} for number in range(2)]
    (root / "meta/tasks.jsonl").write_text("\n".join(map(json.dumps, tasks)))
    listed = [{"episode_index": e, "tasks": [f"task {e % 2}"], "length": FRAMES} for e in range(episodes)]
    (root / "meta/episodes.jsonl").write_text("\n".join(map(json.dumps, listed)) + "\n")
    for episode in range(episodes):
        write_table(root / f"data/chunk-000/episode_{episode:06d}.parquet", rows(episode, episode * FRAMES))
        path = root / f"videos/chunk-000/{FRONT}/episode_{episode:06d}.mp4"
        video(path, [shade(episode, frame) for frame in range(FRAMES)])
    return root


def places_30(episodes: int = 3) -> dict[str, list[Any]]:
    """meta/episodes of v3.0."""
    starts = [episode * FRAMES for episode in range(episodes)]
    zeros = [0] * episodes
    return {
        "episode_index": list(range(episodes)),
        "tasks": [[f"task {episode % 2}"] for episode in range(episodes)],
        "length": [FRAMES] * episodes,
        "data/chunk_index": zeros,
        "data/file_index": zeros,
        "dataset_from_index": starts,
        "dataset_to_index": [start + FRAMES for start in starts],
        f"videos/{FRONT}/chunk_index": zeros,
        f"videos/{FRONT}/file_index": zeros,
        f"videos/{FRONT}/from_timestamp": [start / FPS for start in starts],
        f"videos/{FRONT}/to_timestamp": [(start + FRAMES) / FPS for start in starts],
        "stats/action/min": [[0.0]] * episodes,
    }


def lerobot_30(root: Path, episodes: int = 3) -> Path:
    """v3.0: all episodes in one parquet file, a row group each, and one video."""
    write_json(root / "meta/info.json", info("v3.0", episodes))
    write_table(root / "meta/tasks.parquet", {"task_index": [0, 1], "__index_level_0__": ["task 0", "task 1"]})
    write_table(root / "meta/episodes/chunk-000/file-000.parquet", places_30(episodes))
    tables = [pa.table(rows(episode, episode * FRAMES)) for episode in range(episodes)]
    path = root / "data/chunk-000/file-000.parquet"
    path.parent.mkdir(parents=True)
    with pq.ParquetWriter(path, tables[0].schema) as writer:
        for table in tables:
            writer.write_table(table)
    shades = [shade(episode, frame) for episode in range(episodes) for frame in range(FRAMES)]
    video(root / f"videos/{FRONT}/chunk-000/file-000.mp4", shades)
    return root


def _example() -> Any:
    """The message class tf.train.Example, by protobuf's own runtime."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="example_for_tests.proto", package="t", syntax="proto3")
    kinds = (("Bytes", field.TYPE_BYTES), ("Floats", field.TYPE_FLOAT), ("Ints", field.TYPE_INT64))
    for name, kind in kinds:
        file.message_type.add(name=name).field.add(name="value", number=1, label=3, type=kind)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, (name, label) in enumerate(
        (("bytes_list", "Bytes"), ("float_list", "Floats"), ("int64_list", "Ints")), 1
    ):
        feature.field.add(name=name, number=number, label=1, type=11, type_name=f".t.{label}", oneof_index=0)
    bundle = file.message_type.add(name="Features")
    entry = bundle.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=1, type=field.TYPE_STRING)
    entry.field.add(name="value", number=2, label=1, type=11, type_name=".t.Feature")
    bundle.field.add(name="feature", number=1, label=3, type=11, type_name=".t.Features.FeatureEntry")
    file.message_type.add(name="Example").field.add(
        name="features", number=1, label=1, type=11, type_name=".t.Features"
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Example"))


Example = _example()
_TABLE = []
for _byte in range(256):
    for _ in range(8):
        _byte = (_byte >> 1) ^ (0x82F63B78 if _byte & 1 else 0)
    _TABLE.append(_byte)


def crc32c(data: bytes) -> int:
    """Castagnoli's CRC, byte by byte, and masked as TFRecord stores it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def framed(data: bytes) -> bytes:
    """One TFRecord."""
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", crc32c(length)) + data + struct.pack("<I", crc32c(data))


def steps(episode: int) -> dict[str, Any]:
    """Features of an RLDS episode in the layout of Bridge."""
    return {
        **{
            f"steps/observation/image_{n}": [picture(shade(episode, f), (16, 16), "JPEG") for f in range(FRAMES)]
            for n in range(4)
        },
        "steps/observation/state": (np.arange(FRAMES * 7) + episode).astype(np.float32).tolist(),
        "steps/action": (np.arange(FRAMES * 7) * 0.5 - episode).astype(np.float32).tolist(),
        "steps/language_instruction": [f"task {episode}".encode()] * FRAMES,
        "steps/is_first": [1] + [0] * (FRAMES - 1),
        "episode_metadata/episode_id": [-episode],
    }


def example(features: dict[str, Any]) -> bytes:
    """Serialised by protobuf's runtime; the type of the first value decides the list."""
    message = Example()
    for name, values in features.items():
        lists = {bytes: "bytes_list", float: "float_list", int: "int64_list"}
        getattr(message.features.feature[name], lists[type(values[0])]).value.extend(values)
    return message.SerializeToString()


def described(dims: int = 7) -> dict[str, Any]:
    """features.json."""

    def leaf(key: str, **inner: Any) -> dict[str, Any]:
        return {"pythonClassName": f"tensorflow_datasets.core.features.{key.title()}", key: inner}

    def fold(**inner: Any) -> dict[str, Any]:
        return {"pythonClassName": "tensorflow_datasets.FeaturesDict", "featuresDict": {"features": inner}}

    shape = {"dimensions": ["16", "16", "3"]}
    images = {f"image_{n}": leaf("image", shape=shape, dtype="uint8", encodingFormat="jpeg") for n in range(4)}
    vector = {"shape": {"dimensions": [str(dims)]}, "dtype": "float32", "encoding": "none"}
    step = fold(
        action=leaf("tensor", **vector),
        language_instruction=leaf("text"),
        is_first=leaf("tensor", shape={}, dtype="bool", encoding="none"),
        observation=fold(state=leaf("tensor", **vector), **images),
    )
    return fold(
        steps={"pythonClassName": "tensorflow_datasets.Dataset", "sequence": {"feature": step, "length": "-1"}},
        episode_metadata=fold(episode_id=leaf("tensor", shape={}, dtype="int32", encoding="none")),
    )


def rlds(root: Path, episodes: int = 3) -> Path:
    """One split of one shard."""
    splits = [{"name": "train", "shardLengths": [str(episodes)]}]
    write_json(
        root / "dataset_info.json", {"name": "toy", "fileFormat": "tfrecord", "version": "1.0.0", "splits": splits}
    )
    write_json(root / "features.json", described())
    shard(root).write_bytes(b"".join(framed(example(steps(episode))) for episode in range(episodes)))
    return root


def shard(root: Path) -> Path:
    return root / "toy-train.tfrecord-00000-of-00001"


def robomimic(root: Path, episodes: int = 3) -> Path:
    """demo.hdf5 with pictures of two cameras."""
    root.mkdir(parents=True, exist_ok=True)
    with h5py.File(root / "demo.hdf5", "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "env_kwargs": {"control_freq": FPS}})
        data.attrs["total"] = episodes * FRAMES
        for episode in range(episodes):
            demo = data.create_group(f"demo_{episode}")
            demo.attrs["num_samples"] = FRAMES
            demo["actions"] = np.tile(actions(episode)[:, :1], (1, 7)).astype(np.float64)
            for name, width in (("eef_pos", 3), ("eef_quat", 4), ("gripper_qpos", 2)):
                demo[f"obs/robot0_{name}"] = np.tile(states(episode)[:, :1], (1, width)).astype(np.float64)
            for name in ("agentview", "robot0_eye_in_hand"):
                demo.create_dataset(f"obs/{name}_image", data=_stack(episode), compression="gzip")
    return root


def libero(root: Path, episodes: int = 2) -> Path:
    """The pictures are darker above, as they are stored: upside down."""
    root.mkdir(parents=True, exist_ok=True)
    with h5py.File(root / "put_it_there_demo.hdf5", "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_kwargs": {"control_freq": FPS}})
        data.attrs["problem_info"] = json.dumps({"language_instruction": "put it there"})
        for episode in range(episodes):
            demo = data.create_group(f"demo_{episode}")
            demo["actions"] = np.tile(actions(episode)[:, :1], (1, 7)).astype(np.float64)
            for name, width in (("ee_states", 6), ("gripper_states", 2), ("joint_states", 7)):
                demo[f"obs/{name}"] = np.tile(states(episode)[:, :1], (1, width)).astype(np.float64)
            stack = _stack(episode)
            stack[:, : IMAGE_SIZE[1] // 2] //= 2
            demo["obs/agentview_rgb"] = demo["obs/eye_in_hand_rgb"] = stack
    return root


def egodex(root: Path, joints: Sequence[str], frames: int = FRAMES, filmed: int = FRAMES) -> Path:
    """basic/0.hdf5 beside 0.mp4. The camera is 1 m along world x, looking along world x; joint k is k mm further up."""
    folder = root / "basic"
    folder.mkdir(parents=True, exist_ok=True)
    camera = np.array([[0, 0, 1, 1], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]], np.float32)  # z forward is world x
    with h5py.File(folder / "0.hdf5", "w") as file:
        file["camera/intrinsic"] = np.array([[50, 0, 32], [0, 50, 24], [0, 0, 1]], np.float32)
        file["transforms/camera"] = np.tile(camera, (frames, 1, 1))
        for sign, side in ((1, "left"), (-1, "right")):
            for number, joint in enumerate(joints):
                pose = np.tile(np.eye(4, dtype=np.float32), (frames, 1, 1))
                pose[:, :3, 3] = [1.5, 0.1 * sign, 0.001 * number]
                file[f"transforms/{side}{joint}"] = pose
                file[f"confidences/{side}{joint}"] = np.full(frames, 0.9, np.float32)
        file.attrs["llm_type"] = "reversible"
        file.attrs["which_llm_description"] = "2"
        file.attrs["llm_description"], file.attrs["llm_description2"] = "open it", "close it"
    video(folder / "0.mp4", [shade(0, frame) for frame in range(filmed)], fps=30)
    return root


def edited(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes a JSON file."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def _stack(episode: int) -> np.ndarray:
    shades = np.array([shade(episode, frame) for frame in range(FRAMES)], np.uint8)
    return np.broadcast_to(shades[:, None, None, None], (FRAMES, IMAGE_SIZE[1], IMAGE_SIZE[0], 3)).copy()
