"""Linear algebra of a motion fit: one small dense system per frame, tied to its neighbours by smoothness."""

from __future__ import annotations

import numpy as np
from scipy.linalg import solveh_banded


def acceleration_rows(time_T: np.ndarray) -> np.ndarray:
    """Weights f64 [T-2,3] that turn three consecutive positions into their acceleration, for uneven times.

    Scaled by the square root of the time they stand for, so that the sum of squares approximates the integral over time
    and the same sigma (m/s^2 times sqrt(s)) serves every frame rate.
    """
    before, after = np.diff(time_T)[:-1], np.diff(time_T)[1:]
    span = before + after
    rows = np.stack([2 / (before * span), -2 / (before * after), 2 / (after * span)], 1)
    return rows * np.sqrt(span / 2)[:, None]


class SmoothSystem:
    """Normal equations (H + sum over frames of acceleration^T Q acceleration) x = -g, solved by banded Cholesky.

    rows_R3: from acceleration_rows, R = T - 2. precision_D: diagonal of Q, D unknowns per frame.
    """

    def __init__(self, rows_R3: np.ndarray, precision_D: np.ndarray):
        self.rows, self.precision = rows_R3, precision_D
        frames = len(rows_R3) + 2
        self._coupling = [np.zeros(frames) for _ in range(3)]  # between frames t and t + lag
        for lag in range(3):
            for first in range(3 - lag):
                self._coupling[lag][first : first + len(rows_R3)] += rows_R3[:, first] * rows_R3[:, first + lag]

    def gradient(self, unknowns_TD: np.ndarray) -> np.ndarray:
        """Gradient f64 [T,D] of half the smoothness term."""
        count = len(self.rows)
        acceleration = sum(self.rows[:, k, None] * unknowns_TD[k : k + count] for k in range(3)) * self.precision
        gradient = np.zeros_like(unknowns_TD)
        for k in range(3):
            gradient[k : k + count] += self.rows[:, k, None] * acceleration
        return gradient

    def solve(self, hessian_TDD: np.ndarray, gradient_TD: np.ndarray) -> np.ndarray:
        """The Gauss-Newton step f64 [T,D] for the data terms' Hessian (lower triangle) and the whole gradient."""
        frames, size = gradient_TD.shape
        bands = np.zeros((2 * size + 1, frames, size))  # LAPACK lower form: bands[i - j, j] = A[i, j]
        for offset in range(size):
            bands[offset, :, : size - offset] = np.diagonal(hessian_TDD, -offset, 1, 2)
        for lag in range(3):
            bands[lag * size, : frames - lag] += self._coupling[lag][: frames - lag, None] * self.precision
        flat = bands.reshape(2 * size + 1, frames * size)
        step = solveh_banded(flat, -gradient_TD.ravel(), overwrite_ab=True, lower=True, check_finite=False)
        return step.reshape(frames, size)
