"""The camera's path where depth is known: each key frame placed against points measured before, then all adjusted."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from data.geometry import invert_rigid, transform
from extract.camera.bundle import Noise, Scene, adjust, disagreement, place_cameras, reprojection, triangulate
from extract.camera.observations import Observations

STRAY = 4.0  # sigmas of a pixel beyond which a point disagrees with the background
MOVER = 0.5  # a point that disagrees in this share of its frames moves by itself
WIDE_DEG = 1.5  # rays must differ by this much for a point without measured depth


class Unsolved(Exception):
    """The path cannot be told; the message says why, in words for a user."""


@dataclass(frozen=True)
class Limits:
    """stray_px: pixels beyond which a point disagrees. min_points: fewest points of a frame. min_inliers: share."""

    stray_px: float
    min_points: int
    min_inliers: float


def solve_metric(seen: Observations, keyframes: np.ndarray, k: np.ndarray, noise: Noise, limits: Limits) -> Scene:
    """Poses of all frames and points, metres, world = camera of the first frame. Raises Unsolved."""
    keys = seen.in_frames(keyframes)
    scene = _chain(keys, k, noise, limits)
    scene = refine(scene, keys, k, noise, limits)
    return place_all(scene, keyframes, seen, k, noise)


def refine(scene: Scene, keys: Observations, k: np.ndarray, noise: Noise, limits: Limits) -> Scene:
    """Adjusts, drops what moves by itself, adds points that only rays tell, adjusts again."""
    scene = without_movers(adjust(scene, keys, k, noise), keys, k, limits)
    more = triangulate(scene.camera_from_world_F44, keys, k, WIDE_DEG)
    tried = Scene(scene.camera_from_world_F44, np.where(np.isnan(scene.points_P3), more, scene.points_P3))
    scene = adjust(without_movers(tried, keys, k, limits), keys, k, noise)
    return without_movers(scene, keys, k, limits)


def without_movers(scene: Scene, keys: Observations, k: np.ndarray, limits: Limits, instead: float = np.inf) -> Scene:
    """Gives up points that disagree with the rest too often; infinity marks them, NaN would let them be found anew."""
    known = np.isfinite(scene.points_P3[keys.point_O]).all(1)
    stray = known & ~(reprojection(scene, keys, k) <= limits.stray_px)
    often = np.bincount(keys.point_O, stray, keys.points) > MOVER * np.bincount(keys.point_O, minlength=keys.points)
    return Scene(scene.camera_from_world_F44, np.where(often[:, None], instead, scene.points_P3))


def place_all(scene: Scene, keyframes: np.ndarray, seen: Observations, k: np.ndarray, noise: Noise) -> Scene:
    """Every frame's pose from the points of the key frames, starting between the two nearest key frames."""
    started = Scene(_between(scene.camera_from_world_F44, keyframes, seen.frames), scene.points_P3)
    placed = place_cameras(started, seen, k, noise)
    origin = placed.world_from_camera_F44[0]
    known = np.isfinite(placed.points_P3).all(1, keepdims=True)
    points = np.where(known, transform(invert_rigid(origin), np.where(known, placed.points_P3, 0)), placed.points_P3)
    return Scene(placed.camera_from_world_F44 @ origin, points)


def _between(poses_K44: np.ndarray, keyframes: np.ndarray, frames: int) -> np.ndarray:
    """Poses of all frames [F,4,4], turned and shifted evenly from key frame to key frame."""
    every = np.arange(frames)
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, :3, :3] = Slerp(keyframes, Rotation.from_matrix(poses_K44[:, :3, :3]))(every).as_matrix()
    for axis in range(3):
        poses[:, axis, 3] = np.interp(every, keyframes, poses_K44[:, axis, 3])
    return poses


def _chain(keys: Observations, k: np.ndarray, noise: Noise, limits: Limits) -> Scene:
    poses = np.tile(np.eye(4), (keys.frames, 1, 1))
    points = np.full((keys.points, 3), np.nan)
    for frame in range(keys.frames):
        part = keys.of(frame)
        which, pixels, depth = keys.point_O[part], keys.pixels_O2[part], keys.depth_O[part]
        if frame:
            known = np.isfinite(points[which]).all(1)
            by_sample = place_one(points[which[known]], pixels[known], k, poses[frame - 1], limits)
            poses[frame] = better([poses[frame - 1], by_sample], points, keys.in_frames(np.array([frame])), k, noise)
        new = np.isnan(points[which, 0]) & (depth > 0)
        camera = np.column_stack([(pixels - k[:2, 2]) / [k[0, 0], k[1, 1]] * depth[:, None], depth])
        points[which[new]] = transform(invert_rigid(poses[frame]), camera[new])
    return Scene(poses, points)


def better(
    starts: list[np.ndarray], points_P3: np.ndarray, seen: Observations, k: np.ndarray, noise: Noise
) -> np.ndarray:
    """The pose of one frame that agrees best with pixels and depth, sought from several starts.

    On a distant wall a turn looks much like a shift: a random sample alone may take one for the other.
    """
    placed = [place_cameras(Scene(start[None], points_P3), seen, k, noise) for start in starts]
    return min(placed, key=lambda scene: disagreement(scene, seen, k, noise)).camera_from_world_F44[0]


def place_one(
    points_N3: np.ndarray, pixels_N2: np.ndarray, k: np.ndarray, guess_44: np.ndarray, limits: Limits
) -> np.ndarray:
    """camera_from_world [4,4] from known points (RANSAC over SQPnP, then refined on what agrees). Raises Unsolved."""
    least = limits.min_points // 2
    if len(points_N3) < least:
        raise Unsolved(f"too few background points: {len(points_N3)} are known from before, {least} needed")
    opencv = np.ascontiguousarray(k, np.float64)
    turn, shift = cv2.Rodrigues(guess_44[:3, :3])[0], guess_44[:3, 3:].copy()
    found, turn, shift, inliers = cv2.solvePnPRansac(
        np.ascontiguousarray(points_N3),
        np.ascontiguousarray(pixels_N2),
        opencv,
        None,
        turn,
        shift,
        useExtrinsicGuess=False,
        iterationsCount=200,
        reprojectionError=limits.stray_px,
        confidence=0.999,
        flags=cv2.SOLVEPNP_SQPNP,
    )
    share = 0 if inliers is None else len(inliers) / len(points_N3)
    if not found or inliers is None or share < limits.min_inliers or len(inliers) < least:
        raise Unsolved(
            f"only {share:.0%} of the background agrees with one camera motion; {limits.min_inliers:.0%} needed"
        )
    agree = np.asarray(inliers, int).ravel()
    turn, shift = cv2.solvePnPRefineLM(points_N3[agree], pixels_N2[agree], opencv, None, turn, shift)
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = cv2.Rodrigues(turn)[0], shift.ravel()
    return pose
