"""Depth at single places of a map, never mixed across an edge."""

from __future__ import annotations

import numpy as np

EDGE = 0.04  # relative spread of depth around a place from which on it counts as an edge


def depth_at(depth_HW: np.ndarray, pixels_N2: np.ndarray) -> np.ndarray:
    """f32 [N] metres at pixel places (first pixel's centre at 0.5), 0 where nothing or an edge is measured.

    The median of the 3x3 measurements around the place, if at least five are there and lie on one surface: corners are
    often outlines, where depth belongs to either side.
    """
    height, width = depth_HW.shape
    column = np.floor(pixels_N2[:, 0]).astype(int)[:, None] + np.tile([-1, 0, 1], 3)
    row = np.floor(pixels_N2[:, 1]).astype(int)[:, None] + np.repeat([-1, 0, 1], 3)
    near = depth_HW[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)].astype(np.float64)
    near[near <= 0] = np.nan
    known = np.isfinite(near).sum(1) >= 5
    depth = np.zeros(len(pixels_N2), np.float32)
    if known.any():
        picked = near[known]
        middle = np.nanmedian(picked, axis=1)
        flat = np.nanmax(picked, axis=1) - np.nanmin(picked, axis=1) < EDGE * middle
        depth[known] = np.where(flat, middle, 0)
    return depth
