"""The camera's path without any depth, up to scale: two views, then one key frame after the other (Hartley, Zisserman).

Scale: the median distance of the background in the first frame is 1.
"""

from __future__ import annotations

import cv2
import numpy as np

from extract.camera.bundle import Noise, Scene, adjust, reprojection, triangulate
from extract.camera.metric import Limits, Unsolved, better, place_all, place_one, refine, without_movers
from extract.camera.observations import Observations

PARALLAX_SIGMAS = 12.0  # a pair of key frames must differ by this much more than a turn explains
COMMON = 30  # and share this many points
LEAST_DEG = 0.8  # between rays of a point that the next key frame is placed by
TRIES = 12  # pairs of key frames to begin with, at most,
STARTS = 3  # until this many have led to a path
ALIKE, SAME = 0.97, 0.05  # paths that explain this much of what the best one does must lie this near to it
EVERY = 4  # key frames between two adjustments


def solve_relative(
    seen: Observations, keyframes: np.ndarray, k: np.ndarray, noise: Noise, limits: Limits, turns_F33: np.ndarray
) -> Scene:
    """Poses of all frames and points, world = camera of the first frame, unit: see above. Raises Unsolved.

    turns_F33: world_from_camera rotations of a camera that only turned, from which parallax is told.
    """
    keys = seen.in_frames(keyframes)
    found: list[tuple[int, Scene]] = []
    failure = Unsolved("no two frames to begin with")
    for pair in _pairs(keys, k, turns_F33[keyframes], PARALLAX_SIGMAS * noise.pixel)[:TRIES]:
        try:
            scene = place_all(_grown(keys, pair, k, noise, limits), keyframes, seen, k, noise)
            scene = _in_units(scene, seen)
        except Unsolved as error:
            failure = error
            continue
        found.append((int((reprojection(scene, seen, k) <= limits.stray_px).sum()), scene))
        if len(found) == STARTS:
            break
    if not found:
        raise failure
    found.sort(key=lambda each: -each[0])
    agree, best = found[0]
    for count, other in found[1:]:
        apart = _apart(best.world_from_camera_F44, other.world_from_camera_F44)
        if count > ALIKE * agree and apart > SAME:
            raise Unsolved(f"several paths explain the background about equally, {apart:.0%} of their length apart")
    return best


def _grown(keys: Observations, pair: tuple[int, int], k: np.ndarray, noise: Noise, limits: Limits) -> Scene:
    """All key frames and their points, beginning with a pair. Raises Unsolved."""
    first, second = pair
    scene = _two_views(keys, first, second, k, limits)
    placed = {first, second}
    order = [*range(second + 1, keys.frames), *range(second - 1, first, -1), *range(first - 1, -1, -1)]
    for count, frame in enumerate(order, start=1):
        near = min(placed, key=lambda other: (abs(other - frame), other))
        scene = _with(scene, frame, near, keys, k, noise, limits)
        placed.add(frame)
        if count % EVERY == 0:
            scene = _adjusted(scene, sorted(placed), first, keys, k, noise, limits)
    scene = _adjusted(scene, sorted(placed), first, keys, k, noise, limits)
    return refine(scene, keys, k, noise, limits)


def _in_units(scene: Scene, seen: Observations) -> Scene:
    """The scene with the median distance of the first frame's background as unit. Raises Unsolved."""
    at_first = scene.points_P3[seen.point_O[seen.of(0)], 2]
    at_first = at_first[np.isfinite(at_first)]
    if len(at_first) == 0:
        raise Unsolved("no background point of the first frame could be placed")
    unit = float(np.median(at_first))
    poses = scene.camera_from_world_F44.copy()
    poses[:, :3, 3] /= unit
    return Scene(poses, scene.points_P3 / unit)


def _apart(one_F44: np.ndarray, other_F44: np.ndarray) -> float:
    """Largest distance between two paths of unknown scale, as a share of the length of the first."""
    one, other = one_F44[:, :3, 3], other_F44[:, :3, 3]
    scale = (one * other).sum() / max((other**2).sum(), 1e-12)
    length = np.linalg.norm(np.diff(one, axis=0), axis=1).sum()
    return float(np.linalg.norm(one - scale * other, axis=1).max() / max(length, 1e-12))


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


def _with(
    scene: Scene, frame: int, near: int, keys: Observations, k: np.ndarray, noise: Noise, limits: Limits
) -> Scene:
    """The scene with one more key frame placed."""
    part = keys.of(frame)
    which = keys.point_O[part]
    known = np.isfinite(scene.points_P3[which]).all(1)
    poses = scene.camera_from_world_F44.copy()
    by_sample = place_one(scene.points_P3[which[known]], keys.pixels_O2[part][known], k, poses[near], limits)
    poses[frame] = better([poses[near], by_sample], scene.points_P3, keys.in_frames(np.array([frame])), k, noise)
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
