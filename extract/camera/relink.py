"""Finding the background again after a jump, by appearance: for slow frame rates, quick pans, dropped frames."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

RATIO = 0.75  # a match is believed when the second best is this much worse (Lowe, 2004)
EPIPOLAR_PX = 2.0
MIN_MATCHES = 15


class Relinker:
    """Matches SIFT features (Lowe, 2004) of two small grey pictures. The detector is made on first use."""

    def __init__(self) -> None:
        self._sift: Any = None

    def matches(
        self, first: np.ndarray, second: np.ndarray, hidden_first: np.ndarray, hidden_second: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Places of the same things in both pictures: f32 [n,2] and [n,2], the most alike first; none when in doubt.

        hidden: bool [h,w], where nothing is background. Matches have passed an epipolar check (RANSAC).
        """
        if self._sift is None:
            self._sift = cv2.SIFT_create(nfeatures=600)  # pyright: ignore[reportAttributeAccessIssue]
        nothing = np.zeros((0, 2), np.float32)
        keys_a, what_a = self._sift.detectAndCompute(first, np.where(hidden_first, 0, 255).astype(np.uint8))
        keys_b, what_b = self._sift.detectAndCompute(second, np.where(hidden_second, 0, 255).astype(np.uint8))
        if what_a is None or what_b is None or len(what_b) < 2:
            return nothing, nothing
        pairs = cv2.BFMatcher(cv2.NORM_L2).knnMatch(what_a, what_b, k=2)
        good = sorted((a for a, b in pairs if a.distance < RATIO * b.distance), key=lambda match: match.distance)
        one_each = {match.trainIdx: match for match in reversed(good)}.values()
        good = [match for match in good if match in one_each]
        if len(good) < MIN_MATCHES:
            return nothing, nothing
        start = np.array([keys_a[match.queryIdx].pt for match in good], np.float32)
        end = np.array([keys_b[match.trainIdx].pt for match in good], np.float32)
        _, agree = cv2.findFundamentalMat(start, end, cv2.FM_RANSAC, EPIPOLAR_PX, 0.999)
        if agree is None or (kept := agree.ravel() == 1).sum() < MIN_MATCHES:
            return nothing, nothing
        return start[kept], end[kept]
