"""Small RGB-D folders, for tests: laid out as their recorders do, with known content."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

FRAMES, SIZE = 6, (32, 24)  # width, height
MATRIX = [[50.0, 0.0, 16.0], [0.0, 51.0, 12.0], [0.0, 0.0, 1.0]]


def color(frame: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """u8 [H,W,3] of one grey."""
    return np.full((size[1], size[0], 3), 20 + 10 * frame, np.uint8)


def depth(frame: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """u16 [H,W], every value another one, one hole."""
    values = (np.arange(size[0] * size[1], dtype=np.uint16).reshape(size[1], size[0]) + 1000 * frame + 1) * 7
    values[0, 0] = 0
    return values


def write(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture)


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def tum(root: Path, seconds_off: float = 0.004) -> Path:
    """Colour at 30 Hz, depth a little later, poses at 100 Hz: the camera moves 1 m/s along x and turns about z."""
    for frame in range(FRAMES):
        write(root / f"rgb/{frame}.png", color(frame))
        write(root / f"depth/{frame}.png", depth(frame))
    start = 1305031102.0
    times = start + np.arange(FRAMES) / 30
    head = "# timestamp filename\n"
    for name, stamps in (("rgb", times), ("depth", times + seconds_off)):
        lines = [f"{stamp:.6f} {name}/{frame}.png\n" for frame, stamp in enumerate(stamps)]
        (root / f"{name}.txt").write_text(head + "".join(lines))
    moments = np.arange(-5, 40) / 100
    turn = moments / 2  # radians
    quaternions = [f"0 0 {np.sin(angle / 2):.9f} {np.cos(angle / 2):.9f}" for angle in turn]
    rows = [
        f"{start + moment:.4f} {moment:.6f} 0 1 {given}\n" for moment, given in zip(moments, quaternions, strict=True)
    ]
    (root / "groundtruth.txt").write_text("# ground truth\n" + "".join(rows))
    return root


def open3d(root: Path) -> Path:
    for frame in range(FRAMES):
        write(root / f"color/{frame:06d}.jpg", color(frame))
        write(root / f"depth/{frame:06d}.png", depth(frame))
    by_columns = np.array(MATRIX).T.ravel().tolist()
    write_json(root / "camera_intrinsic.json", {"width": SIZE[0], "height": SIZE[1], "intrinsic_matrix": by_columns})
    return root


def dexycb(root: Path) -> Path:
    """One sequence of two cameras."""
    for number, serial in enumerate(("836212060125", "839512060362")):
        folder = root / "20200709-weiy/20200709_141754" / serial
        for frame in range(FRAMES):
            write(folder / f"color_{frame:06d}.jpg", color(frame))
            write(folder / f"aligned_depth_to_color_{frame:06d}.png", depth(frame + number))
            (folder / f"labels_{frame:06d}.npz").touch()
        calibration = root / f"calibration/intrinsics/{serial}_640x480.yml"
        calibration.parent.mkdir(parents=True, exist_ok=True)
        calibration.write_text(f"color: {{fx: {600 + number}, fy: 601, ppx: 16, ppy: 12}}\ndepth: {{fx: 1}}\n")
    (root / "20200709-weiy/20200709_141754/meta.yml").write_text("num_frames: 6\n")
    return root
