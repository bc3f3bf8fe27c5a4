"""Frames at the size at which clips store them: the same in extraction and before a running policy."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from data.episode import Frame
from data.letterbox import nearest
from extract.actor import widened

LARGE_PX = 960  # longer side from which pictures are halved before anything but detection looks at them


@dataclass(frozen=True)
class Small:
    """What is told of one frame, at the size of the stored pictures.

    image: uint8 [H,W,3] RGB. depth: f32 [H,W] metres, 0 = not measured, or None. effector, actor: bool [H,W], their
    pixels as the episode tells them, or None.
    """

    image: np.ndarray
    depth: np.ndarray | None = None
    effector: np.ndarray | None = None
    actor: np.ndarray | None = None


def small_frame(frame: Frame, half_HW3: np.ndarray, size: tuple[int, int], scenes: bool) -> Small:
    """half_HW3: its picture, ``halved``. size: width and height. scenes: all of it is wanted, not the image alone."""
    image = cv2.resize(half_HW3, size, interpolation=cv2.INTER_AREA)
    if not scenes:
        return Small(image)
    return Small(
        image,
        None if frame.depth is None else small_depth(frame.depth, size),
        None if frame.mask is None else small_pixels(frame.mask, size),
        None if frame.actor is None else small_pixels(frame.actor, size),
    )


def half_size(size: tuple[int, int]) -> tuple[int, int]:
    """Half of a large picture's (width, height): enough to follow the background, and quickly made."""
    return (size[0] // 2, size[1] // 2) if max(size) >= LARGE_PX else size


def halved(image_HW3: np.ndarray) -> np.ndarray:
    """A picture at its ``half_size``."""
    height, width = image_HW3.shape[:2]
    size = half_size((width, height))
    return image_HW3 if size == (width, height) else cv2.resize(image_HW3, size, interpolation=cv2.INTER_AREA)


def small_depth(depth_HW: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Depth at another size (width, height), never averaged: between two surfaces there is none."""
    return np.ascontiguousarray(nearest(depth_HW, *size))


def small_pixels(pixels_HW: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """bool [H,W]: pixels at another size (width, height) that are covered in part, or lie beside one."""
    covered = cv2.resize(pixels_HW.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return widened(covered > 0)
