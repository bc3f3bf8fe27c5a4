"""Skin points on the 21 joints: a fixed parametrisation, so that point n is the same spot of skin in every frame.

Fingers are tapering tubes around their bones (place along the bone, angle around it); the palm is two sheets, front and
back, spanned between the wrist and the knuckles. How many points a part gets follows its area.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from extract.hand.skeleton import INDEX_TIP, KNUCKLES, PALM_SIZE, RADII, THUMB_TIP, WRIST

TUBES = np.array([(b + k, b + k + 1) for b in (1, 5, 9, 13, 17) for k in range(3)])
# Metres from the line between wrist and knuckles to the skin, at the knuckles: joints lie nearer to the back.
PALM_FRONT, PALM_BACK = 0.0165, 0.0115
PALM_EDGE = 0.7  # how far the sheets of the palm come together at the edges of the hand
GRAZING = 0.2  # cosine between skin normal and line of sight below which skin is not seen: 11 degrees
WRIST_HALF_WIDTH = 0.022  # metres from the wrist joint to the edge of the palm's sheets
GOLDEN = (np.sqrt(5) - 1) / 2
GOLDEN_2 = np.array([0.7548776662466927, 0.5698402909980532])  # the same in two dimensions (R2 sequence)


@dataclass(frozen=True)
class HandSurface:
    """Where N points sit. Tubes: bone index, fraction along it, angle. Palm: lateral u, distal v, front or back."""

    tube: np.ndarray
    fraction: np.ndarray
    angle: np.ndarray
    palm_u: np.ndarray
    palm_v: np.ndarray
    palm_front: np.ndarray
    scale: float

    def points(self, joints_T213: np.ndarray, side: str) -> tuple[np.ndarray, np.ndarray]:
        """Points and outward unit normals, f64 [T,N,3] each, in the frame of the joints.

        side: tells the front of the palm from its back; with the wrong side the two are exchanged.
        """
        axes = hand_axes(joints_T213, side)
        tubes = self._tube_points(joints_T213, axes)
        palm = self._palm_points(joints_T213, axes)
        return np.concatenate([tubes[0], palm[0]], 1), np.concatenate([tubes[1], palm[1]], 1)

    def _tube_points(self, joints: np.ndarray, axes: HandAxes) -> tuple[np.ndarray, np.ndarray]:
        a, b = TUBES[self.tube].T
        along = joints[:, TUBES[:, 1]] - joints[:, TUBES[:, 0]]
        along /= np.maximum(np.linalg.norm(along, axis=-1, keepdims=True), 1e-9)
        # Angle zero: a direction that a bone never comes close to. Fingers bend about the lateral axis; the thumb moves
        # between lateral, distal and palmar, so it never points along lateral minus distal.
        reference = np.repeat(axes.lateral[:, None], len(TUBES), axis=1)
        reference[:, :3] = (axes.lateral - axes.distal)[:, None]
        first = reference - along * np.sum(reference * along, -1, keepdims=True)
        first /= np.maximum(np.linalg.norm(first, axis=-1, keepdims=True), 1e-9)
        second = np.cross(along, first)
        normal = np.cos(self.angle)[:, None] * first[:, self.tube] + np.sin(self.angle)[:, None] * second[:, self.tube]
        radius = (RADII[a] + self.fraction * (RADII[b] - RADII[a])) * self.scale
        centre = joints[:, a] + self.fraction[:, None] * (joints[:, b] - joints[:, a])
        return centre + radius[:, None] * normal, normal

    def _palm_points(self, joints: np.ndarray, axes: HandAxes) -> tuple[np.ndarray, np.ndarray]:
        place = self.palm_u * (len(KNUCKLES) - 1)
        left = np.minimum(place.astype(int), len(KNUCKLES) - 2)
        knuckles = joints[:, KNUCKLES]
        share = (place - left)[:, None]
        far = knuckles[:, left] * (1 - share) + knuckles[:, left + 1] * share
        # u runs from the index finger to the little finger, against the lateral axis.
        edge = (1 - 2 * self.palm_u)[:, None] * (WRIST_HALF_WIDTH * self.scale)
        near = joints[:, None, WRIST] + edge * axes.lateral[:, None]
        middle = near + self.palm_v[:, None] * (far - near)
        normal = np.where(self.palm_front, 1.0, -1.0)[:, None] * axes.palmar[:, None]
        far_thickness = np.where(self.palm_front, PALM_FRONT, PALM_BACK)
        thickness = RADII[WRIST] + self.palm_v * (far_thickness - RADII[WRIST])
        round_off = np.sqrt(1 - (PALM_EDGE * (1 - 2 * self.palm_u)) ** 2)
        return middle + (thickness * round_off * self.scale)[:, None] * normal, normal


@dataclass(frozen=True)
class HandAxes:
    """Unit vectors [T,3]: towards the thumb's side, towards the fingers, out of the palm's front."""

    lateral: np.ndarray
    distal: np.ndarray
    palmar: np.ndarray

    @property
    def rotations_T33(self) -> np.ndarray:
        """Rows are the axes: takes directions in the frame of the joints to (lateral, distal, palmar)."""
        return np.stack([self.lateral, self.distal, self.palmar], 1)


def make_surface(points: int, assumed_palm_m: float) -> HandSurface:
    """The parametrisation with that many points on a hand of that palm size. Pure: the same numbers every time."""
    lengths = np.array([0.044, 0.035, 0.029, *(0.045, 0.027, 0.022) * 4])
    tube_area = 2 * np.pi * RADII[TUBES].mean(1) * lengths
    palm_area = 2 * 0.06 * 0.085
    wanted = points * np.append(tube_area, palm_area) / (tube_area.sum() + palm_area)
    counts = np.floor(wanted).astype(int)
    counts[np.argsort(-(wanted - counts), kind="stable")[: points - counts.sum()]] += 1
    tube, fraction, angle = [], [], []
    for bone, count in enumerate(counts[:-1]):
        order = np.arange(count)
        tube.append(np.full(count, bone))
        fraction.append((order + 0.5) / max(count, 1))
        angle.append(2 * np.pi * ((order * GOLDEN + 0.13 * bone) % 1))
    order = np.arange(counts[-1])
    palm = (0.5 + (order // 2)[:, None] * GOLDEN_2) % 1
    return HandSurface(
        tube=np.concatenate(tube),
        fraction=np.concatenate(fraction),
        angle=np.concatenate(angle),
        palm_u=palm[:, 0],
        palm_v=0.08 + 0.84 * palm[:, 1],
        palm_front=order % 2 == 0,
        scale=assumed_palm_m / PALM_SIZE,
    )


def facing_camera(points_TN3: np.ndarray, normals_TN3: np.ndarray) -> np.ndarray:
    """bool [T,N]: the skin there looks towards the camera, which is at the origin, and not past it."""
    return -np.sum(points_TN3 * normals_TN3, -1) > GRAZING * np.linalg.norm(points_TN3, axis=-1)


def hidden_by_hand(points_TN3: np.ndarray, joints_T213: np.ndarray, scale: float) -> np.ndarray:
    """bool [T,N]: another part of the same hand lies between the point and the camera. Parts are rows of balls."""
    share = np.array([0.0, 0.33, 0.67])[:, None]
    bones = np.concatenate([TUBES, [(WRIST, k) for k in KNUCKLES]])
    a, b = bones.T
    balls = (joints_T213[:, None, a] * (1 - share)[..., None] + joints_T213[:, None, b] * share[..., None]).reshape(
        len(joints_T213), -1, 3
    )
    radii = ((RADII[a] * (1 - share) + RADII[b] * share) * scale).ravel()
    distance = np.linalg.norm(points_TN3, axis=-1)
    direction = points_TN3 / np.maximum(distance, 1e-9)[..., None]
    along = direction @ balls.transpose(0, 2, 1)
    beside = np.sum(balls**2, -1)[:, None] - along**2
    before = along < distance[..., None] - 1.5 * radii
    return (before & (beside < (0.8 * radii) ** 2)).any(-1)


def pinch_opening(joints_T213: np.ndarray, scale: float) -> np.ndarray:
    """Free space between the skin of thumb tip and index tip, f64 [T] metres, never negative."""
    gap = np.linalg.norm(joints_T213[:, THUMB_TIP] - joints_T213[:, INDEX_TIP], axis=-1)
    return np.maximum(gap - (RADII[THUMB_TIP] + RADII[INDEX_TIP]) * scale, 0)


def pinch_middle(joints_T213: np.ndarray) -> np.ndarray:
    """Grasp point: midway between thumb tip and index tip, f64 [T,3] metres."""
    return (joints_T213[:, THUMB_TIP] + joints_T213[:, INDEX_TIP]) / 2


def hand_axes(joints: np.ndarray, side: str) -> HandAxes:
    """The axes of hands of that side, joints f64 [T,21,3]."""
    lateral = joints[:, KNUCKLES[0]] - joints[:, KNUCKLES[-1]]
    lateral = lateral / np.maximum(np.linalg.norm(lateral, axis=-1, keepdims=True), 1e-9)
    distal = joints[:, KNUCKLES].mean(1) - joints[:, WRIST]
    distal = distal - lateral * np.sum(lateral * distal, -1, keepdims=True)
    distal = distal / np.maximum(np.linalg.norm(distal, axis=-1, keepdims=True), 1e-9)
    palmar = np.cross(lateral, distal) * (1.0 if side == "right" else -1.0)
    return HandAxes(lateral, distal, palmar)
