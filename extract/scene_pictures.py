"""The pictures of the scene without its actor that are stored with a clip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import cv2
import numpy as np

from data.clips import encode_depth_mm, encode_image
from data.letterbox import nearest
from extract.actor import actor_pixels, widened
from extract.effector import Camera, EffectorTrack
from extract.scene import SceneMemory


class Seen(Protocol):
    """What is kept of one frame, at the size of the stored pictures.

    image: uint8 [H,W,3] RGB. depth: f32 [H,W] metres, 0 = not measured, or None. effector, actor: bool [H,W], their
    pixels as the episode tells them, or None.
    """

    @property
    def image(self) -> np.ndarray: ...

    @property
    def depth(self) -> np.ndarray | None: ...

    @property
    def effector(self) -> np.ndarray | None: ...

    @property
    def actor(self) -> np.ndarray | None: ...


def scene_pictures(
    frames: Sequence[Seen], track: EffectorTrack, grasp_T3: np.ndarray | None, camera: Camera, still: bool
) -> tuple[list[bytes], list[bytes]]:
    """JPEG of the scene in each frame of a track, and PNG of its depth, none where a frame has no depth.

    grasp_T3: grasp points, metres, camera frame. camera: of the stored pictures. still: the camera does not move;
    what it saw earlier is then known to lie behind the actor, otherwise only the neighbours of a pixel tell.
    """
    scenes: list[bytes] = []
    depths: list[bytes] = []
    memory = SceneMemory()
    for row, frame in enumerate(frames):
        if not still:
            memory = SceneMemory()
        actor_HW = frame.actor
        if actor_HW is None:
            # Points of unknown or assumed scale cannot be held against measured depth.
            depth = frame.depth if track.scale == "metric" else None
            grasp_3 = None if grasp_T3 is None else grasp_T3[row]
            actor_HW = actor_pixels(depth, camera, track.points[row], grasp_3, memory.depth)
            if frame.effector is not None:
                actor_HW |= frame.effector
        image, depth = memory.see(frame.image, frame.depth, actor_HW)
        scenes.append(encode_image(image))
        if depth is not None:
            depths.append(encode_depth_mm(depth))
    return scenes, depths if len(depths) == len(scenes) else []


def small_depth(depth_HW: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Depth at another size (width, height), never averaged: between two surfaces there is none."""
    return np.ascontiguousarray(nearest(depth_HW, *size))


def small_pixels(pixels_HW: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """bool [H,W]: pixels at another size (width, height) that are covered in part, or lie beside one."""
    covered = cv2.resize(pixels_HW.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return widened(covered > 0)
