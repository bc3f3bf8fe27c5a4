"""Waypoints: corners of a path and ends of a grasp, the same from every camera, few where nothing turns."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from data.geometry import invert_rigid, transform
from data.waypoints import changes, grasp_path, waypoints, waypoints_ahead

STILL = np.tile(np.eye(4, dtype=np.float32), (41, 1, 1))


def corner_path() -> np.ndarray:
    """[41,3]: 20 cm to the right within 20 frames, then 20 cm forwards."""
    way = np.minimum(np.arange(41)[:, None] - np.array([0, 20]), 20).clip(0) * 0.01
    return np.stack([way[:, 0], np.zeros(41), 0.5 + way[:, 1]], -1).astype(np.float32)


def test_corners_are_waypoints_and_straight_ways_have_none() -> None:
    closed = np.zeros(41, np.float32)
    assert waypoints(corner_path(), closed, 0.02) == [0, 20, 40]
    assert waypoints(corner_path()[:21], closed[:21], 0.02) == [0, 20]
    rng = np.random.default_rng(0)
    shaky = corner_path() + rng.uniform(-0.005, 0.005, (41, 3))
    found = waypoints(shaky, closed, 0.02)
    assert len(found) == 3 and found[1] == pytest.approx(20, abs=1)


def test_there_and_back_turns_at_the_far_end() -> None:
    away = np.abs(np.abs(np.arange(41) - 20) - 20)[:, None] * np.array([0.01, 0, 0])
    assert waypoints(away, np.zeros(41), 0.02) == [0, 20, 40]


def test_no_point_of_the_path_is_further_from_the_waypoints_than_allowed() -> None:
    rng = np.random.default_rng(1)
    path = np.cumsum(np.cumsum(rng.normal(0, 0.001, (300, 3)), 0), 0)
    for within in (0.01, 0.05):
        found = waypoints(path, np.full(300, np.nan), within)
        assert 3 < len(found) < 200
        for start, end in pairwise(found):
            share = np.linspace(0, 1, 2000)[:, None]
            line = path[start] + share * (path[end] - path[start])
            away = np.linalg.norm(path[start : end + 1, None] - line[None], axis=-1).min(1)
            assert away.max() < within + 1e-3


def test_a_grasp_starts_and_ends_at_waypoints() -> None:
    opening = np.interp(np.arange(41), [10, 14, 30, 32], [0.08, 0.04, 0.04, 0.0])
    assert changes(opening, 0.01) == {10, 14, 30, 32}
    assert waypoints(np.zeros((41, 3)), opening, 0.02) == [0, 10, 14, 30, 32, 40]
    trembling = 0.04 + 0.004 * np.sin(np.arange(41))
    assert changes(trembling, 0.01) == set()
    unknown = opening.copy()
    unknown[16:20] = np.nan
    assert changes(unknown, 0.01) == {10, 14, 30, 32}
    assert changes(np.full(41, np.nan), 0.01) == set()


def test_each_frame_looks_ahead_to_the_next_two_and_the_end() -> None:
    path, opening = corner_path(), np.full(41, 0.03, np.float32)
    points, valid = waypoints_ahead(path, opening, STILL, 0.02)
    assert points.shape == (41, 3, 4) and points.dtype == np.float32
    np.testing.assert_allclose(points[5, 0], [*path[20], 0.03])
    np.testing.assert_allclose(points[5, 1], [*path[40], 0.03])
    np.testing.assert_allclose(points[5, 2], [*path[40], 0.03])
    np.testing.assert_allclose(points[20, 0], [*path[40], 0.03])
    assert valid[0].tolist() == valid[19].tolist() == [True, True, True]
    assert valid[20].tolist() == valid[39].tolist() == [True, False, True]
    assert valid[40].tolist() == [False, False, True]


def test_a_moving_camera_sees_the_same_waypoints_from_where_it_is() -> None:
    poses = np.tile(np.eye(4), (41, 1, 1))
    poses[:, :3, :3] = Rotation.from_rotvec(np.arange(41)[:, None] * [0, 0.01, 0.002]).as_matrix()
    poses[:, :3, 3] = np.arange(41)[:, None] * [0.004, -0.002, 0.001]
    world = corner_path()
    seen = transform(invert_rigid(poses), world[:, None].astype(np.float64))[:, 0]
    points, valid = waypoints_ahead(seen, np.zeros(41), poses, 0.02)
    expected, expected_valid = waypoints_ahead(world, np.zeros(41), STILL, 0.02)
    np.testing.assert_array_equal(valid, expected_valid)
    for frame in (0, 12, 33):
        there = transform(poses[frame], points[frame, :, :3])
        np.testing.assert_allclose(there, expected[frame, :, :3], atol=1e-6)


def test_where_the_grasp_point_is_unknown_the_centroid_stands_in() -> None:
    points = np.random.default_rng(2).normal(size=(5, 7, 3)).astype(np.float32)
    grasp = np.arange(15, dtype=np.float32).reshape(5, 3)
    grasp[2] = np.nan
    path = grasp_path(points, grasp)
    np.testing.assert_array_equal(path[[0, 1, 3, 4]], grasp[[0, 1, 3, 4]])
    np.testing.assert_allclose(path[2], points[2].mean(0), atol=1e-6)
    np.testing.assert_allclose(grasp_path(points, None), points.mean(1), atol=1e-6)
