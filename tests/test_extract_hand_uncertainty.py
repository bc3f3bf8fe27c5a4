"""Sigma says how far off a frame may be; smoothing does not pass for a measurement."""

from __future__ import annotations

import numpy as np

from extract.hand.fit import FitModel
from extract.hand.observe import HandObservations, observe
from extract.hand.place import PlacedHand, place_hand
from extract.hand.skeleton import LANDMARK_SPAN, palm_size
from extract.hand.surface import make_surface
from extract.hand.uncertainty import Assumptions, shrinkage, smoothed_away
from tests.hand_cases import CAMERA, hand_213, moving_hand, seen_surface

PALM = float(palm_size(hand_213())) / LANDMARK_SPAN


def seen(sensor: bool = False, noise_px: float = 0.0, hidden: slice | None = None) -> HandObservations:
    """A moving hand."""
    time, joints = moving_hand(24)
    measured = np.ones(len(time), bool)
    if hidden is not None:
        measured[hidden] = False
    surface = seen_surface(joints, PALM) if sensor else np.full(joints.shape[:2], np.nan)
    pixels = CAMERA.project(joints) + noise_px * np.random.default_rng(0).normal(size=(*joints.shape[:2], 2))
    return observe(time, pixels, joints, surface, measured, CAMERA, PALM)


def sigma(observed: HandObservations, palm: float = PALM, assumed: Assumptions | None = None) -> np.ndarray:
    return place_hand(observed, palm, 0.004, assumed or Assumptions()).sigma_T2


def test_sigma_grows_into_a_gap_and_shrinks_out_of_it():
    around = sigma(seen(sensor=True, hidden=slice(8, 16)))
    assert (around[8:16] > around[7]).all()
    assert (np.diff(around[7:12], axis=0) > 0).all() and (np.diff(around[12:17], axis=0) < 0).all()


def test_what_is_assumed_widens_sigma_along_the_ray_in_proportion_to_the_distance():
    observed = seen()
    distance = np.linalg.norm(place_hand(observed, PALM, 0.004, Assumptions()).joints_T213.mean(1), axis=-1)
    plain = sigma(observed)
    for assumed in (Assumptions(focal=0.2), Assumptions(palm=0.2)):
        wider = sigma(observed, assumed=assumed)
        np.testing.assert_allclose(wider[:, 1], np.hypot(plain[:, 1], 0.2 * distance))
        np.testing.assert_allclose(wider[:, 0], plain[:, 0])


def test_a_sensor_knows_the_distance_better_whatever_the_size_of_the_hand():
    image, sensor = sigma(seen()), sigma(seen(sensor=True))
    assert (sensor[:, 1] < 0.5 * image[:, 1]).all()
    np.testing.assert_allclose(sigma(seen(sensor=True), assumed=Assumptions(palm=0.2)), sensor)


def test_restless_landmarks_widen_sigma():
    for sensor in (False, True):
        calm, restless = (sigma(seen(sensor, noise_px=noise)) for noise in (0.0, 6.0))
        assert np.median(restless[:, 0]) > 1.2 * np.median(calm[:, 0])


def test_a_hand_whose_landmarks_misfit_is_taken_to_be_nearer_but_not_by_much():
    observed, restless = seen(), seen(noise_px=8.0)
    joints = moving_hand(24)[1]
    calm, shrunk = (shrinkage(each, joints, PALM * LANDMARK_SPAN) for each in (observed, restless))
    assert (shrunk < calm).all() and (shrunk > 0.85).all() and (calm < 1.06).all()
    assert np.abs(np.diff(np.log(shrunk))).max() < 0.01, "slow in time"


def test_a_sensor_that_saw_the_hand_now_and_then_is_not_used():
    observed = seen(sensor=True)
    observed.surface_z_T21[3:] = np.nan
    placed = place_hand(observed, PALM, 0.004, Assumptions())
    assert not placed.sensed
    np.testing.assert_array_equal(placed.joints_T213, place_hand(seen(), PALM, 0.004, Assumptions()).joints_T213)


def test_without_smoothness_raw_and_smooth_joints_are_the_same():
    placed = place_hand(seen(noise_px=2.0), PALM, 0.004, Assumptions(), FitModel(smooth=False))
    np.testing.assert_array_equal(placed.joints_T213, placed.raw_joints_T213)


def test_a_frame_that_jumps_is_smoothed_and_does_not_count_as_measured():
    time, joints = moving_hand(24)
    pixels = CAMERA.project(joints)
    pixels[12] += [60, 0]
    nothing = np.full(joints.shape[:2], np.nan)
    observed = observe(time, pixels, joints, nothing, np.ones(24, bool), CAMERA, PALM)
    away = _away(place_hand(observed, PALM, 0.004, Assumptions()))
    assert away[12].mean() > 0.9
    assert np.delete(away, [10, 11, 12, 13, 14], axis=0).mean() < 0.1


def test_points_within_sigma_of_where_they_were_measured_stay_measured():
    raw = np.array([[[0.0, 0.0, 0.5]] * 4])
    moved = raw + np.array([[[0.004, 0, 0], [0.006, 0, 0], [0, 0, 0.04], [0, 0, -0.06]]])
    np.testing.assert_array_equal(smoothed_away(moved, raw, np.array([[0.005, 0.05]])), [[False, True, False, True]])


def _away(placed: PlacedHand) -> np.ndarray:
    surface = make_surface(60, placed.palm_m)
    points, _ = surface.points(placed.joints_T213, "right")
    raw, _ = surface.points(placed.raw_joints_T213, "right")
    return smoothed_away(points, raw, placed.sigma_T2)
