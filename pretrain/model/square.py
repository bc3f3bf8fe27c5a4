"""Any image -> the square that the predictor sees, byte for byte as the training loader makes it."""

from __future__ import annotations

import numpy as np


def letterbox(image_u8_HW3: np.ndarray, intrinsics_33: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Scales an image so that its longer side is ``size`` and pads it centrally with black; intrinsics follow.

    The same bytes as the training loader, which resizes with Pillow. Returns u8 [size,size,3] and f32 [3,3].
    """
    height, width = image_u8_HW3.shape[:2]
    left, top, new_width, new_height = _place(width, height, size)
    resized = _resample_axis(_resample_axis(image_u8_HW3, 1, new_width), 0, new_height)
    square = np.zeros((size, size, 3), np.uint8)
    square[top : top + new_height, left : left + new_width] = resized
    square_from_image = np.array([[new_width / width, 0, left], [0, new_height / height, top], [0, 0, 1]])
    return square, (square_from_image @ intrinsics_33).astype(np.float32)


def letterbox_depth(depth_HW: np.ndarray, size: int) -> np.ndarray:
    """Depth laid out as ``letterbox`` lays out its image, by nearest neighbour; zero, unknown, where it is padded."""
    height, width = depth_HW.shape
    left, top, new_width, new_height = _place(width, height, size)
    rows = ((np.arange(new_height) + 0.5) * height / new_height).astype(int)
    columns = ((np.arange(new_width) + 0.5) * width / new_width).astype(int)
    square = np.zeros((size, size), depth_HW.dtype)
    square[top : top + new_height, left : left + new_width] = depth_HW[rows[:, None], columns]
    return square


def _place(width: int, height: int, size: int) -> tuple[int, int, int, int]:
    """Left, top, width and height of a picture within its square."""
    scale = size / max(height, width)
    new_width, new_height = max(1, round(width * scale)), max(1, round(height * scale))
    return (size - new_width) // 2, (size - new_height) // 2, new_width, new_height


def _resample_axis(image_u8: np.ndarray, axis: int, size: int) -> np.ndarray:
    """Pillow's antialiased bilinear resize along one axis, in its fixed-point arithmetic (weights of 22 bits)."""
    length = image_u8.shape[axis]
    if length == size:
        return image_u8
    support = max(length / size, 1.0)
    weights = np.zeros((size, length))
    for out in range(size):
        centre = (out + 0.5) * length / size
        first, last = max(int(centre - support + 0.5), 0), min(int(centre + support + 0.5), length)
        kernel = np.maximum(1 - np.abs((np.arange(first, last) - centre + 0.5) / support), 0)
        weights[out, first:last] = np.floor(kernel / kernel.sum() * (1 << 22) + 0.5)
    sums = np.tensordot(weights, image_u8.astype(np.float64), (1, axis))  # integers below 2^53: exact
    values = np.clip(np.floor((sums + (1 << 21)) / (1 << 22)), 0, 255).astype(np.uint8)
    return np.moveaxis(values, 0, axis)
