"""Shared fixtures: real footage, made-up clips and small videos."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # models here are tiny: threads cost more than they give

import data.simulation  # noqa: F401  chooses a renderer, which must be done before a test imports MuJoCo
from data.clips import Clip, encode_image
from data.schema import ActionSpec, ClipMeta
from tests.footage import FOOTAGE, footage_folder


@pytest.fixture(scope="session")
def footage() -> Path:
    """The folder of real footage, named by the environment variable KINECLOUD_FOOTAGE."""
    folder = footage_folder()
    if folder is None:
        pytest.skip(f"{FOOTAGE} is not set: real footage is not part of the repository")
    return folder


@pytest.fixture
def make_clip() -> Callable[..., Clip]:
    """make_clip(number, frames=..., labelled=...): a sound clip of a moving, turning cloud, one for each number."""
    return _moving_cloud


def _moving_cloud(number: int = 0, frames: int = 20, labelled: bool = False, points: int = 24, group: str = "") -> Clip:
    rng = np.random.default_rng(number)
    shape = rng.normal(scale=0.03, size=(points, 3))
    start, velocity = rng.uniform(-0.1, 0.1, 3) + np.array([0, 0, 0.7]), rng.uniform(-0.3, 0.3, 3)
    times = np.arange(frames) / 20.0
    angle = times * rng.uniform(-2, 2)
    turn = np.zeros((frames, 3, 3))
    turn[:, 0, 0] = turn[:, 1, 1] = np.cos(angle)
    turn[:, 0, 1], turn[:, 1, 0] = -np.sin(angle), np.sin(angle)
    turn[:, 2, 2] = 1
    cloud = (shape @ turn.transpose(0, 2, 1) + start + velocity * times[:, None, None]).astype(np.float32)
    arrays = {
        "points": cloud,
        "visible": rng.random((frames, points)) > 0.2,
        "sigma": np.full((frames, 2), 0.003, np.float32),
        "confidence": np.ones(frames, np.float32),
        "timestamps": times,
        "intrinsics": np.array([[80, 0, 32], [0, 80, 24], [0, 0, 1]], np.float32),
        "world_from_camera": np.tile(np.eye(4, dtype=np.float32), (frames, 1, 1)),
        "opening": np.full(frames, 0.05, np.float32),
    }
    spec = None
    if labelled:
        names = ["dx", "dy", "dz", "gripper"]
        proprio_names = ["x", "y", "z"]
        spec = ActionSpec(names=names, unit="m", frame="camera", mode="delta", rate_hz=20, proprio_names=proprio_names)
        arrays["actions"] = rng.normal(size=(frames, 4)).astype(np.float32)
        arrays["proprio"] = cloud.mean(1)
    images = [encode_image(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)) for _ in range(frames)]
    episode = f"made-up-{number:04d}"
    meta = ClipMeta(
        episode_id=episode,
        group=group or episode,
        source="made-up",
        embodiment="human-hand" if number % 2 else "sawyer-gripper",
        side="right" if number % 2 else None,
        instruction=f"do the thing {number % 3}",
        scale="metric",
        depth_source="sensor",
        camera_origin="given",
        camera_motion="static",
        image_size=(64, 48),
        source_frames=list(range(frames)),
        extractor="made-up/1",
        action_spec=spec,
    )
    return Clip(f"{episode}-00", arrays, images, meta)


@pytest.fixture
def make_video() -> Callable[..., Path]:
    """make_video(path, frames=..., fps=...): a small H.264 video whose frame k has brightness 8 k."""
    return _write_video


def _write_video(
    path: Path, frames: int = 20, fps: int = 20, size: tuple[int, int] = (64, 48), **metadata: str
) -> Path:
    import av

    with av.open(str(path), "w", options={"movflags": "use_metadata_tags"}) as container:
        container.metadata.update(metadata)
        stream = container.add_stream("h264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(frames):
            image = np.full((size[1], size[0], 3), min(8 * number, 255), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path
