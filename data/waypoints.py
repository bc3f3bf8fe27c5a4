"""Where an effector is to go, without saying when: the corners of its path, and where its grasp changes.

A path is simplified by Ramer, Douglas and Peucker: the fewest vertices, found from the ends inwards, such that no point
of the path is further than a tolerance from the line through them. The openings that are left aside by a straight line
over the frames tell where a grasp or a release begins and ends.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from data.geometry import invert_rigid, transform

OPENING_M = 0.01  # a change of opening that is worth a waypoint
AHEAD = 2  # how many of the next waypoints a window knows; the clip's end comes on top
WAYPOINTS = AHEAD + 1


def grasp_path(points_TN3: np.ndarray, grasp_T3: np.ndarray | None) -> np.ndarray:
    """f32 [T,3]: the grasp point in every frame; where it is not known, the centroid of all points."""
    if grasp_T3 is not None and not (unknown := np.isnan(grasp_T3[:, 0])).any():
        return grasp_T3
    frames, count, _ = points_TN3.shape
    mean = np.tile(np.eye(3, dtype=np.float32) / count, (count, 1))  # as one product: numpy's mean takes its time
    centroid = points_TN3.reshape(frames, 3 * count) @ mean
    return centroid if grasp_T3 is None else np.where(unknown[:, None], centroid, grasp_T3)


def waypoints(path_T3: np.ndarray, opening_T: np.ndarray, within_m: float) -> list[int]:
    """Frames of a clip that are waypoints, increasing, the first and the last among them.

    path_T3: grasp points of all frames in one rigid frame, metres. opening_T: metres, NaN = unknown. within_m:
    tolerance of the simplification.
    """
    return sorted({*simplified(path_T3, within_m, _off_the_segment), *changes(opening_T, OPENING_M)})


def waypoints_ahead(
    path_T3: np.ndarray, opening_T: np.ndarray, world_from_camera: np.ndarray, within_m: float
) -> tuple[np.ndarray, np.ndarray]:
    """For every frame of a clip the next waypoint after it, the one after that, and the end of the clip.

    path_T3: grasp points, metres, each in the camera frame of its own frame. opening_T: metres, NaN = unknown.
    world_from_camera: [T,4,4]; as distances are the same in any rigid frame, the path is simplified once in this one.
    Returns f32 [T,3,4], x, y, z in metres in the camera frame of the frame that looks ahead, and the opening in metres
    (NaN = unknown); and bool [T,3], which of them exist: those that do not repeat the end.
    """
    still = bool((world_from_camera == world_from_camera[0]).all())
    if not still:
        path_T3 = transform(world_from_camera, path_T3[:, None])[:, 0]
    frames_K = np.array(waypoints(path_T3, opening_T, within_m))
    last = len(frames_K) - 1
    next_T = np.searchsorted(frames_K, np.arange(len(path_T3)), side="right")
    order_TW = np.stack([*(next_T + step for step in range(AHEAD)), np.full_like(next_T, last)], 1)
    valid_TW = order_TW <= last
    frames_TW = frames_K[np.minimum(order_TW, last)]
    ahead_TW4 = np.empty((*frames_TW.shape, 4), np.float32)
    ahead_TW4[..., 3] = opening_T[frames_TW]
    ahead_TW4[..., :3] = path_T3[frames_TW]
    if not still:
        ahead_TW4[..., :3] = transform(invert_rigid(world_from_camera), ahead_TW4[..., :3])
    return ahead_TW4, valid_TW


def changes(opening_T: np.ndarray, least_m: float) -> set[int]:
    """Frames in which the opening starts or ends a change of more than ``least_m`` metres."""
    known = np.flatnonzero(~np.isnan(opening_T))
    if len(known) < 2 or np.ptp(opening_T[known]) <= least_m:
        return set()
    frames = known[simplified(opening_T[known, None], least_m / 2, _off_the_line)].tolist()
    values = opening_T[frames].tolist()
    return {
        frame
        for before, after in pairwise(range(len(frames)))
        if abs(values[after] - values[before]) > least_m
        for frame in (frames[before], frames[after])
    }


def simplified(path_TD: np.ndarray, within: float, off: Callable[[np.ndarray], np.ndarray]) -> list[int]:
    """Vertices of a path by Ramer, Douglas and Peucker, increasing, both ends included.

    off: distance [L] of each point of a piece [L,D] from what joins its ends; none that is left out is further than
    ``within`` from it.
    """
    kept = {0, len(path_TD) - 1}
    pieces = [(0, len(path_TD) - 1)]
    while pieces:
        start, end = pieces.pop()
        if end - start < 2:
            continue
        distance = off(path_TD[start : end + 1])
        furthest = int(distance.argmax())
        if distance[furthest] > within:
            middle = start + furthest
            kept.add(middle)
            pieces += [(start, middle), (middle, end)]
    return sorted(kept)


def _off_the_segment(piece_LD: np.ndarray) -> np.ndarray:
    """[L]: distance of each point from the straight segment between the ends."""
    offset = piece_LD - piece_LD[0]
    chord = offset[-1]
    along = np.clip(offset @ chord / max(float(chord @ chord), 1e-12), 0, 1)
    beside = offset - along[:, None] * chord
    return np.sqrt(np.einsum("ld,ld->l", beside, beside))


def _off_the_line(piece_LD: np.ndarray) -> np.ndarray:
    """[L]: distance of each point from where it would be, had it moved evenly from the first to the last."""
    share = np.linspace(0, 1, len(piece_LD))[:, None]
    return np.abs(piece_LD - piece_LD[0] - share * (piece_LD[-1] - piece_LD[0])).sum(1)
