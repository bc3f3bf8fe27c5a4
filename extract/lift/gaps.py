"""Frames in which nothing was measured: where the points are put, and how far off they may be."""

from __future__ import annotations

import numpy as np

GAP_ACCELERATION = 1.2  # metres / s^2: typical |motion - straight line| is this times (t - t0) (t1 - t)


def bridged(points_TN3: np.ndarray, times_T: np.ndarray, measured_T: np.ndarray) -> np.ndarray:
    """The points with all frames that are not measured on straight lines between their neighbours, else still."""
    if measured_T.all():
        return points_TN3
    filled_TD = points_TN3.reshape(len(times_T), -1).copy()
    for column in filled_TD.T:
        column[~measured_T] = np.interp(times_T[~measured_T], times_T[measured_T], column[measured_T])
    return filled_TD.reshape(points_TN3.shape)


def off_line(times_T: np.ndarray, measured_T: np.ndarray) -> np.ndarray:
    """f64 [T] metres, one sigma: 0 in measured frames, growing with the distance in time from both neighbours.

    Before the first and after the last measured frame the points are still; there it grows with the time passed.
    """
    known = times_T[measured_T]
    if len(known) == 1:
        return GAP_ACCELERATION * (times_T - known[0]) ** 2
    after = np.clip(np.searchsorted(known, times_T), 1, len(known) - 1)
    return GAP_ACCELERATION * np.abs((times_T - known[after - 1]) * (known[after] - times_T))
