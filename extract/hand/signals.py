"""Signals of trust that need the picture itself: is the hand sharp, is the picture a new one."""

from __future__ import annotations

import cv2
import numpy as np

SIDE = 96  # pixels: hands are compared at one size, whatever the resolution
STRIDE = 7  # every so many pixels are compared with the picture before
NOISE = 5  # grey values by which a pixel may differ between two pictures that are the same one, encoded twice
EXCEPTIONS = 2e-4  # share of the pixels that may differ by more


def sharpness(image_HW3: np.ndarray, box_4: np.ndarray) -> float:
    """Share of the contrast in the hand's box that lies in fine detail: 0 is a smooth blur, noise is near 1.

    The standard deviation of what a small blur takes away, over the standard deviation of the whole, at one size of
    the box.
    """
    height, width = image_HW3.shape[:2]
    x0, y0, x1, y1 = np.rint(box_4).astype(int)
    part = image_HW3[max(y0, 0) : min(y1, height), max(x0, 0) : min(x1, width)]
    if min(part.shape[:2]) < 8:
        return 0.0
    scale = SIDE / max(part.shape)
    small = cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    small = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    fine = small - cv2.GaussianBlur(small, (0, 0), 1.5)
    return float(fine.std() / max(float(small.std()), 1.0))


class Repeats:
    """Tells pictures that are the one before once more, as converters insert them to reach a rate."""

    def __init__(self) -> None:
        self._before: np.ndarray | None = None

    def __call__(self, image_HW3: np.ndarray) -> bool:
        sample = image_HW3[::STRIDE, ::STRIDE, 1].astype(np.int16)
        before, self._before = self._before, sample
        if before is None or before.shape != sample.shape:
            return False
        return bool((np.abs(sample - before) > NOISE).mean() <= EXCEPTIONS)
