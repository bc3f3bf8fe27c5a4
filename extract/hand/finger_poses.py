"""The poses that a thumb and an index finger can take, on a grid of their joints' angles, in the axes of the palm.

Axes: lateral (to the thumb's side), distal (to the fingers), palmar (out of the palm's front); see surface.hand_axes.
Ranges are those of healthy hands (Buchholz et al. 1992); steps move a tip by 10 to 20 mm, the fit does the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from extract.hand.skeleton import BONE_LENGTHS, BONES, RADII

BALLS = 9  # along a finger, from a quarter of its first bone to its tip
THUMB_BENDS_ABOUT = np.array([-0.4, -0.25, 0.8])  # towards the little finger's root, across the palm


@dataclass(frozen=True)
class FingerPoses:
    """C poses of one finger of an adult's hand. joints: the three beyond the root. joints_C33, balls_CB3: f64 metres
    from the root, axes of the palm; radii_B: f64 metres. area_m2: what a finger shows at most."""

    joints: tuple[int, int, int]
    joints_C33: np.ndarray
    balls_CB3: np.ndarray
    radii_B: np.ndarray
    area_m2: float

    @property
    def root(self) -> int:
        """The joint that the finger begins with."""
        return self.joints[0] - 1


def _poses(joints: tuple[int, int, int], directions_3C3: np.ndarray) -> FingerPoses:
    bones = BONES.tolist()
    lengths = BONE_LENGTHS[[bones.index([joint - 1, joint]) for joint in joints]]
    places = np.cumsum(lengths[:, None, None] * directions_3C3, axis=0).transpose(1, 0, 2)
    balls = along_bones(np.concatenate([np.zeros((len(places), 1, 3)), places], 1))
    radii = along_bones(RADII[[joints[0] - 1, *joints]][None, :, None])[0, :, 0]
    area = 2 * float(RADII[list(joints)].mean() * np.linalg.norm(places[0, -1]))
    return FingerPoses(joints, places, balls, radii, area)


def along_bones(chain_C4D: np.ndarray) -> np.ndarray:
    """Values f64 [C,BALLS,D] along a finger from those at its root and its three joints."""
    along = np.linspace(0.25, 1, BALLS) * 3
    bone = np.minimum(along.astype(int), 2)
    part = (along - bone)[:, None]
    return chain_C4D[:, bone] * (1 - part) + chain_C4D[:, bone + 1] * part


def _grid(*axes: np.ndarray) -> list[np.ndarray]:
    """All combinations of these angles in degrees, as radians."""
    return [np.deg2rad(values.ravel()) for values in np.meshgrid(*axes, indexing="ij")]


def _turned(direction_C3: np.ndarray, about_C3: np.ndarray, angle_C: np.ndarray) -> np.ndarray:
    """Unit vectors turned about unit vectors across them."""
    return np.cos(angle_C)[:, None] * direction_C3 + np.sin(angle_C)[:, None] * np.cross(about_C3, direction_C3)


def thumb_poses() -> FingerPoses:
    """Spread from the hand and raised out of the palm, bent in both joints."""
    spread, raised, middle, end = _grid(
        np.arange(10, 111, 10), np.arange(-10, 71, 10), np.array([0, 25, 50]), np.array([-12, 15, 45])
    )
    first = np.stack([np.cos(spread) * np.cos(raised), np.sin(spread) * np.cos(raised), np.sin(raised)], 1)
    about = THUMB_BENDS_ABOUT - first * (first @ THUMB_BENDS_ABOUT)[:, None]
    about /= np.linalg.norm(about, axis=1, keepdims=True)
    return _poses((2, 3, 4), np.stack([first, _turned(first, about, middle), _turned(first, about, middle + end)]))


def index_poses() -> FingerPoses:
    """Spread, bent in its joints, the last of which follows the one before, and turned about itself."""
    spread, turned, first, second = _grid(
        np.arange(-16, 25, 8), np.array([-30, 0, 20]), np.arange(-15, 91, 15), np.arange(0, 97, 16)
    )
    straight = np.stack([np.sin(spread), np.cos(spread), 0 * spread], 1)
    across = np.stack([np.cos(spread), -np.sin(spread), 0 * spread], 1)
    palmar = np.sin(turned)[:, None] * across + np.cos(turned)[:, None] * np.array([0.0, 0.0, 1.0])
    bends = np.stack([first, first + second, first + 1.6 * second])
    return _poses((6, 7, 8), np.cos(bends)[..., None] * straight + np.sin(bends)[..., None] * palmar)


THUMB, INDEX = thumb_poses(), index_poses()
