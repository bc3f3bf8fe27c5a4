"""How far points are from the skin of a hand: a tube with round ends around every bone, and around those of the palm.

Nearest part, place along it and direction are what articulated registration needs (Tagliasacchi et al. 2015, "Robust
Articulated-ICP for Real-Time Hand Tracking").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from extract.hand.skeleton import KNUCKLES, WRIST
from extract.hand.surface import TUBES

# Tubes of thumb and fingers, then the bones that fill the palm.
PARTS = np.concatenate([TUBES, [(WRIST, knuckle) for knuckle in (1, *KNUCKLES)]])
PALM_PARTS = np.arange(len(TUBES), len(PARTS))
# The wrist is thick and its joint lies in the forearm: only from here on is a palm's bone hand.
FROM = np.where(np.isin(np.arange(len(PARTS)), PALM_PARTS), 0.15, 0.0)


@dataclass(frozen=True)
class Touch:
    """Of P points in T frames: part int [T,P], fraction f64 [T,P] along it, away f64 [T,P] metres outside the skin
    (negative inside), normal f64 [T,P,3] unit vectors from the bone to the point."""

    part: np.ndarray
    fraction: np.ndarray
    away: np.ndarray
    normal: np.ndarray


def touch(points_TP3: np.ndarray, joints_T213: np.ndarray, radii_21: np.ndarray) -> Touch:
    """The part of the hand whose skin is nearest to each point. Metres, one frame of reference."""
    fraction, away = tube_distances(points_TP3, joints_T213[:, PARTS], radii_21[PARTS], FROM)
    part = away.argmin(-1)
    fraction, away = (np.take_along_axis(values, part[..., None], -1)[..., 0] for values in (fraction, away))
    rows = np.arange(len(points_TP3))[:, None]
    a, b = joints_T213[rows, PARTS[part, 0]], joints_T213[rows, PARTS[part, 1]]
    offset = points_TP3 - a - fraction[..., None] * (b - a)
    normal = offset / np.maximum(np.linalg.norm(offset, axis=-1, keepdims=True), 1e-9)
    return Touch(part, fraction, away, normal)


def tube_distances(
    points_TP3: np.ndarray, ends_TB23: np.ndarray, radii_B2: np.ndarray, from_B: np.ndarray | float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Place along B tapering tubes nearest to each point, and distance from their skin (negative inside), f64 [T,P,B]
    each. from_B: where along them tubes begin. Metres; |p - a - s d|^2 is expanded into products of matrices.
    """
    # Near the origin, expansion loses no digits.
    middle = ends_TB23[:, :1, 0]
    points, a = points_TP3 - middle, ends_TB23[:, :, 0] - middle
    bone = ends_TB23[:, :, 1] - ends_TB23[:, :, 0]
    squared = np.maximum(np.sum(bone**2, -1), 1e-12)[:, None]
    along = points @ bone.transpose(0, 2, 1) - np.sum(a * bone, -1)[:, None]
    fraction = np.clip(along / squared, from_B, 1)
    from_a = np.sum(points**2, -1)[..., None] - 2 * points @ a.transpose(0, 2, 1) + np.sum(a**2, -1)[:, None]
    distance = np.sqrt(np.maximum(from_a - 2 * fraction * along + fraction**2 * squared, 0))
    return fraction, distance - (radii_B2[:, 0] + fraction * (radii_B2[:, 1] - radii_B2[:, 0]))
