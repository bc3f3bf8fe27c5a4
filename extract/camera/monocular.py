"""The camera's path without any depth, up to scale: two views, then one key frame after the other (Hartley, Zisserman).

Scale: the median distance of the background in the first frame is 1.
"""

from __future__ import annotations

import cv2
import numpy as np

from extract.camera.bundle import Noise, Scene, adjust, triangulate
from extract.camera.metric import Limits, Unsolved, place_all, place_one, refine, without_movers
from extract.camera.observations import Observations

PARALLAX_SIGMAS = 12.0  # a pair of key frames must differ by this much more than a turn explains
COMMON = 30  # and share this many points
LEAST_DEG = 0.8  # between rays of a point that the next key frame is placed by
TRIES = 12  # pairs of key frames to begin with
EVERY = 4  # key frames between two adjustments


def solve_relative(
    seen: Observations, keyframes: np.ndarray, k: np.ndarray, noise: Noise, limits: Limits, turns_F33: np.ndarray
) -> Scene:
    """Poses of all frames and points, world = camera of the first frame, unit: see above. Raises Unsolved.

    turns_F33: world_from_camera rotations of a camera that only turned, from which parallax is told.
    """
    keys = seen.in_frames(keyframes)
    scene, first, second = _begin(keys, k, turns_F33[keyframes], PARALLAX_SIGMAS * noise.pixel, limits)
    placed = {first, second}
    order = [*range(second + 1, keys.frames), *range(second - 1, first, -1), *range(first - 1, -1, -1)]
    for count, frame in enumerate(order, start=1):
        near = min(placed, key=lambda other: (abs(other - frame), other))
        scene = _with(scene, frame, near, keys, k, limits)
        placed.add(frame)
        if count % EVERY == 0:
            scene = _adjusted(scene, sorted(placed), first, keys, k, noise, limits)
    scene = _adjusted(scene, sorted(placed), first, keys, k, noise, limits)
    scene = place_all(refine(scene, keys, k, noise, limits), keyframes, seen, k, noise)
    at_first = scene.points_P3[seen.point_O[seen.of(0)], 2]
    at_first = at_first[np.isfinite(at_first)]
    if len(at_first) == 0:
        raise Unsolved("no background point of the first frame could be placed")
    unit = float(np.median(at_first))
    poses = scene.camera_from_world_F44.copy()
    poses[:, :3, 3] /= unit
    return Scene(poses, scene.points_P3 / unit)


def _begin(
    keys: Observations, k: np.ndarray, turns: np.ndarray, enough_px: float, limits: Limits
) -> tuple[Scene, int, int]:
    """The first two key frames, placed: the best pair whose points fit one motion. Raises Unsolved."""
    failure = Unsolved("no two frames to begin with")
    for first, second in _pairs(keys, k, turns, enough_px)[:TRIES]:
        try:
            return _two_views(keys, first, second, k, limits), first, second
        except Unsolved as error:
            failure = error
    raise failure


def _pairs(keys: Observations, k: np.ndarray, turns: np.ndarray, enough_px: float) -> list[tuple[int, int]]:
    """Pairs of key frames with much parallax between them and many points in common, the best first."""
    scores: list[tuple[float, int, int]] = []
    most = 0.0
    for first in range(keys.frames):
        for second in range(first + 1, keys.frames):
            a, b = keys.common(first, second)
            if len(a) < COMMON:
                break
            ray = np.column_stack([(keys.pixels_O2[a] - k[:2, 2]) / [k[0, 0], k[1, 1]], np.ones(len(a))])
            turned = ray @ (turns[second].T @ turns[first]).T
            there = turned[:, :2] / turned[:, 2:] * [k[0, 0], k[1, 1]] + k[:2, 2]
            parallax = float(np.median(np.linalg.norm(there - keys.pixels_O2[b], axis=1)))
            most = max(most, parallax)
            if parallax > enough_px:
                scores.append((-min(parallax, 6 * enough_px) * float(np.sqrt(len(a))), first, second))
    if not scores:
        raise Unsolved(
            f"too little parallax to tell the path: {most:.1f} pixels between frames that share enough background, "
            f"{enough_px:.1f} needed"
        )
    return [(first, second) for _, first, second in sorted(scores)]


def _two_views(keys: Observations, first: int, second: int, k: np.ndarray, limits: Limits) -> Scene:
    a, b = keys.common(first, second)
    opencv = np.ascontiguousarray(k, np.float64)
    start, end = keys.pixels_O2[a], keys.pixels_O2[b]
    essential, agree = cv2.findEssentialMat(start, end, opencv, cv2.RANSAC, 0.999, limits.stray_px / 2)
    if essential is None or essential.shape != (3, 3):
        raise Unsolved("no epipolar geometry fits the background")
    count, turn, shift, _ = cv2.recoverPose(essential, start, end, opencv, mask=agree)
    if count < max(limits.min_points, limits.min_inliers * len(a)):
        raise Unsolved(f"only {count} of {len(a)} background points fit one camera motion")
    poses = np.tile(np.eye(4), (keys.frames, 1, 1))
    poses[second, :3, :3], poses[second, :3, 3] = turn, shift.ravel()
    both = np.array([first, second])
    points = triangulate(poses[both], keys.in_frames(both), k, LEAST_DEG)
    return Scene(poses, without_movers(Scene(poses[both], points), keys.in_frames(both), k, limits, np.nan).points_P3)


def _with(scene: Scene, frame: int, near: int, keys: Observations, k: np.ndarray, limits: Limits) -> Scene:
    """The scene with one more key frame placed."""
    part = keys.of(frame)
    which = keys.point_O[part]
    known = np.isfinite(scene.points_P3[which]).all(1)
    poses = scene.camera_from_world_F44.copy()
    poses[frame] = place_one(scene.points_P3[which[known]], keys.pixels_O2[part][known], k, poses[near], limits)
    return Scene(poses, _more_points(Scene(poses, scene.points_P3), sorted({frame, near}), keys, k, limits))


def _more_points(scene: Scene, among: list[int], keys: Observations, k: np.ndarray, limits: Limits) -> np.ndarray:
    """Points with those added that the given key frames tell."""
    chosen = np.array(among)
    seen, poses = keys.in_frames(chosen), scene.camera_from_world_F44[chosen]
    more = without_movers(Scene(poses, triangulate(poses, seen, k, LEAST_DEG)), seen, k, limits, np.nan).points_P3
    return np.where(np.isnan(scene.points_P3), more, scene.points_P3)


def _adjusted(
    scene: Scene, placed: list[int], first: int, keys: Observations, k: np.ndarray, noise: Noise, limits: Limits
) -> Scene:
    """The placed key frames adjusted together; ``first`` stays the world."""
    chosen = np.array([first, *(frame for frame in placed if frame != first)])
    order = np.sort(chosen)
    seen = keys.in_frames(order)
    part = Scene(scene.camera_from_world_F44[order], scene.points_P3)
    part = without_movers(adjust(part, seen, k, noise, rounds=8), seen, k, limits, np.nan)
    points = _more_points(part, list(range(len(order))), seen, k, limits)
    poses = scene.camera_from_world_F44.copy()
    poses[order] = part.camera_from_world_F44
    return Scene(poses, points)
