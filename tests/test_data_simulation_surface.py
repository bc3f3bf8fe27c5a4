"""The closed-form hand surface measures true distances."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from data.simulation.surface import capsule_distance, ellipsoid_distance, hand_distance

RNG = np.random.default_rng(0)


def _ellipsoid(centre, radii, rotation):
    return np.concatenate([centre, radii, np.asarray(rotation).ravel()])


def test_ellipsoid_with_equal_radii_is_a_sphere():
    points = RNG.normal(size=(200, 3))
    sphere = _ellipsoid([0.1, -0.2, 0.3], [0.7] * 3, np.eye(3))
    expected = np.linalg.norm(points - [0.1, -0.2, 0.3], axis=1) - 0.7
    np.testing.assert_allclose(ellipsoid_distance(points, sphere), expected, atol=1e-7)


def test_capsule_of_no_length_is_a_sphere():
    points = RNG.normal(size=(50, 3))
    expected = np.linalg.norm(points - 0.1, axis=1) - 0.4
    np.testing.assert_allclose(capsule_distance(points, np.array([0.1] * 6 + [0.4])), expected, atol=1e-12)


@pytest.mark.parametrize("scale", [0.3, 0.9, 2.0])
def test_ellipsoid_distance_agrees_with_a_dense_sample_of_its_surface(scale):
    radii, rotation, centre = np.array([0.036, 0.046, 0.0135]), Rotation.from_rotvec([0.4, -1.1, 0.8]).as_matrix(), 0.05
    directions = RNG.normal(size=(400_000, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    surface = (directions * radii) @ rotation.T + centre
    points = (RNG.normal(size=(40, 3)) * radii * scale) @ rotation.T + centre
    nearest = np.array([np.linalg.norm(surface - point, axis=1).min() for point in points])
    measured = ellipsoid_distance(points, _ellipsoid([centre] * 3, radii, rotation))
    np.testing.assert_allclose(np.abs(measured), nearest, atol=2e-4)
    inside = np.linalg.norm((points - centre) @ rotation / radii, axis=1) < 1
    assert ((measured < 0) == inside).all()


def test_union_is_the_nearest_part_and_negative_inside_any():
    capsules = np.array([[0, 0, 0, 0, 0, 1, 0.1], [0, 1, 0, 0, 2, 0, 0.2]])
    ellipsoids = _ellipsoid([5, 0, 0], [1, 1, 1], np.eye(3))[None]
    points = np.array([[0.0, 0, 0.5], [0, 1.5, 0.3], [5, 0, 3], [0.5, 0, 0.5]])
    np.testing.assert_allclose(hand_distance(points, capsules, ellipsoids), [-0.1, 0.1, 2.0, 0.4], atol=1e-7)
