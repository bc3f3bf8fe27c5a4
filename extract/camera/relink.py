"""Finding the background again after a jump, by appearance: for slow frame rates, quick pans, dropped frames."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

RATIO = 0.75  # a match is believed when the second best is this much worse (Lowe, 2004)
NEIGHBOURS = 5
MIN_MATCHES = 12


class Relinker:
    """Matches SIFT features (Lowe, 2004) of two small grey pictures. The detector is made on first use."""

    def __init__(self) -> None:
        self._sift: Any = None

    def displacement(self, first: np.ndarray, second: np.ndarray, points: np.ndarray) -> np.ndarray | None:
        """By how much each point of the first picture has moved, roughly: f32 [n,2] pixels; None when nothing matches.

        The median over the nearest matches around the point, after a robust epipolar check of all matches.
        """
        if self._sift is None:
            self._sift = cv2.SIFT_create(nfeatures=500)  # pyright: ignore[reportAttributeAccessIssue]
        (keys_a, what_a), (keys_b, what_b) = (self._sift.detectAndCompute(image, None) for image in (first, second))
        if what_a is None or what_b is None or len(what_b) < 2 or len(points) == 0:
            return None
        pairs = cv2.BFMatcher(cv2.NORM_L2).knnMatch(what_a, what_b, k=2)
        good = [best for best, second_best in pairs if best.distance < RATIO * second_best.distance]
        if len(good) < MIN_MATCHES:
            return None
        start = np.array([keys_a[match.queryIdx].pt for match in good], np.float32)
        end = np.array([keys_b[match.trainIdx].pt for match in good], np.float32)
        _, agree = cv2.findFundamentalMat(start, end, cv2.FM_RANSAC, 2.0, 0.999)
        if agree is None or (kept := agree.ravel() == 1).sum() < MIN_MATCHES:
            return None
        start, moved = start[kept], (end - start)[kept]
        apart = np.linalg.norm(points[:, None] - start[None], axis=-1)
        nearest = np.argsort(apart, axis=1, kind="stable")[:, :NEIGHBOURS]
        return np.median(moved[nearest], axis=1).astype(np.float32)
