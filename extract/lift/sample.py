"""Depth under points between pixels, never mixed from two surfaces."""

from __future__ import annotations

import numpy as np

EDGE = 0.02  # of the distance: pixels whose depth differs by more from the point's own pixel are another surface


def depth_under(depth_HW: np.ndarray, mask_HW: np.ndarray, pixels_N2: np.ndarray) -> np.ndarray:
    """f64 [N] metres: bilinear depth over those of the four pixels around a point that show what its own pixel shows.

    pixels_N2: pixel (row r, column c) has its centre at (c + 0.5, r + 0.5). Own pixel: the one that holds the point,
    or the nearest of the four with a mask and a depth. NaN where there is none, outside the picture too.
    """
    height, width = depth_HW.shape
    corner_N2 = np.floor(np.nan_to_num(pixels_N2, nan=-9) - 0.5).astype(int)
    part_N2 = pixels_N2 - 0.5 - corner_N2
    column_N4 = corner_N2[:, :1] + np.array([0, 1, 0, 1])
    row_N4 = corner_N2[:, 1:] + np.array([0, 0, 1, 1])
    along_N4 = np.where([False, True, False, True], part_N2[:, :1], 1 - part_N2[:, :1])
    down_N4 = np.where([False, False, True, True], part_N2[:, 1:], 1 - part_N2[:, 1:])
    weight_N4 = along_N4 * down_N4
    within_N4 = (column_N4 >= 0) & (column_N4 < width) & (row_N4 >= 0) & (row_N4 < height)
    row_N4, column_N4 = np.clip(row_N4, 0, height - 1), np.clip(column_N4, 0, width - 1)
    value_N4 = depth_HW[row_N4, column_N4].astype(np.float64)
    weight_N4 = np.where(within_N4 & mask_HW[row_N4, column_N4] & (value_N4 > 0), weight_N4 + 1e-9, 0.0)
    each = np.arange(len(pixels_N2))
    own_N1 = value_N4[each, weight_N4.argmax(1)][:, None]
    weight_N4 = np.where(np.abs(value_N4 - own_N1) <= EDGE * own_N1, weight_N4, 0.0)
    total_N = weight_N4.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total_N > 0, (weight_N4 * value_N4).sum(1) / total_N, np.nan)
