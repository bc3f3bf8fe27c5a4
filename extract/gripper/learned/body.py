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
class Rider:
    """A track that rides. middle_3: metres, effector frame, at its mean ``opening``. slide_3 and what is known of it:

    metres per metre of opening, and the inverse of its covariance, without the prior."""

    middle_3: np.ndarray
    opening: float
    slide_3: np.ndarray
    known_33: np.ndarray


@dataclass(frozen=True)
class Body:
    """points_M3: f64 metres, effector frame, at opening 0. slides_M3: f64, what they move per metre of opening."""

    points_M3: np.ndarray
    slides_M3: np.ndarray

    def at(self, opening: float) -> np.ndarray:
        """f64 [M,3] metres, effector frame."""
        return self.points_M3 + opening * self.slides_M3


def riders(episode: Labelled, reach_m: float, tracks: TrackSettings) -> list[Rider]:
    """The image points of an episode that move with the gripper. reach_m: further from the effector's origin, they

    belong to something else."""
    if len(episode.images) < LEAST_FRAMES:
        return []
    found = picture_tracks(episode.images, tracks)
    empty = background(episode.images)
    foreground = np.stack([stands_out(image, empty) for image in episode.images])
    front = foreground_share(foreground, found.pixels_TK2, found.seen_TK)
    worth = (found.travel_K > MOVES_PX) & (found.seen_TK.sum(0) >= LEAST_FRAMES) & (front > IN_FRONT)
    found_riders = []
    for k in np.flatnonzero(worth):
        seen = found.seen_TK[:, k]
        if episode.opening_T[seen].std() >= OPENS_M:
            rays = episode.camera.unproject(found.pixels_TK2[seen, k].astype(np.float64), np.ones(int(seen.sum())))
            poses, opening = episode.poses_T44[seen], episode.opening_T[seen]
            found_riders.append(_rider(rays[:, :2], poses, opening, episode.camera.focal_px, reach_m))
    return [rider for rider in found_riders if rider is not None]


def _rider(
    rays_T2: np.ndarray, poses_T44: np.ndarray, opening_T: np.ndarray, focal_px: float, reach_m: float
) -> Rider | None:
    """One track, or None where it does not move as anything on the gripper does, or too little is known of it."""
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
    middle, sigma = at @ solution, float(np.sqrt(np.linalg.eigvalsh(at @ covariance @ at.T)[-1]))
    if np.sqrt((wrong**2).sum(1).mean()) > FITS_PX or sigma > KNOWN_M or np.linalg.norm(middle) > reach_m:
        return None
    known = np.linalg.inv(covariance[3:, 3:]) - SLIDE**-2 * np.eye(3)
    return Rider(middle, float(opening_T.mean()), solution[3:], known)


def body_of(riders: Sequence[Rider]) -> Body:
    """At most ``MOST`` of the points, far from each other; none where too few were found.

    Single slides are noisy: points of the palm do not slide, and those of one jaw slide alike.
    """
    if len(riders) < LEAST:
        return Body(np.zeros((0, 3)), np.zeros((0, 3)))
    slide = np.stack([rider.slide_3 for rider in riders])
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
            slides[part == side] = _common_slide(
                [rider for rider, its in zip(riders, part, strict=True) if its == side]
            )
    points = np.stack([rider.middle_3 for rider in riders])
    points -= np.array([rider.opening for rider in riders])[:, None] * slides
    kept = np.flatnonzero(np.isfinite(part))
    if len(kept) < LEAST:
        return Body(np.zeros((0, 3)), np.zeros((0, 3)))
    kept = kept[far_apart(points[kept], MOST)]
    return Body(points[kept], slides[kept])


def _common_slide(riders: Sequence[Rider]) -> np.ndarray:
    """f64 [3]: what all together say; each alone was drawn towards 0 by the prior."""
    prior = SLIDE**-2 * np.eye(3)
    known = np.sum([rider.known_33 for rider in riders], axis=0) + prior
    return np.linalg.solve(known, np.sum([(rider.known_33 + prior) @ rider.slide_3 for rider in riders], axis=0))


def far_apart(points_M3: np.ndarray, count: int) -> np.ndarray:
    """int [count]: indices of points far from each other, from the one nearest to their middle on; repeated where

    there are fewer. The same for the same points."""
    apart = np.full(len(points_M3), np.inf)
    taken = [int(np.argmin(((points_M3 - points_M3.mean(0)) ** 2).sum(1)))]
    while len(taken) < min(count, len(points_M3)):
        apart = np.minimum(apart, ((points_M3 - points_M3[taken[-1]]) ** 2).sum(1))
        taken.append(int(apart.argmax()))
    return np.array(taken)
