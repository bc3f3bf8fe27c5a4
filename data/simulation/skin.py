"""Soft skin over a hand made of capsules, in the picture only: geometry, depth and mask stay exact.

Rendered capsules meet in seams and rings that no hand has, and a detector trained on photographs stumbles over them.
Colours are smoothed along the surface (a bilateral filter guided by depth: what lies at another depth, such as a finger
in front of the palm, stays sharp), and edges are blended over about a pixel, as every lens does.
"""

from __future__ import annotations

import cv2
import numpy as np

REACH_PX = 5.0  # one sigma of the smoothing, for a hand that spans some 150 pixels
RELIEF_M = 0.006  # steps in depth beyond this are edges
LENS_PX = 0.7
BORDER_PX = 24  # the filter's window around the hand


def soften_skin(image_HW3: np.ndarray, depth_HW: np.ndarray, mask_HW: np.ndarray) -> np.ndarray:
    """The picture with soft skin, uint8 [H,W,3].

    image_HW3: uint8 RGB as rendered. depth_HW: metres. mask_HW: bool, the skin.
    """
    softened = image_HW3.copy()
    if mask_HW.any():
        rows, columns = (np.flatnonzero(mask_HW.any(axis)) for axis in (1, 0))
        top, left = max(rows[0] - BORDER_PX, 0), max(columns[0] - BORDER_PX, 0)
        part = np.s_[top : rows[-1] + BORDER_PX, left : columns[-1] + BORDER_PX]
        skin = mask_HW[part]
        guide = np.where(skin, depth_HW[part] / RELIEF_M, 0).astype(np.float32)
        colours = image_HW3[part].astype(np.float32)
        smooth = cv2.ximgproc.jointBilateralFilter(guide, colours, -1, 1.0, REACH_PX)
        softened[part] = np.where(skin[..., None], smooth, colours).astype(np.uint8)
    return cv2.GaussianBlur(softened, (3, 3), LENS_PX)
