"""Fitting an image into a square without changing its proportions."""

from __future__ import annotations

import numpy as np
from PIL import Image


def letterbox(image_HW3: np.ndarray, intrinsics_33: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Scales an image so that its longer side is ``size`` and pads it centrally with black.

    image_HW3: uint8 RGB. intrinsics_33: pixels of that image. Returns uint8 [size,size,3] and float32 intrinsics [3,3]
    of the square image.
    """
    height, width = image_HW3.shape[:2]
    left, top, new_width, new_height = _place(width, height, size)
    square = np.zeros((size, size, 3), np.uint8)
    square[top : top + new_height, left : left + new_width] = resize(image_HW3, new_width, new_height)
    square_from_image = np.array([[new_width / width, 0, left], [0, new_height / height, top], [0, 0, 1]])
    return square, (square_from_image @ intrinsics_33).astype(np.float32)


def letterbox_depth(depth_HW: np.ndarray, size: int) -> np.ndarray:
    """Depth laid out as ``letterbox`` lays out its image, by nearest neighbour; zero, unknown, where it is padded."""
    height, width = depth_HW.shape
    left, top, new_width, new_height = _place(width, height, size)
    square = np.zeros((size, size), depth_HW.dtype)
    square[top : top + new_height, left : left + new_width] = nearest(depth_HW, new_width, new_height)
    return square


def nearest(array_HW: np.ndarray, width: int, height: int) -> np.ndarray:
    """[H,W,...] at another size, where each pixel is the one that lies under its centre: nothing is averaged."""
    if array_HW.shape[:2] == (height, width):
        return array_HW
    rows = ((np.arange(height) + 0.5) * array_HW.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * array_HW.shape[1] / width).astype(int)
    return array_HW[rows[:, None], columns]


def _place(width: int, height: int, size: int) -> tuple[int, int, int, int]:
    """Left, top, width and height of a picture within its square."""
    scale = size / max(height, width)
    new_width, new_height = max(1, round(width * scale)), max(1, round(height * scale))
    return (size - new_width) // 2, (size - new_height) // 2, new_width, new_height


def resize(image_HW3: np.ndarray, width: int, height: int) -> np.ndarray:
    """Bilinear resize with antialiasing; the image itself when the size is already right."""
    if image_HW3.shape[:2] == (height, width):
        return image_HW3
    return np.asarray(Image.fromarray(image_HW3).resize((width, height), Image.Resampling.BILINEAR))
