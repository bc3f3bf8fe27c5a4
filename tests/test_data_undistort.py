"""Lens distortion: straightened frames show every point where the pinhole model says, with depth and mask alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.config import IndexConfig
from data.reader import EpisodeReader
from data.sidecar import Lens
from data.undistort import Undistortion
from tests.indexed import indexed

SIZE = (320, 240)
K = np.array([[210.0, 0, 163.0], [0, 205, 118], [0, 0, 1]])
BARREL = (-0.28, 0.09, 0.001, -0.002, -0.01)
RATIONAL = (0.4, 0.05, -0.001, 0.0005, 0.01, 0.7, 0.1, 0.02)
FISHEYE = (-0.03, 0.01, -0.004, 0.001)


def as_filmed(points_N3: np.ndarray, coefficients: tuple[float, ...], lens: Lens) -> np.ndarray:
    """Where OpenCV says the lens puts points, in this project's pixels (first pixel's centre at 0.5)."""
    d, zero = np.array(coefficients), np.zeros(3)
    k = K - np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
    if lens == "fisheye":
        pixels = cv2.fisheye.projectPoints(points_N3[:, None], zero, zero, k, d)[0]
    else:
        pixels = cv2.projectPoints(points_N3, zero, zero, k, d)[0]
    return pixels.reshape(-1, 2) + 0.5


def dots(pixels_N2: np.ndarray) -> np.ndarray:
    """A black picture with soft white dots, uint8 [H,W,3]."""
    x, y = np.arange(SIZE[0]) + 0.5, np.arange(SIZE[1]) + 0.5
    glow = np.zeros(SIZE[::-1])
    for u, v in pixels_N2:
        glow += np.exp(-((x[None] - u) ** 2 + (y[:, None] - v) ** 2) / (2 * 1.5**2))
    return np.repeat((250 * np.clip(glow, 0, 1)).astype(np.uint8)[..., None], 3, 2)


def centre_near(image: np.ndarray, pixel_2: np.ndarray) -> np.ndarray:
    """Centre of the bright spot within 7 pixels of a place."""
    x, y = np.meshgrid(np.arange(SIZE[0]) + 0.5, np.arange(SIZE[1]) + 0.5)
    weight = image[..., 0] * (np.hypot(x - pixel_2[0], y - pixel_2[1]) < 7.0)
    return np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()


@pytest.mark.parametrize(
    ("coefficients", "lens"),
    [(BARREL[:4], "pinhole"), (BARREL, "pinhole"), (RATIONAL, "pinhole"), (FISHEYE, "fisheye")],
)
def test_straightened_points_lie_where_the_pinhole_puts_them(coefficients: tuple[float, ...], lens: Lens) -> None:
    grid = np.array([(u, v) for u in (40, 100, 160, 220, 280) for v in (40, 120, 200)], float)
    rays = np.column_stack([(grid - K[:2, 2]) / K[[0, 1], [0, 1]], np.ones(len(grid))])
    filmed = as_filmed(rays, coefficients, lens)
    assert np.linalg.norm(filmed - grid, axis=1).max() > 4, "the lens must bend for the test to mean anything"
    straight = Undistortion(K, coefficients, lens, SIZE).image(dots(filmed))
    error = [np.linalg.norm(centre_near(straight, pixel) - pixel) for pixel in grid]
    assert max(error) < 0.1


def test_depth_and_mask_are_picked_not_mixed_and_unseen_places_are_unknown() -> None:
    lens = Undistortion(K, tuple(-c for c in BARREL), "pinhole", SIZE)  # a pincushion: corners leave the picture
    depth = np.where(np.arange(SIZE[0]) < 160, 0.5, 2.0)[None].repeat(SIZE[1], 0).astype(np.float32)
    straight, mask = lens.depth(depth), lens.mask(depth > 1)
    assert set(np.unique(straight)) == {0.0, 0.5, 2.0} and straight.dtype == np.float32
    assert mask.dtype == bool and (mask == (straight > 1)).all()
    assert (straight[0, 0], mask[0, 0], lens.image(np.full((*SIZE[::-1], 3), 255, np.uint8))[0, 0, 0]) == (0, False, 0)


def test_a_polynomial_that_folds_back_shows_nothing_twice() -> None:
    folding = (-0.9, 0.0, 0.0, 0.0)  # r (1 - 0.9 r^2) grows only up to r = 0.61
    white = np.full((*SIZE[::-1], 3), 255, np.uint8)
    straight = Undistortion(K, folding, "pinhole", SIZE).image(white)[..., 0] > 0
    x, y = np.meshgrid((np.arange(SIZE[0]) + 0.5 - K[0, 2]) / K[0, 0], (np.arange(SIZE[1]) + 0.5 - K[1, 2]) / K[1, 1])
    radius = np.hypot(x, y)
    assert straight[radius < 0.6].all() and not straight[radius > 0.62].any() and (radius > 0.62).sum() > 1000


def test_an_episode_is_read_straightened_unless_it_is_rectified(
    tmp_path: Path, make_video: Callable[..., Path]
) -> None:
    make_video(tmp_path / "a.mp4", frames=12, size=SIZE)
    depth = np.tile(np.arange(SIZE[0], dtype=np.uint16) + 1, (12, SIZE[1], 1))
    np.savez(tmp_path / "a.npz", depth=depth, mask=depth > 100)
    read = {}
    for rectified in (False, True):
        sidecar = {"intrinsics": K.tolist(), "distortion": BARREL, "rectified": rectified, "arrays": "a.npz"}
        (tmp_path / "a.json").write_text(json.dumps(sidecar))
        config = IndexConfig.model_validate({"sources": [{"name": "mine", "path": tmp_path}]})
        episodes, _ = indexed(config, tmp_path / "index", tmp_path)
        read[rectified] = list(EpisodeReader(episodes[0]).frames(None))
    as_stored = (depth[3] * np.float32(0.001)).astype(np.float32)
    assert np.array_equal(read[True][3].depth, as_stored) and np.array_equal(read[True][3].mask, depth[3] > 100)
    lens = Undistortion(K, BARREL, "pinhole", SIZE)
    assert np.array_equal(read[False][3].depth, lens.depth(as_stored)) and not np.array_equal(
        read[False][3].depth, as_stored
    )
    assert np.array_equal(read[False][3].mask, lens.mask(depth[3] > 100))
    assert np.array_equal(read[False][3].image, lens.image(read[True][3].image))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", json.dumps({"distortion": [0.1, 0, 0, 0]}), "needs intrinsics"),
        ("a.json", json.dumps({"intrinsics": K.tolist(), "distortion": [0.1, 0, 0]}), "4, 5, 8, 12, 14 coefficients"),
        ("a.json", json.dumps({"intrinsics": K.tolist(), "distortion": BARREL, "lens": "fisheye"}), "lens has 4"),
        ("a.json", '{"intrinsics": [[9,0,1],[0,9,1],[0,0,1]], "distortion": [NaN, 0, 0, 0]}', "finite"),
        ("a.csv", "fx,fy,cx,cy,k1,p1\n50,50,32,24,0.1,0\n", "needs columns k1, k2, p1"),
    ],
)  # fmt: skip
def test_wrong_distortion_is_a_rejection_that_says_what_is_needed(
    tmp_path: Path, make_video: Callable[..., Path], name: str, content: str, message: str
) -> None:
    make_video(tmp_path / "a.mp4")
    (tmp_path / name).write_text(content)
    config = IndexConfig.model_validate({"sources": [{"name": "mine", "path": tmp_path}]})
    episodes, rejected = indexed(config, tmp_path / "index", tmp_path)
    assert not episodes
    assert [r.reason for r in rejected if r.item.endswith("a.mp4")] == ["bad_sidecar"]
    assert message in rejected[0].detail and name in rejected[0].detail


def test_distortion_in_csv_columns(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    make_video(tmp_path / "a.mp4")
    (tmp_path / "a.csv").write_text("fx,fy,cx,cy,k1,k2,p1,p2,k3\n50,50,32,24,0.1,0.2,0,0,0.3\n")
    make_video(tmp_path / "b.mp4", frames=15)
    (tmp_path / "b.csv").write_text("fx,fy,cx,cy,k1,k2,k3,k4,lens\n50,50,32,24,0.1,0.2,0.3,0.4,fisheye\n")
    config = IndexConfig.model_validate({"sources": [{"name": "mine", "path": tmp_path}]})
    first, second = (e.sidecar for e in indexed(config, tmp_path / "index", tmp_path)[0])
    assert (first.distortion, first.lens) == ((0.1, 0.2, 0, 0, 0.3), "pinhole")
    assert (second.distortion, second.lens) == ((0.1, 0.2, 0.3, 0.4), "fisheye")
