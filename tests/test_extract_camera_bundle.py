"""Bundle adjustment and its parts on made-up scenes with exact answers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from data.geometry import invert_rigid, transform
from extract.camera.bundle import Noise, Scene, adjust, place_cameras, reprojection, triangulate
from extract.camera.observations import Observations, Row, choose_keyframes, collect
from extract.camera.sample import depth_at
from extract.camera.turning import solve_turning

K = np.array([[400.0, 0, 320], [0, 410, 240], [0, 0, 1]])
FRAMES, POINTS = 9, 60


def scene_and_view(seed: int = 0, noise_px: float = 0.0, shift: float = 0.15) -> tuple[Scene, Observations]:
    """A camera that drifts along x while it turns; every point is seen in six frames in a row."""
    rng = np.random.default_rng(seed)
    points = rng.uniform([-1, -0.8, 1.5], [1, 0.8, 3.0], (POINTS, 3))
    poses = np.tile(np.eye(4), (FRAMES, 1, 1))
    poses[:, :3, :3] = Rotation.from_euler("yx", [[2.0 * f, 0.7 * f] for f in range(FRAMES)], degrees=True).as_matrix()
    poses[:, :3, 3] = np.arange(FRAMES)[:, None] * np.array([shift, 0.02, -0.03]) * (shift > 0)
    first = rng.integers(0, FRAMES - 5, POINTS)
    frame, point = np.nonzero((np.arange(FRAMES)[:, None] >= first) & (np.arange(FRAMES)[:, None] < first + 6))
    camera = transform(invert_rigid(poses)[frame], points[point][:, None])[:, 0]
    pixels = camera[:, :2] / camera[:, 2:] * [K[0, 0], K[1, 1]] + K[:2, 2]
    seen = Observations(
        frame, point, pixels + rng.normal(0, noise_px, pixels.shape), camera[:, 2].copy(), FRAMES, POINTS
    )
    return Scene(invert_rigid(poses), points), seen


def disturbed(scene: Scene, seed: int = 1) -> Scene:
    rng = np.random.default_rng(seed)
    poses = scene.camera_from_world_F44.copy()
    poses[1:, :3, :3] = Rotation.from_rotvec(rng.normal(0, 0.01, (FRAMES - 1, 3))).as_matrix() @ poses[1:, :3, :3]
    poses[1:, :3, 3] += rng.normal(0, 0.02, (FRAMES - 1, 3))
    return Scene(poses, scene.points_P3 + rng.normal(0, 0.03, scene.points_P3.shape))


def test_a_disturbed_scene_is_restored_from_exact_observations() -> None:
    scene, seen = scene_and_view()
    found = adjust(disturbed(scene), seen, K, Noise(0.5, 0.02), rounds=30)
    assert np.abs(found.camera_from_world_F44 - scene.camera_from_world_F44).max() < 1e-6
    assert np.abs(found.points_P3 - scene.points_P3).max() < 1e-5
    assert np.array_equal(found.camera_from_world_F44[0], scene.camera_from_world_F44[0])


def test_wild_observations_hardly_pull() -> None:
    scene, seen = scene_and_view(noise_px=0.3)
    wild = np.arange(len(seen.frame_O)) % 9 == 0
    pixels = seen.pixels_O2 + wild[:, None] * np.array([60.0, -35])
    spoiled = Observations(seen.frame_O, seen.point_O, pixels, seen.depth_O, FRAMES, POINTS)
    true = scene.world_from_camera_F44[1:, :3, 3]
    error = []
    for observed in (seen, spoiled):
        found = adjust(disturbed(scene), observed, K, Noise(0.3, 0.02), rounds=30)
        error.append(np.linalg.norm(found.world_from_camera_F44[1:, :3, 3] - true, axis=1).mean())
    assert 0 < error[1] < 2 * error[0] < 0.02


def test_frames_are_placed_from_points_that_stay() -> None:
    scene, seen = scene_and_view()
    start = Scene(disturbed(scene).camera_from_world_F44, scene.points_P3)
    found = place_cameras(start, seen, K, Noise(0.5, 0.02))
    assert np.abs(found.camera_from_world_F44 - scene.camera_from_world_F44).max() < 1e-6


def test_points_come_from_rays_that_differ_and_only_from_those() -> None:
    scene, seen = scene_and_view()
    found = triangulate(scene.camera_from_world_F44, seen, K, least_deg=1.5)
    assert np.isfinite(found).all() and np.abs(found - scene.points_P3).max() < 1e-6
    turning, seen = scene_and_view(shift=0.0)
    assert np.isnan(triangulate(turning.camera_from_world_F44, seen, K, least_deg=1.5)).all()


def test_given_up_points_are_infinitely_far_off_and_unknown_ones_are_not_judged() -> None:
    scene, seen = scene_and_view()
    points = scene.points_P3.copy()
    points[3], points[4] = np.inf, np.nan
    distance = reprojection(Scene(scene.camera_from_world_F44, points), seen, K)
    assert np.isinf(distance[seen.point_O == 3]).all() and np.isnan(distance[seen.point_O == 4]).all()
    assert distance[(seen.point_O != 3) & (seen.point_O != 4)].max() < 1e-9


def test_turning_is_found_exactly_and_shifting_leaves_a_residual() -> None:
    scene, seen = scene_and_view(shift=0.0)
    turns, residual = solve_turning(seen, K, 0.4)
    assert np.abs(turns - scene.world_from_camera_F44[:, :3, :3]).max() < 1e-6 and residual.max() < 1e-3
    _, residual = solve_turning(scene_and_view(shift=0.15)[1], K, 0.4)
    assert np.median(residual) > 2


def test_key_frames_follow_the_loss_of_points() -> None:
    rows = [Row(np.arange(4 * f, 4 * f + 40, dtype=np.int32), np.zeros((40, 2), np.float32), np.zeros(40, np.float32),
                np.zeros(2)) for f in range(11)]  # fmt: skip
    chosen = choose_keyframes(collect(rows), far_px=1e9, keep=0.65)
    assert chosen.tolist() == [0, 5, 9, 10], "four of forty points are lost per frame"
    still = [Row(np.arange(40, dtype=np.int32), np.full((40, 2), 3.0 * f, np.float32), np.zeros(40, np.float32),
                 np.zeros(2)) for f in range(11)]  # fmt: skip
    assert choose_keyframes(collect(still), far_px=16).tolist() == [0, 4, 8, 10], "or the motion"


def test_depth_is_taken_on_one_surface_only() -> None:
    depth = np.full((20, 20), 1.0, np.float32)
    depth[:, 10:] = 2.0
    depth[15:, :] = 0
    places = np.array([[5.2, 5.7], [10.0, 5.0], [14.9, 5.0], [5.0, 17.0], [0.2, 0.3]])
    assert depth_at(depth, places) == pytest.approx([1, 0, 2, 0, 1])
