"""A clip at other times than its frames': one rule for training windows and for the closed loop."""

from __future__ import annotations

import numpy as np

SLACK_S = 1e-6  # times this much beyond the first or last frame still count as inside
SNAP = 1e-4  # in frame intervals: times this close to a frame are that frame


def resample_points(
    points_TN3: np.ndarray, visible_TN: np.ndarray, times: np.ndarray, at: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Linear interpolation of identified points; visible where both neighbours are. Held constant beyond the ends.

    times: [T] seconds, increasing. at: [K] seconds. Returns points [K,N,3] and visibility [K,N].
    """
    after = np.clip(np.searchsorted(times, at), 1, len(times) - 1) if len(times) > 1 else np.zeros(len(at), int)
    before = np.maximum(after - 1, 0)
    gap = np.maximum(times[after] - times[before], 1e-9)
    weight = np.clip((at - times[before]) / gap, 0, 1)
    whole = np.abs(weight - np.round(weight)) < SNAP  # a frame's own time must not need its neighbour
    weight = np.where(whole, np.round(weight), weight).astype(np.float32)[:, None, None]
    points = points_TN3[before] * (1 - weight) + points_TN3[after] * weight
    visible = (visible_TN[before] | (weight[..., 0] == 1)) & (visible_TN[after] | (weight[..., 0] == 0))
    return points, visible


def resample_scalar(values_T: np.ndarray, times: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Linear interpolation, NaN where a neighbour is unknown, float32 [K]."""
    return np.interp(at, times, values_T).astype(np.float32)
