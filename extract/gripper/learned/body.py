"""Points of a gripper's body, from image points that ride on it: fixed to the palm, or moving with the opening.

A point of the gripper is at a + b opening in the effector's frame. Where the camera, the effector's poses and the
opening are known, an image point that is followed through many frames tells a and b by least squares:

    min  sum_t |u_t - project(pose_t (a + b opening_t))|^2 / s^2 + |a|^2 / reach^2 + |b|^2 / slide^2
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from extract.gripper.learned.labels import Labelled
from extract.robot.background import background, foreground_share, stands_out
from extract.robot.tracks import TrackSettings, picture_tracks

NOISE_PX = 1.0
SLIDE = 0.5  # metres per metre of opening: what the jaws of a parallel gripper move each
MOVES_PX = 12.0  # tracks that travel less tell nothing
LEAST_FRAMES = 8
OPENS_M = 0.006  # standard deviation of the opening within a track: less does not tell jaws from palm
FITS_PX = 1.2  # root mean square
KNOWN_M = 0.012  # one sigma of a point in its worst direction, at any opening
IN_FRONT = 0.6
STILL, JAW = 0.12, 0.25  # points that move less or more per opening are on the palm or on a jaw; between is neither
AXIS = 0.8  # cosine to the way that most jaw points move
ROUNDS = 4
MOST = 400
LEAST = 12


@dataclass(frozen=True)
class Body:
    """points_M3: f64 metres, effector frame, at opening 0. slides_M3: f64, what they move per metre of opening."""

    points_M3: np.ndarray
    slides_M3: np.ndarray

    def at(self, opening: float) -> np.ndarray:
        """f64 [M,3] metres, effector frame."""
        return self.points_M3 + opening * self.slides_M3


def body_of(episodes: Sequence[Labelled], reach_m: float, tracks: TrackSettings) -> Body:
    """The points that ride on the gripper, at most ``MOST``, far from each other; none where too few were found.

    reach_m: points further from the effector's origin belong to something else.
    """
    found = [np.zeros((0, 7)), *(_riders(episode, reach_m, tracks) for episode in episodes)]
    return _in_parts(np.concatenate(found))


def _riders(episode: Labelled, reach_m: float, tracks: TrackSettings) -> np.ndarray:
    """f64 [K,7]: for every track that rides, where it is at its mean opening, its slide, and that opening."""
    if len(episode.images) < LEAST_FRAMES:
        return np.zeros((0, 7))
    found = picture_tracks(episode.images, tracks)
    empty = background(episode.images)
    foreground = np.stack([stands_out(image, empty) for image in episode.images])
    front = foreground_share(foreground, found.pixels_TK2, found.seen_TK)
    worth = (found.travel_K > MOVES_PX) & (found.seen_TK.sum(0) >= LEAST_FRAMES) & (front > IN_FRONT)
    rows = [np.zeros((0, 7))]
    for k in np.flatnonzero(worth):
        seen = found.seen_TK[:, k]
        opening = episode.opening_T[seen]
        if opening.std() < OPENS_M:
            continue
        rays = episode.camera.unproject(found.pixels_TK2[seen, k].astype(np.float64), np.ones(int(seen.sum())))
        focal = episode.camera.focal_px
        point, slide, residual, sigma = _placed(rays[:, :2], episode.poses_T44[seen], opening, focal, reach_m)
        middle = point + slide * opening.mean()
        if residual < FITS_PX and sigma < KNOWN_M and np.linalg.norm(middle) < reach_m:
            rows.append(np.concatenate([middle, slide, [opening.mean()]])[None])
    return np.concatenate(rows)


def _placed(
    rays_T2: np.ndarray, poses_T44: np.ndarray, opening_T: np.ndarray, focal_px: float, reach_m: float
) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Point, slide, root mean square residual (pixels) and sigma (metres) of one track."""
    turn, shift = poses_T44[:, :3, :3], poses_T44[:, :3, 3]
    rows = rays_T2[..., None] * turn[:, 2:3] - turn[:, :2]  # [T,2,3]: (x r3 - r1) . p = t1 - x t3
    rows = np.concatenate([rows, rows * opening_T[:, None, None]], -1)
    right = shift[:, :2] - rays_T2 * shift[:, 2:]
    depth, prior = shift[:, 2], np.repeat([reach_m**-2, SLIDE**-2], 3)
    solution, covariance = np.zeros(6), np.eye(6)
    for _ in range(ROUNDS):
        weight = focal_px / NOISE_PX / np.maximum(depth, 1e-2)
        scaled = (rows * weight[:, None, None]).reshape(-1, 6)
        covariance = np.linalg.inv(np.einsum("ms,mt->st", scaled, scaled) + np.diag(prior))
        solution = covariance @ (scaled.T @ (right * weight[:, None]).ravel())
        local = solution[:3] + opening_T[:, None] * solution[3:]
        depth = np.einsum("tj,tj->t", turn[:, 2], local) + shift[:, 2]
    wrong = (np.einsum("tks,s->tk", rows, solution) - right) * focal_px / np.maximum(depth, 1e-2)[:, None]
    at = np.concatenate([np.eye(3), opening_T.mean() * np.eye(3)], 1)
    sigma = float(np.sqrt(np.linalg.eigvalsh(at @ covariance @ at.T)[-1]))
    return solution[:3], solution[3:], float(np.sqrt((wrong**2).sum(1).mean())), sigma


def _in_parts(riders_K7: np.ndarray) -> Body:
    """Single slides are noisy: points of the palm do not slide, and those of one jaw slide alike."""
    middle, slide, opening = riders_K7[:, :3], riders_K7[:, 3:6], riders_K7[:, 6:]
    length = np.linalg.norm(slide, axis=1)
    part = np.where(length < STILL, 0, np.nan)
    if (length > JAW).any():
        fast = slide[length > JAW]
        axis = np.linalg.eigh(fast.T @ fast)[1][:, -1]
        along = slide @ axis
        part = np.where((length > JAW) & (np.abs(along) > AXIS * length), np.sign(along), part)
    slides = np.zeros_like(slide)
    for side in (-1, 1):
        if (part == side).any():
            slides[part == side] = np.median(slide[part == side], axis=0)
    kept = np.flatnonzero(np.isfinite(part))
    if len(kept) < LEAST:
        return Body(np.zeros((0, 3)), np.zeros((0, 3)))
    kept = kept[far_apart(middle[kept], MOST)]
    return Body((middle - opening * slides)[kept], slides[kept])


def far_apart(points_M3: np.ndarray, count: int) -> np.ndarray:
    """int [count]: indices of points far from each other, from the one nearest to their middle on; repeated where

    there are fewer. The same for the same points."""
    apart = np.full(len(points_M3), np.inf)
    taken = [int(np.argmin(((points_M3 - points_M3.mean(0)) ** 2).sum(1)))]
    while len(taken) < min(count, len(points_M3)):
        apart = np.minimum(apart, ((points_M3 - points_M3[taken[-1]]) ** 2).sum(1))
        taken.append(int(apart.argmax()))
    return np.array(taken)
