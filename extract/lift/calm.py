"""Smoothing over time: no more than the clip's own noise asks for, and no point further than its own uncertainty.

A coordinate y_t = x_t + noise of a point whose acceleration is unknown: x minimises

    sum_t (x_t - y_t)^2 / s^2 + sum_t |acceleration_t|^2 / a^2      (Whittaker, 1923; uneven times)

The ratio a / s is the one under which the accelerations that were seen are most likely (marginal likelihood over all
points, one ratio across and one along the viewing rays): a cloud that jitters against a smooth motion is calmed, one
that is thrown about by its hand is left as it is.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cholesky, solve_triangular, solveh_banded

from extract.hand.banded import acceleration_rows

RATIOS = np.geomspace(0.05, 50, 19)  # of motion to noise, per frame


def calmed(points_TN3: np.ndarray, times_T: np.ndarray, limit_T2: np.ndarray) -> np.ndarray:
    """f64 [T,N,3]: the points smoothed over time; moved by at most ``limit_T2`` (metres, across and along the ray)."""
    if len(points_TN3) < 4:
        return points_TN3.astype(np.float64)
    rows_R3 = acceleration_rows(times_T)
    # In units of the typical second difference, so that a ratio of 1 means a noise as large as the motion.
    rows_R3 = rows_R3 / np.median(np.linalg.norm(rows_R3, axis=1)) * np.sqrt(6)
    ray_TN3 = points_TN3 / np.linalg.norm(points_TN3, axis=-1, keepdims=True)
    ray_3 = ray_TN3.mean((0, 1))
    ray_3 /= np.linalg.norm(ray_3)
    along_TN = points_TN3 @ ray_3
    across_TN3 = points_TN3 - along_TN[..., None] * ray_3
    smooth = _smoothed(across_TN3, rows_R3) + _smoothed(along_TN[..., None], rows_R3) * ray_3
    return limited(points_TN3, smooth, ray_TN3, limit_T2)


def limited(from_TN3: np.ndarray, to_TN3: np.ndarray, ray_TN3: np.ndarray, limit_T2: np.ndarray) -> np.ndarray:
    """f64 [T,N,3]: as far from the first points to the second as the limits across and along the ray allow."""
    move_TN3 = to_TN3 - from_TN3
    along_TN1 = (move_TN3 * ray_TN3).sum(-1, keepdims=True)
    across_TN3 = move_TN3 - along_TN1 * ray_TN3
    far_TN1 = np.linalg.norm(across_TN3, axis=-1, keepdims=True)
    across_TN3 = across_TN3 * np.minimum(1, limit_T2[:, None, :1] / np.maximum(far_TN1, 1e-12))
    return from_TN3 + across_TN3 + np.clip(along_TN1, -limit_T2[:, None, 1:], limit_T2[:, None, 1:]) * ray_TN3


def _smoothed(values_TNC: np.ndarray, rows_R3: np.ndarray) -> np.ndarray:
    ratio = _likeliest(values_TNC, rows_R3)
    frames = len(values_TNC)
    banded = np.zeros((3, frames))  # upper form of I + rows^T rows / ratio^2
    banded[2] = 1.0
    for lag in range(3):
        for first in range(3 - lag):
            products = rows_R3[:, first] * rows_R3[:, first + lag] / ratio**2
            banded[2 - lag, first + lag : first + lag + len(rows_R3)] += products
    return solveh_banded(banded, values_TNC.reshape(frames, -1)).reshape(values_TNC.shape)


def _likeliest(values_TNC: np.ndarray, rows_R3: np.ndarray) -> float:
    frames, count = len(values_TNC), len(rows_R3)
    difference_RT = np.zeros((count, frames))
    for k in range(3):
        difference_RT[np.arange(count), np.arange(count) + k] = rows_R3[:, k]
    seen_RD = difference_RT @ values_TNC.reshape(frames, -1)
    noise_RR = difference_RT @ difference_RT.T
    best, highest = float(RATIOS[-1]), -np.inf
    for ratio in RATIOS:
        lower = cholesky(noise_RR + ratio**2 * np.eye(count), lower=True)
        scale = float((solve_triangular(lower, seen_RD, lower=True) ** 2).mean())
        likelihood = -0.5 * count * np.log(scale + 1e-18) - float(np.log(np.diag(lower)).sum())
        if likelihood > highest:
            best, highest = float(ratio), likelihood
    return best
