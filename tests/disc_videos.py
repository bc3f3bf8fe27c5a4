"""Small RGB-D videos of a disc that slides before a wall, with exact depth and mask: episodes that need no network."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

SIZE = (64, 48)
FOCAL_PX = 60.0
DISTANCE_M = 0.4


def write_disc(make_video: Callable[..., Path], path: Path, centre_F2: np.ndarray, fps: int = 20) -> None:
    """``path`` (.mp4) with its sidecar and arrays; the disc's centre in every frame, metres before the camera."""
    frames = len(centre_F2)
    make_video(path, frames=frames, fps=fps)
    rows, columns = np.mgrid[: SIZE[1], : SIZE[0]] + 0.5
    rays = np.stack([(columns - 32) / FOCAL_PX, (rows - 24) / FOCAL_PX], -1)
    mask = np.linalg.norm(DISTANCE_M * rays - centre_F2[:, None, None], axis=-1) < 0.06
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
