"""Taking lens distortion out of frames while they are read, so that everything after it sees a pinhole camera.

The intrinsics stay as given: a straightened pixel looks along the ray that the pinhole model says. What the lens did
not see, or where its polynomial folds back on itself, becomes black, unmeasured and outside every mask.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from data.sidecar import Lens

NOWHERE = -1e4  # a place that is in no image


class Undistortion:
    """Straightens the images, depth and masks of one camera. The maps are made once.

    intrinsics_33: f64, pixels; pixel (row r, column c) has its centre at (c + 0.5, r + 0.5).
    coefficients: OpenCV's, in its order. lens: ``pinhole`` (radial, tangential, thin prism) or ``fisheye``
    (Kannala and Brandt, 2006).
    """

    def __init__(
        self, intrinsics_33: np.ndarray, coefficients: Sequence[float], lens: Lens, image_size: tuple[int, int]
    ):
        self.image_size = image_size
        corner_centred = np.asarray(intrinsics_33, np.float64)
        # OpenCV counts pixels from the centre of the first one, this project from its corner.
        k = corner_centred - np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
        d = np.asarray(coefficients, np.float64)
        make = cv2.fisheye.initUndistortRectifyMap if lens == "fisheye" else cv2.initUndistortRectifyMap
        x, y = make(k, d, np.eye(3), k, image_size, cv2.CV_32FC1)
        folded = _radius(k, image_size) > _first_fold(d, lens)
        x[folded] = y[folded] = NOWHERE
        self._smooth = cv2.convertMaps(x, y, cv2.CV_16SC2)
        self._nearest = cv2.convertMaps(x, y, cv2.CV_16SC2, nninterpolation=True)

    def image(self, image_HW3: np.ndarray) -> np.ndarray:
        """uint8 [H,W,3], bilinear."""
        return cv2.remap(image_HW3, *self._smooth, cv2.INTER_LINEAR)

    def depth(self, depth_HW: np.ndarray) -> np.ndarray:
        """f32 [H,W] along z; each pixel takes the nearest measurement, because a mean of two surfaces is neither."""
        return self._pick(depth_HW)

    def mask(self, mask_HW: np.ndarray) -> np.ndarray:
        """bool [H,W]."""
        return self._pick(mask_HW.astype(np.uint8)).astype(bool)

    def _pick(self, values_HW: np.ndarray) -> np.ndarray:
        return cv2.remap(values_HW, *self._nearest, cv2.INTER_NEAREST)


def _radius(k: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Distance of every straightened pixel's ray from the axis, at depth 1: f64 [H,W]."""
    x = (np.arange(image_size[0]) - k[0, 2]) / k[0, 0]
    y = (np.arange(image_size[1]) - k[1, 2]) / k[1, 1]
    return np.hypot(x[None], y[:, None])


def _first_fold(d: np.ndarray, lens: Lens) -> float:
    """The radius at depth 1 from which on the lens polynomial no longer grows; infinite when it always does.

    Beyond it two rays would share a pixel: the fit of the lens says nothing there.
    """
    if lens == "fisheye":
        theta = np.linspace(0, np.pi / 2, 2000)[:-1]
        bent = theta * (1 + theta**2 * (d[0] + theta**2 * (d[1] + theta**2 * (d[2] + theta**2 * d[3]))))
        radius = np.tan(theta)
    else:
        k1, k2, k3 = d[0], d[1], d[4] if len(d) > 4 else 0.0
        k4, k5, k6 = d[5:8] if len(d) > 7 else (0.0, 0.0, 0.0)
        radius = np.linspace(0, 4, 4000)
        s = radius**2
        below = 1 + s * (k4 + s * (k5 + s * k6))
        bent = radius * (1 + s * (k1 + s * (k2 + s * k3))) / np.where(below > 1e-9, below, np.nan)
    grows = np.diff(bent) > 0  # false for not-a-number too
    return float("inf") if grows.all() else float(radius[int(grows.argmin())])
