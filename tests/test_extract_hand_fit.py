"""The whole-clip fit: right on exact observations, smooth where nothing was seen, parity with a dense solver."""

from __future__ import annotations

import numpy as np
import pytest

from extract.hand.banded import SmoothSystem, acceleration_rows
from extract.hand.fit import OVERLAP, WINDOW, fit_hand
from extract.hand.observe import HandObservations, observe, sample_surface_depth
from extract.hand.skeleton import LANDMARK_SPAN, palm_size
from tests.hand_cases import CAMERA, hand_213, moving_hand, seen_surface

PALM = float(palm_size(hand_213())) / LANDMARK_SPAN  # landmarks at the very joints span all of the palm


def observed_hand(
    frames: int, sensor: bool, hidden: slice | None = None, palm: float = PALM
) -> tuple[HandObservations, np.ndarray]:
    time, joints = moving_hand(frames)
    measured = np.ones(frames, bool)
    if hidden is not None:
        measured[hidden] = False
    surface = seen_surface(joints, PALM) if sensor else np.full(joints.shape[:2], np.nan)
    world = joints - joints.mean(1, keepdims=True)
    pixels = np.where(measured[:, None, None], CAMERA.project(joints), 0)
    return observe(time, pixels, world, surface, measured, CAMERA, palm), joints


def error_mm(joints: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return 1000 * np.linalg.norm(joints - truth, axis=-1)


def test_image_alone_gives_metric_joints_of_a_hand_of_known_size():
    observed, truth = observed_hand(40, sensor=False)
    fit = fit_hand(observed, PALM, 0.004)
    depth = fit.joints_T213[..., 2].mean(1) / truth[..., 2].mean(1) - 1
    assert np.abs(depth).max() < 0.06
    assert np.median(error_mm(fit.joints_T213 - fit.joints_T213[:, :1], truth - truth[:, :1])) < 8


def test_sensor_depth_overrides_a_wrong_hand_size():
    observed, truth = observed_hand(40, sensor=True)
    fit = fit_hand(observed, 1.12 * PALM, 0.004)
    assert np.abs(fit.joints_T213[..., 2].mean(1) / truth[..., 2].mean(1) - 1).max() < 0.01


def test_depth_from_an_image_is_proportional_to_the_assumed_hand_size():
    small, large = (
        fit_hand(observed_hand(30, sensor=False, palm=palm)[0], palm, 0.004).joints_T213[..., 2].mean()
        for palm in (PALM, 1.1 * PALM)
    )
    assert large / small == pytest.approx(1.1, abs=0.02)


def test_unseen_frames_follow_the_motion():
    observed, truth = observed_hand(40, sensor=True, hidden=slice(18, 23))
    fit = fit_hand(observed, PALM, 0.004)
    assert error_mm(fit.joints_T213, truth)[18:23].max() < 15


def test_long_clips_have_no_seam_between_windows():
    frames = WINDOW + 60
    observed, truth = observed_hand(frames, sensor=True)
    fit = fit_hand(observed, PALM, 0.004)
    steps = np.linalg.norm(np.diff(fit.joints_T213, axis=0) - np.diff(truth, axis=0), axis=-1).max(1)
    seam = slice(WINDOW - OVERLAP - 2, WINDOW + 2)
    assert 1000 * steps[seam].max() < 2


def test_one_frame_is_enough():
    observed, truth = observed_hand(1, sensor=True)
    fit = fit_hand(observed, PALM, 0.004)
    assert np.abs(fit.joints_T213[..., 2].mean() / truth[..., 2].mean() - 1) < 0.02


def test_banded_solution_equals_the_dense_one():
    rng = np.random.default_rng(0)
    frames, size = 9, 4
    time = np.cumsum(rng.uniform(0.02, 0.06, frames))
    rows = acceleration_rows(time)
    precision = rng.uniform(0.5, 3.0, size)
    blocks = np.array([part @ part.T + np.eye(size) for part in rng.normal(size=(frames, size, size))])
    gradient = rng.normal(size=(frames, size))
    dense = np.zeros((frames * size, frames * size))
    for t in range(frames):
        dense[t * size : (t + 1) * size, t * size : (t + 1) * size] = blocks[t]
    for t, row in enumerate(rows):
        second = np.zeros((size, frames * size))
        for k in range(3):
            second[:, (t + k) * size : (t + k + 1) * size] = row[k] * np.eye(size)
        dense += second.T @ np.diag(precision) @ second
    step = SmoothSystem(rows, precision).solve(blocks, gradient)
    np.testing.assert_allclose(step.ravel(), np.linalg.solve(dense, -gradient.ravel()), rtol=1e-7)


def test_smoothness_does_not_depend_on_the_frame_rate():
    energies = []
    for rate in (25.0, 100.0):
        time = np.arange(0, 4, 1 / rate)
        system = SmoothSystem(acceleration_rows(time), np.ones(1))
        path = np.sin(2 * np.pi * time)[:, None]
        energies.append(float(np.sum(path * system.gradient(path))))
    assert energies[0] == pytest.approx(energies[1], rel=0.05)


def test_surface_depth_ignores_holes_background_and_pixels_outside_the_hand():
    pixels = CAMERA.project(moving_hand(1)[1][0])
    depth = np.full((480, 640), 0.5, np.float32)
    depth[::2] = 0
    column, row = np.floor(pixels[8]).astype(int)
    depth[row - 3 : row + 4, column - 3 : column + 4] = 2.0
    sampled = sample_surface_depth(depth, None, pixels)
    assert np.isnan(sampled[8])
    np.testing.assert_allclose(np.delete(sampled, 8), 0.5)
    nothing = sample_surface_depth(depth, np.zeros(depth.shape, bool), pixels)
    assert np.isnan(nothing).all()
