"""The scene without its actor: which pixels it is without, and its pictures that are stored with a clip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data.clips import encode_depth_mm, encode_image
from extract.actor import actor_pixels
from extract.effector import Camera, EffectorTrack
from extract.scene import SceneMemory
from extract.small import Small


def actor_of(
    seen: Small, metric: bool, points_N3: np.ndarray, grasp_3: np.ndarray | None, camera: Camera, memory: SceneMemory
) -> np.ndarray:
    """bool [H,W]: the pixels that the scene is without, in one frame: as told, or else found, with the effector's.

    metric: the effector's points are; those of unknown or assumed scale cannot be held against measured depth. Points,
    grasp point (None or NaN = unknown) and camera: as of ``actor_pixels``.
    """
    if seen.actor is not None:
        return seen.actor
    found = actor_pixels(seen.depth if metric else None, camera, points_N3, grasp_3, memory.depth)
    return found if seen.effector is None else found | seen.effector


def scene_pictures(
    frames: Sequence[Small], track: EffectorTrack, grasp_T3: np.ndarray | None, camera: Camera, still: bool
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
        grasp_3 = None if grasp_T3 is None else grasp_T3[row]
        actor_HW = actor_of(frame, track.scale == "metric", track.points[row], grasp_3, camera, memory)
        image, depth = memory.see(frame.image, frame.depth, actor_HW)
        scenes.append(encode_image(image))
        if depth is not None:
            depths.append(encode_depth_mm(depth))
    return scenes, depths if len(depths) == len(scenes) else []
