"""Made-up motion clips for the tests of training: a cloud that speeds up as the colour of a square in the image says.

A predictor that uses the image can beat constant velocity, and one that does not cannot.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data.clips import Clip, encode_image, write_shard
from data.schema import ActionSpec, ClipMeta

SIZE = 64
FPS = 20
_COLORS = np.array([[255, 60, 60], [60, 255, 60], [60, 60, 255], [255, 255, 60]], np.uint8)
_DIRECTIONS = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float64)


def moving_clip(number: int, frames: int = 18, points: int = 80, labelled: bool = False) -> Clip:
    """A clip of a 6 cm cloud at 0.7 m that speeds up in one of four directions, told by a colour."""
    random = np.random.default_rng([7, number])
    kind = number % 4
    times = np.arange(frames) / FPS
    start = np.array([0, 0, 0.7]) + random.normal(0, 0.04, 3)
    path_T3 = start + _DIRECTIONS[kind] * 0.25 * times[:, None] ** 2
    body_N3 = random.uniform(-0.03, 0.03, (points, 3))
    points_TN3 = (path_T3[:, None] + body_N3).astype(np.float32)
    image = random.integers(0, 60, (SIZE, SIZE, 3)).astype(np.uint8)
    image[8:28, 8:28] = _COLORS[kind]
    embodiment = ("human-hand", "sawyer-gripper")[number % 2]
    spec = ActionSpec(
        names=["dx", "dy", "dz"], unit="m", frame="camera", mode="delta", rate_hz=FPS, proprio_names=["x", "y", "z"]
    )
    arrays = {
        "points": points_TN3,
        "visible": random.random((frames, points)) < 0.9,
        "sigma": np.full((frames, 2), 0.002, np.float32),
        "confidence": np.ones(frames, np.float32),
        "timestamps": times,
        "intrinsics": np.array([[80, 0, SIZE / 2], [0, 80, SIZE / 2], [0, 0, 1]], np.float32),
        "world_from_camera": np.tile(np.eye(4, dtype=np.float32), (frames, 1, 1)),
        "opening": np.full(frames, np.nan if number % 3 == 0 else 0.04, np.float32),
    }
    if labelled:
        arrays["actions"] = np.diff(path_T3, axis=0, append=path_T3[-1:]).astype(np.float32)
        arrays["proprio"] = path_T3.astype(np.float32)
    meta = ClipMeta(
        episode_id=f"made-up-{number}", group=f"made-up-{number}", source="made-up", embodiment=embodiment, side=None,
        instruction=f"move along {kind}", scale="metric", depth_source="sensor", camera_origin="given",
        camera_motion="static",
        image_size=(SIZE, SIZE), source_frames=list(range(frames)), extractor="made-up", simulated=True,
        action_spec=spec if labelled else None,
    )  # fmt: skip
    return Clip(f"clip-{number:04d}", arrays, [encode_image(image)] * frames, meta)


def write_clips(folder: Path, train: int = 16, val: int = 4, labelled: bool = False) -> tuple[Path, Path]:
    """One shard of training clips and one of held-out clips."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "train-00000.tar", folder / "val-00000.tar"
    write_shard(paths[0], (moving_clip(n, labelled=labelled) for n in range(train)))
    write_shard(paths[1], (moving_clip(1000 + n, labelled=labelled) for n in range(val)))
    return paths
