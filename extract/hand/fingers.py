"""Where thumb and index finger are in the depth image, whatever the landmarks say: searched among all their poses.

Landmarks of the palm are good, those of thumb and finger tips are not where a thumb is spread or half hidden. So every
pose of thumb and index finger that a hand can take is put on the palm of every frame and judged by what the sensor saw
there: skin at that depth speaks for it, a free view of something further away against it, something nearer hides it;
skin that no other part of the hand explains must be theirs (the terms of Qian et al. 2014, "Realtime and Robust Hand
Tracking from Depth"). Of the best pairs of every frame, the path of least cost over the whole clip is taken (Viterbi
1967), because hands move smoothly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from extract.effector import Camera
from extract.hand.patch import HandPatch, nearest_cells
from extract.hand.skeleton import BONE_LENGTHS, KNUCKLES, PALM_SIZE, PARENTS, RADII, WRIST
from extract.hand.surface import TUBES, HandAxes, hand_axes
from extract.hand.touch import tube_distances

THUMB, INDEX = (2, 3, 4), (6, 7, 8)
THUMB_ROOT = np.array([0.033, 0.017, 0.016])  # metres from the wrist: lateral, distal, palmar; an adult's
WRIST_TO_KNUCKLES = 0.086  # metres along the hand, an adult's
THUMB_BENDS_ABOUT = np.array([-0.4, -0.25, 0.8])  # lateral, distal, palmar
BALLS = 9  # along a finger
BESIDE_SIGMA = 0.008  # metres beside skin
DEPTH_SIGMA = 0.009  # metres, of the skin of a pose of the grid
FREE, HIDDEN, OUTSIDE = 9.0, 0.5, 4.0  # cost of a ball that is none, is behind something, ...
EXPLAINS = 0.007  # metres from the skin within which a pixel is explained
EXPLAINED = 30.0  # what it is worth to explain all that a finger shows
COLLISION = 3.0
PINCH, PINCHED = 0.0, 0.04  # cost of tips that are twice as far apart as these metres
LANDMARKS, LANDMARKS_REACH = 0.5, 0.03  # weight of the detector's opinion; metres from which on it does not matter
BEST, PAIRS = 28, 40
STEP_SIGMA, STEP_LIMIT = 0.010, 9.0  # metres per 50 ms by which a finger moves against the palm; most that a step costs


@dataclass(frozen=True)
class Chain:
    """One finger: its joints, and its poses in the axes of the palm: places f64 [C,3,3] metres from its root."""

    joints: tuple[int, int, int]
    places_C33: np.ndarray


def _bent(direction_C3: np.ndarray, about_C3: np.ndarray, angle_C: np.ndarray) -> np.ndarray:
    """Unit vectors turned about unit vectors across them."""
    return np.cos(angle_C)[:, None] * direction_C3 + np.sin(angle_C)[:, None] * np.cross(about_C3, direction_C3)


def _chain(joints: tuple[int, int, int], directions_3C3: np.ndarray) -> Chain:
    lengths = np.array([BONE_LENGTHS[_bone(joint)] for joint in joints])
    return Chain(joints, np.cumsum(lengths[:, None, None] * directions_3C3, axis=0).transpose(1, 0, 2))


def _bone(joint: int) -> int:
    from extract.hand.skeleton import BONES

    return int(np.flatnonzero((np.array([PARENTS[joint], joint]) == BONES).all(1))[0])


def _grid(*axes: np.ndarray) -> list[np.ndarray]:
    return [np.deg2rad(values.ravel()) for values in np.meshgrid(*axes, indexing="ij")]


def thumb_poses() -> Chain:
    """All ways to hold a thumb: spread from the hand and raised out of the palm, bent in both joints."""
    spread, raised, middle, end = _grid(
        np.arange(10, 111, 10), np.arange(-10, 71, 10), np.array([0, 25, 50]), np.array([-12, 15, 45])
    )
    first = np.stack([np.cos(spread) * np.cos(raised), np.sin(spread) * np.cos(raised), np.sin(raised)], 1)
    about = THUMB_BENDS_ABOUT - first * (first @ THUMB_BENDS_ABOUT)[:, None]
    about /= np.linalg.norm(about, axis=1, keepdims=True)
    return _chain(THUMB, np.stack([first, _bent(first, about, middle), _bent(first, about, middle + end)]))


def index_poses() -> Chain:
    """All ways to hold an index finger: spread, and bent in its joints; the last one follows the one before."""
    spread, turned, first, second = _grid(
        np.arange(-16, 25, 8), np.array([-30, 0, 20]), np.arange(-15, 91, 15), np.arange(0, 97, 16)
    )
    straight = np.stack([np.sin(spread), np.cos(spread), 0 * spread], 1)
    across = np.stack([np.cos(spread), -np.sin(spread), 0 * spread], 1)
    palmar = np.sin(turned)[:, None] * across + np.cos(turned)[:, None] * np.array([0.0, 0.0, 1.0])
    bends = np.stack([first, first + second, first + 1.6 * second])
    return _chain(INDEX, np.cos(bends)[..., None] * straight + np.sin(bends)[..., None] * palmar)


POSES = (thumb_poses(), index_poses())
_ALONG = np.linspace(0.25, 1, BALLS) * 3  # in bones from the root
_BONE = np.minimum(_ALONG.astype(int), 2)
_PART = _ALONG - _BONE


def _along(places_C43: np.ndarray) -> np.ndarray:
    """Middles of the balls, [C,BALLS,3], of a chain of four joints; or their radii from those of the joints."""
    part = _PART.reshape(-1, *(1,) * (places_C43.ndim - 2))
    return places_C43[:, _BONE] * (1 - part) + places_C43[:, _BONE + 1] * part


_BALLS = [_along(np.concatenate([np.zeros((len(c.places_C33), 1, 3)), c.places_C33], 1)) for c in POSES]
_RADII = [_along(RADII[None, [joints[0] - 1, *joints]])[0] for joints in (THUMB, INDEX)]
_AREA = [2 * float(RADII[list(joints)].mean() * np.linalg.norm(c.places_C33[0, -1])) for joints, c in
         zip((THUMB, INDEX), POSES, strict=True)]
_OTHERS = np.array([k for k, (_, b) in enumerate(np.concatenate([TUBES])) if b > 8] )
_WEIGHT = np.linspace(0.6, 1.4, BALLS)


@dataclass(frozen=True)
class Found:
    """joints_T213: f64 metres, camera frame; NaN but for the joints of thumb and index finger, and where there was no
    depth. seen_T21: share of the finger that was seen there."""

    joints_T213: np.ndarray
    seen_T21: np.ndarray


@dataclass(frozen=True)
class _Pairs:
    """The best pairs of poses in one frame. places: [S,6,3] in the axes of the palm; joints: [S,6,3] camera frame."""

    cost: np.ndarray
    places: np.ndarray
    joints: np.ndarray
    seen: np.ndarray


def find_fingers(
    time_T: np.ndarray, joints_T213: np.ndarray, patches: list[HandPatch | None], side: str, scale: float, camera: Camera
) -> Found:
    """Thumb and index finger over a clip, on the palms of ``joints_T213`` (metres, camera frame).

    patches: of every frame, None where there is none. scale: size of the hand, 1 = an adult's.
    """
    axes = hand_axes(joints_T213, side)
    rotations = axes.rotations_T33
    pairs = [
        None if patch is None else _pairs(patch, joints, rotation, scale, camera)
        for patch, joints, rotation in zip(patches, joints_T213, rotations, strict=True)
    ]
    found = np.full(joints_T213.shape, np.nan)
    seen = np.zeros(joints_T213.shape[:2])
    rows = [row for row, pair in enumerate(pairs) if pair is not None]
    chosen = _path(time_T[rows], [pair for pair in pairs if pair is not None])
    for row, state in zip(rows, chosen, strict=True):
        pair = pairs[row]
        assert pair is not None
        found[row, [*THUMB, *INDEX]] = pair.joints[state]
        seen[row, [*THUMB, *INDEX]] = np.repeat(pair.seen[state], 3)
    return Found(found, seen)


def _pairs(patch: HandPatch, joints_213: np.ndarray, rotation_33: np.ndarray, scale: float, camera: Camera) -> _Pairs | None:
    knuckles = joints_213[list(KNUCKLES)].mean(0)
    wrist = knuckles - WRIST_TO_KNUCKLES * scale * rotation_33[1]
    roots = (wrist + THUMB_ROOT * scale @ rotation_33, joints_213[5])
    skin = patch.skin_HW & (np.abs(patch.depth_HW - knuckles[2]) < REACH_M * scale)
    nearest = nearest_cells(skin)
    if nearest is None:
        return None
    rows, columns = np.indices(skin.shape)
    off_skin = np.hypot(nearest[..., 0] - rows, nearest[..., 1] - columns) * (patch.step * knuckles[2] / camera.focal_px)
    skin_depth = patch.depth_HW[nearest[..., 0], nearest[..., 1]]
    points = _unexplained(patch, joints_213, knuckles, rotation_33, scale, camera)
    cell = (patch.step * float(knuckles[2]) / camera.focal_px) ** 2
    fingers = [
        _finger(number, root, patch, off_skin, skin_depth, joints_213, rotation_33, scale, camera, points, cell)
        for number, root in enumerate(roots)
    ]
    (cost_a, explains_a, pose_a, ball_a, seen_a), (cost_b, explains_b, pose_b, ball_b, seen_b) = fingers
    together = explains_a.sum(1)[:, None] + explains_b.sum(1) - explains_a.astype(float) @ explains_b.T
    area = (_AREA[0] + _AREA[1]) / 2 * scale**2
    cost = cost_a[:, None] + cost_b - EXPLAINED * together * cell / area
    far = slice(BALLS // 2, None)
    apart = np.linalg.norm(ball_a[:, None, far, None] - ball_b[None, :, None, far], axis=-1)
    overlap = (apart < 0.8 * scale * (_RADII[0][far, None] + _RADII[1][far])).mean((-1, -2))
    tips = np.linalg.norm(pose_a[:, None, 2] - pose_b[None, :, 2], axis=-1)
    cost = cost + PINCH * np.maximum(tips / scale - PINCHED, 0) / PINCHED
    cost = (cost + COLLISION * 10 * overlap).ravel()
    best = np.argsort(cost, kind="stable")[:PAIRS]
    a, b = np.unravel_index(best, (len(cost_a), len(cost_b)))
    places = np.concatenate([pose_a[a], pose_b[b]], 1)
    return _Pairs(cost[best], (places - wrist) @ rotation_33.T, places, np.stack([seen_a[a], seen_b[b]], 1))


def _finger(number, root_3, patch, off_skin, skin_depth, joints_213, rotation_33, scale, camera, points_P3, cell):
    """The BEST poses of one finger: cost, which points they explain, joints and balls in the camera frame, share seen."""
    chain = POSES[number]
    balls = root_3 + scale * _BALLS[number] @ rotation_33
    radii = _RADII[number] * scale
    row, column, inside = patch.cells(camera.project(balls))
    depth = patch.depth_HW[row, column]
    known = inside & (depth > 0)
    expected = balls[..., 2] - radii
    beside = off_skin[row, column]
    off = skin_depth[row, column] - expected
    cost = np.minimum((beside / BESIDE_SIGMA) ** 2 + (off / DEPTH_SIGMA) ** 2, FREE)
    hidden = known & (depth < expected)
    cost = np.where(hidden, np.minimum(cost, HIDDEN), cost)
    cost = np.where(known, cost, OUTSIDE) @ _WEIGHT
    skin = known & (beside < BESIDE_SIGMA)
    pose = root_3 + scale * chain.places_C33 @ rotation_33
    away = np.linalg.norm(pose[..., :2] / pose[..., 2:] - (joints_213[list(chain.joints), :2] / joints_213[list(chain.joints), 2:]), axis=-1)
    cost += LANDMARKS * np.minimum(away * joints_213[0, 2] / LANDMARKS_REACH, 1).sum(-1)
    first = np.argsort(cost, kind="stable")[: 16 * BEST]
    far = balls[first, BALLS // 3 :]
    parts = np.concatenate([TUBES[_OTHERS], [(WRIST, k) for k in KNUCKLES[(0 if number == 0 else 1):]]])
    clear = tube_distances(far.reshape(1, -1, 3), joints_213[None, parts], scale * RADII[parts])[1][0].min(-1).reshape(len(first), -1)
    inside_others = np.clip(-(clear - 0.7 * radii[BALLS // 3 :]) / 0.008, 0, 2)
    cost[first] += COLLISION * inside_others.sum(1)
    first = first[np.argsort(cost[first], kind="stable")[: 4 * BEST]]
    ends = np.concatenate([np.broadcast_to(root_3, (len(first), 1, 3)), pose[first]], 1)
    ends = np.stack([ends[:, :-1], ends[:, 1:]], 2)
    radius = scale * RADII[np.array([(j - 1, j) for j in chain.joints])]
    away = tube_distances(points_P3[None], ends.reshape(1, -1, 2, 3), np.tile(radius, (len(first), 1)))[1][0]
    away = away.reshape(len(points_P3), len(first), 3).min(-1).T
    explains = away < EXPLAINS
    total = cost[first] - EXPLAINED * explains.sum(1) * cell / (_AREA[number] * scale**2)
    order = np.argsort(total, kind="stable")[:BEST]
    best = first[order]
    seen = (skin & (np.abs(off) < 2 * DEPTH_SIGMA))[best, BALLS // 2 :].mean(1)
    return cost[best], explains[order], pose[best], balls[best], seen


REACH_M = 0.13
LIMIT = 160


def _unexplained(patch, joints_213, knuckles_3, rotation_33, scale, camera) -> np.ndarray:
    """Skin that is neither palm nor forearm nor one of the other fingers, f64 [P,3] metres."""
    near = patch.skin_HW & (np.abs(patch.depth_HW - knuckles_3[2]) < REACH_M * scale)
    points = patch.points(near, camera)
    place = (points - knuckles_3) @ rotation_33.T / scale
    points = points[(np.linalg.norm(place, axis=1) < REACH_M) & (place[:, 1] > -0.07)]
    parts = np.concatenate([TUBES[_OTHERS], [(WRIST, k) for k in KNUCKLES]])
    away = tube_distances(points[None], joints_213[None, parts], scale * RADII[parts])[1][0].min(-1)
    return points[away > EXPLAINS]


def _path(time_T: np.ndarray, pairs: list[_Pairs]) -> list[int]:
    """The state of every frame on the path of least cost."""
    if not pairs:
        return []
    total, back = pairs[0].cost, []
    for row in range(1, len(pairs)):
        before, now = (pair.places[:, [1, 2, 4, 5]].reshape(len(pair.cost), -1) for pair in pairs[row - 1 : row + 1])
        sigma = STEP_SIGMA * max((time_T[row] - time_T[row - 1]) / 0.05, 0.5)
        squared = (before**2).sum(1)[:, None] + (now**2).sum(1) - 2 * before @ now.T
        step = total[:, None] + np.minimum(squared / sigma**2, STEP_LIMIT)
        back.append(step.argmin(0))
        total = step.min(0) + pairs[row].cost
    states = [int(total.argmin())]
    for choice in reversed(back):
        states.append(int(choice[states[-1]]))
    return states[::-1]
