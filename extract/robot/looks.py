"""What an end of the arm looks like, learned from the clip itself: the effector is there in all frames, an elbow that
sticks out in some is not."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

LEVELS = 8  # per colour
BLUR = 0.7  # levels


def colours(image_HW3: np.ndarray, region_HW: np.ndarray) -> np.ndarray:
    """f64 [LEVELS ** 3], of length 1: square roots of the blurred colour histogram of a region of a uint8 picture.

    The dot product of two is 1 for equal colours and 0 for none in common (Bhattacharyya).
    """
    level = (image_HW3[region_HW] // (256 // LEVELS)).astype(int)
    cell = (level[:, 0] * LEVELS + level[:, 1]) * LEVELS + level[:, 2]
    counts = np.bincount(cell, minlength=LEVELS**3).reshape(LEVELS, LEVELS, LEVELS).astype(float)
    blurred = gaussian_filter(counts, BLUR, mode="nearest").ravel()
    return np.sqrt(blurred / blurred.sum())


def likeness(colours_KC: np.ndarray, slots_K: np.ndarray, chosen_M: np.ndarray, weights_M: np.ndarray) -> np.ndarray:
    """f64 [K], 0..1: how much each of K ends looks like those chosen in other frames; 0 where there are none.

    slots_K: their frames. chosen_M: numbers of the chosen ones. weights_M: how clear each of these is.
    """
    other = slots_K[:, None] != slots_K[chosen_M][None]
    # einsum, not a product of matrices: its sums do not depend on the number of threads
    alike = np.einsum("kc,mc->km", colours_KC, colours_KC[chosen_M])
    counts = other * weights_M
    return (alike * counts).sum(1) / np.maximum(counts.sum(1), 1e-9)
