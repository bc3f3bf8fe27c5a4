"""A camera that turns on the spot: the background is a sphere of directions, and rotation is all there is to find."""

from __future__ import annotations

import numpy as np

from extract.camera.observations import Observations

ROUNDS = 3  # over the whole stretch
TURNS = 8  # reweighted fits of one frame
CAUCHY_SIGMAS = 2.0


def solve_turning(seen: Observations, k: np.ndarray, pixel_sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """world_from_camera rotations f64 [F,3,3] and the residual of every observation f64 [O] pixels (NaN: seen once).

    Alternates between each frame's robust rotation (Kabsch, 1976, with Cauchy weights) against the directions of its
    points, and each point's direction as the mean over its frames. Frame 0 is the world. The residual tells whether the
    camera only turned.
    """
    focal = (k[0, 0] + k[1, 1]) / 2
    ray = np.concatenate([(seen.pixels_O2 - k[:2, 2]) / [k[0, 0], k[1, 1]], np.ones((len(seen.frame_O), 1))], axis=1)
    ray /= np.linalg.norm(ray, axis=1, keepdims=True)
    turns = np.tile(np.eye(3), (seen.frames, 1, 1))
    world = np.full((seen.points, 3), np.nan)
    for frame in range(seen.frames):
        part = seen.of(frame)
        which = seen.point_O[part]
        known = np.isfinite(world[which]).all(1)
        if frame:
            turns[frame] = _turn(ray[part][known], world[which[known]], turns[frame - 1], pixel_sigma / focal)
        new = which[~known]
        world[new] = ray[part][~known] @ turns[frame].T
    residual = _residual(seen, ray, turns, world, focal)
    for _ in range(ROUNDS):
        weight = 1 / (1 + (np.nan_to_num(residual) / (CAUCHY_SIGMAS * pixel_sigma)) ** 2)
        turned = np.einsum("oij,oj->oi", turns[seen.frame_O], ray) * weight[:, None]
        world = np.stack([np.bincount(seen.point_O, axis, seen.points) for axis in turned.T], axis=1)
        world /= np.linalg.norm(world, axis=1, keepdims=True)
        for frame in range(1, seen.frames):
            part = seen.of(frame)
            turns[frame] = _turn(ray[part], world[seen.point_O[part]], turns[frame], pixel_sigma / focal)
        residual = _residual(seen, ray, turns, world, focal)
    return turns, residual


def _residual(seen: Observations, ray_O3: np.ndarray, turns: np.ndarray, world: np.ndarray, focal: float) -> np.ndarray:
    """f64 [O] pixels, NaN where a point was seen once and tells nothing."""
    count = np.bincount(seen.point_O, minlength=seen.points)[seen.point_O]
    freedom = np.where(count > 1, count / np.maximum(count - 1, 1), np.nan)  # the mean lies nearer than the truth
    turned = np.einsum("oij,oj->oi", turns[seen.frame_O], ray_O3)
    return np.linalg.norm(turned - world[seen.point_O], axis=1) * focal * np.sqrt(freedom)


def _turn(ray_N3: np.ndarray, world_N3: np.ndarray, guess_33: np.ndarray, sigma: float) -> np.ndarray:
    """The rotation that takes most rays to their directions. sigma: radians."""
    turn = guess_33
    if len(ray_N3) < 3:
        return turn
    wide = 8.0  # starts forgiving, because the guess may be a frame old
    for _ in range(TURNS):
        apart = np.linalg.norm(ray_N3 @ turn.T - world_N3, axis=1)
        width = max(CAUCHY_SIGMAS * sigma, wide * sigma, float(np.median(apart)))
        weight = 1 / (1 + (apart / width) ** 2)
        u, _, vt = np.linalg.svd((world_N3 * weight[:, None]).T @ ray_N3)
        turn = u @ np.diag([1, 1, np.sign(np.linalg.det(u @ vt))]) @ vt
        wide /= 2
    return turn
