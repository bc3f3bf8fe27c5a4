"""Exact surfaces of the simulated hand (capsules, ellipsoids) and how far any point is from them, without a simulator.

A capsule is 7 numbers: end a (3), end b (3), radius. An ellipsoid is 15: centre (3), radii (3), rotation (9, row-major,
its columns are the axes). Metres, any one frame.
"""

from __future__ import annotations

import numpy as np


def capsule_distance(points_N3: np.ndarray, capsule_7: np.ndarray) -> np.ndarray:
    """Signed distance f64 [N] in metres from points to one capsule; negative inside."""
    points = np.asarray(points_N3, np.float64)
    start, end, radius = np.split(np.asarray(capsule_7, np.float64), [3, 6])
    axis = end - start
    along = np.clip((points - start) @ axis / max(float(axis @ axis), 1e-18), 0, 1)
    return np.linalg.norm(points - start - along[:, None] * axis, axis=1) - radius


def ellipsoid_distance(points_N3: np.ndarray, ellipsoid_15: np.ndarray) -> np.ndarray:
    """Signed distance f64 [N] in metres from points to one ellipsoid; negative inside.

    The nearest surface point x of y satisfies x_i = r_i^2 y_i / (r_i^2 + t) with sum (x_i / r_i)^2 = 1; t is found by
    bisection (D. Eberly, "Distance from a Point to an Ellipse, an Ellipsoid, or a Hyperellipsoid").
    """
    centre, radii, rotation = np.split(np.asarray(ellipsoid_15, np.float64), [3, 6])
    y = np.abs((np.asarray(points_N3, np.float64) - centre) @ rotation.reshape(3, 3))
    squared = radii**2
    smallest = squared.min()
    # A point exactly on a symmetry plane has no unique answer inside; a nanometre off it has, and the same distance.
    y = np.maximum(y, 1e-9)
    low = np.full(len(y), -smallest)
    high = -smallest + np.linalg.norm(y * radii, axis=1)
    for _ in range(60):
        middle = (low + high) / 2
        outside = np.sum((radii * y / (squared + middle[:, None])) ** 2, axis=1) > 1
        low, high = np.where(outside, middle, low), np.where(outside, high, middle)
    t = ((low + high) / 2)[:, None]
    nearest = squared * y / (squared + t)
    return np.linalg.norm(nearest - y, axis=1) * np.sign(t[:, 0])


def hand_distance(points_N3: np.ndarray, capsules_C7: np.ndarray, ellipsoids_E15: np.ndarray) -> np.ndarray:
    """Signed distance f64 [N] in metres to the union of all parts.

    Outside it is exact. Inside it is the depth below the part that covers the point deepest, which never exceeds the
    true depth below the union.
    """
    parts = [capsule_distance(points_N3, c) for c in capsules_C7]
    parts += [ellipsoid_distance(points_N3, e) for e in ellipsoids_E15]
    return np.min(parts, axis=0)
