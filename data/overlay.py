"""Drawing a clip's points on its frames."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np

from data.clips import Clip, encode_image

MIN_SIDE = 256  # small frames are enlarged, so that points can be told apart


def overlay(clip: Clip, frame: int, points_N3: np.ndarray | None = None) -> np.ndarray:
    """One frame with the clip's points on it, uint8 RGB [h,w,3].

    Every point keeps its colour in all frames (by its place along the longest axis of the first cloud), so that
    identity can be judged by eye; measured points are filled, carried ones are rings.
    """
    image = clip.image(frame)
    scale = max(1, round(MIN_SIDE / max(image.shape[:2]), 2))
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    points = clip.arrays["points"][frame] if points_N3 is None else points_N3
    visible = clip.arrays["visible"][frame]
    uvw = points @ clip.arrays["intrinsics"].T
    pixels = uvw[:, :2] / np.maximum(uvw[:, 2:], 1e-6) * scale
    for (u, v), seen, colour in zip(pixels, visible, point_colours(clip), strict=True):
        if -1e4 < u < 1e4 and -1e4 < v < 1e4:
            cv2.circle(image, (round(u - 0.5), round(v - 0.5)), 2, colour, -1 if seen else 1, cv2.LINE_AA)
    return image


def filmstrip(clip: Clip, count: int = 6) -> list[bytes]:
    """``count`` frames spread over the clip, with points, as JPEG."""
    frames = np.unique(np.linspace(0, clip.frames - 1, count).round().astype(int))
    return [encode_image(overlay(clip, int(frame))) for frame in frames]


def strip_image(clip: Clip, count: int = 6) -> np.ndarray:
    """The same frames side by side in one picture, uint8 RGB."""
    frames = np.unique(np.linspace(0, clip.frames - 1, count).round().astype(int))
    return np.concatenate([overlay(clip, int(frame)) for frame in frames], axis=1)


def scene_strip(clip: Clip, count: int = 6) -> np.ndarray:
    """The scene without its actor in the same frames, as wide as ``strip_image``, uint8 RGB; below it its depth, near
    bright, unknown black, where the clip has depth."""
    frames = np.unique(np.linspace(0, clip.frames - 1, count).round().astype(int)).tolist()
    height, width = overlay(clip, 0).shape[:2]
    rows = [[clip.scene(frame) for frame in frames]]
    if clip.depths:
        depths = [clip.depth(frame) for frame in frames]
        near = min((float(depth[depth > 0].min()) for depth in depths if depth.any()), default=1.0)
        rows.append([_grey(near / np.maximum(depth, near) * (depth > 0)) for depth in depths])
    enlarged = [
        [cv2.resize(picture, (width, height), interpolation=cv2.INTER_NEAREST) for picture in row] for row in rows
    ]
    return np.concatenate([np.concatenate(row, axis=1) for row in enlarged])


def _grey(brightness_HW: np.ndarray) -> np.ndarray:
    return np.repeat((255 * brightness_HW).astype(np.uint8)[..., None], 3, axis=2)


def point_colours(clip: Clip) -> list[tuple[int, int, int]]:
    """One RGB colour per point, red to violet along the longest axis of the first frame's cloud."""
    cloud = clip.arrays["points"][0] - clip.arrays["points"][0].mean(0)
    along = cloud @ np.linalg.svd(cloud, full_matrices=False)[2][0]
    rank = along.argsort().argsort() / max(len(along) - 1, 1)
    tones = [colorsys.hsv_to_rgb(0.8 * place, 0.9, 1.0) for place in rank]
    return [(int(255 * r), int(255 * g), int(255 * b)) for r, g, b in tones]
