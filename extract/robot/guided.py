"""Tracks once more, now that it is known where they should be: every picture against one template of the point.

Chained tracks drift, because every step starts where the last one ended; a template compared with every frame directly
does not, but needs to be told where to look. The rigid motion that the chained tracks revealed tells.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from extract.robot.tracks import WINDOW, both_ways

MAX_RETURN_ERROR = 0.5  # working pixels
CORNER = 0.5  # ratio of gradients from which on a patch is as sharp in all directions
MAX_DEVIATION = 6.0  # working pixels from where the motion says


def follow_templates(
    pictures: Sequence[np.ndarray], template_K: np.ndarray, expected_TK2: np.ndarray, stride: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Where the patch around ``expected_TK2[template_K[k], k]`` is in every picture.

    pictures: uint8 [h,w] each. template_K: int, the frame that shows the patch. expected_TK2: working pixels, integer
    centres. stride: only every so many pictures are looked at. Returns f32 [T,K,2] and bool [T,K].
    """
    frames, count = expected_TK2.shape[:2]
    found = np.full((frames, count, 2), np.nan, np.float32)
    found[template_K, np.arange(count)] = expected_TK2[template_K, np.arange(count)]
    for origin in np.unique(template_K):
        which = np.flatnonzero(template_K == origin)
        start = expected_TK2[origin, which].astype(np.float32)
        for frame in range(0, frames, stride):
            if frame == origin:
                continue
            guess = expected_TK2[frame, which].astype(np.float32)
            moved, error = both_ways(pictures[origin], pictures[frame], start, guess, levels=1)
            deviation = np.linalg.norm(moved - guess, axis=1)
            kept = (error < MAX_RETURN_ERROR) & (deviation < MAX_DEVIATION)
            found[frame, which[kept]] = moved[kept]
    height, width = pictures[0].shape
    x, y = found[..., 0], found[..., 1]
    return found, (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)


def faint_corners(around_K2: np.ndarray, picture: np.ndarray, spacing: float) -> np.ndarray:
    """f64 [n,2]: corners of any strength within the outline of some points (working pixels), strongest first."""
    inside = np.zeros(picture.shape, np.uint8)
    hull = cv2.convexHull(np.clip(np.rint(around_K2), -1e4, 1e4).astype(np.int32))
    cv2.fillConvexPoly(inside, hull, 255)
    inside = cv2.dilate(inside, np.ones((7, 7), np.uint8))
    found = cv2.goodFeaturesToTrack(picture, 400, 0.002, spacing, mask=inside, blockSize=5)
    return np.zeros((0, 2)) if found is None else found.reshape(-1, 2).astype(np.float64)


def sharpness(picture: np.ndarray, point_2: np.ndarray) -> np.ndarray:
    """f64 [2,2], symmetric: how sharply the patch around a point (working pixels) is located, by direction.

    Lucas-Kanade's error goes with the inverse of the gradients' covariance. Eigenvalues: 1 across an edge; along it the
    root of the ratio of both gradients, 1 from ``CORNER`` on.
    """
    x, y = np.rint(point_2).astype(int)
    half = WINDOW[0] // 2 + 1
    patch = picture[max(0, y - half) : y + half + 1, max(0, x - half) : x + half + 1].astype(np.float64)
    if min(patch.shape) < 3:
        return np.eye(2)
    down, right = np.gradient(patch)
    covariance = np.array([[(right**2).sum(), (right * down).sum()], [(right * down).sum(), (down**2).sum()]])
    values, axes = np.linalg.eigh(covariance)
    along = np.sqrt(min(1.0, values[0] / (CORNER * values[1] + 1e-9)))
    return axes @ np.diag([along, 1.0]) @ axes.T
