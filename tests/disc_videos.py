"""Small RGB-D videos of a disc that slides before a wall, with exact depth and mask: episodes that need no network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from data.simulation.write import encode_video

SIZE = (64, 48)
FOCAL_PX = 60.0
DISTANCE_M = 0.4


def wall_level(frame: int) -> int:
    """Grey level of the wall: tells which frame it is, up to frame 199."""
    return 20 + min(frame, 199)


def write_disc(path: Path, centre_F2: np.ndarray, fps: int = 20) -> None:
    """``path`` (.mp4) with its sidecar and arrays; the disc's centre in every frame, metres before the camera."""
    rows, columns = np.mgrid[: SIZE[1], : SIZE[0]] + 0.5
    rays = np.stack([(columns - 32) / FOCAL_PX, (rows - 24) / FOCAL_PX], -1)
    on_disc = DISTANCE_M * rays - centre_F2[:, None, None]
    mask = np.linalg.norm(on_disc, axis=-1) < 0.06
    paint = 128 + 100 * np.stack([np.sin(60 * on_disc[..., 0]), np.cos(60 * on_disc[..., 1]), on_disc[..., 0] * 8], -1)
    walls = np.array([wall_level(frame) for frame in range(len(mask))], np.float64)[:, None, None, None]
    images = np.where(mask[..., None], paint, walls).clip(0, 255).astype(np.uint8)
    encode_video(path, list(images), fps)
    depth = np.where(mask, 10000 * DISTANCE_M, 12000).astype(np.uint16)
    np.savez(path.with_suffix(".npz"), depth=depth, mask=mask)
    sidecar = {
        "instruction": "slide",
        "embodiment": "disc",
        "effector": "mask",
        "intrinsics": [[FOCAL_PX, 0, 32], [0, FOCAL_PX, 24], [0, 0, 1]],
        "arrays": path.with_suffix(".npz").name,
        "depth_unit_m": 0.0001,
    }
    path.with_suffix(".json").write_text(json.dumps(sidecar))
