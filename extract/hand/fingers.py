"""Where thumb and index finger are in the depth image, whatever the landmarks say: searched among all their poses.

Landmarks of the palm are good, those of thumb and index finger are not where a thumb is spread or half hidden. So the
poses that these two can take are put on the palm of every frame and judged by what the sensor saw there: skin at that
depth speaks for them, a free view against them, something nearer hides them; skin that no other part of the hand
explains should be theirs; they keep out of each other and of the rest of the hand (the terms of Qian et al. 2014,
"Realtime and Robust Hand Tracking from Depth"). Of the best pairs of every frame, the path of least cost over the clip
is taken (Viterbi 1967): hands move smoothly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from extract.effector import Camera
from extract.hand.finger_poses import BALLS, INDEX, THUMB, FingerPoses, along_bones
from extract.hand.patch import HandPatch, nearest_cells
from extract.hand.skeleton import KNUCKLES, RADII, WRIST
from extract.hand.surface import TUBES, hand_axes
from extract.hand.touch import tube_distances

THUMB_ROOT = np.array([0.033, 0.017, 0.016])  # metres from the wrist: lateral, distal, palmar; an adult's
WRIST_TO_KNUCKLES = 0.086  # metres along the hand, an adult's
HAND_REACH, FOREARM = 0.13, -0.07  # metres from the knuckles that a hand reaches, and along it where a forearm begins
# From the knuckles, along the hand and to the thumb's side: flesh of the palm and of the web beside it.
WEB_DISTAL, WEB_LATERAL = 0.02, 0.055
BESIDE_SIGMA, DEPTH_SIGMA = 0.008, 0.009  # metres from skin, across and along the view: half a step of the poses
FREE, HIDDEN, UNKNOWN = 9.0, 0.5, 4.0  # cost of a ball where nothing is, behind something, where nothing was measured
EXPLAINS = 0.007  # metres from the skin within which a point is explained
EXPLAINED = 45.0  # worth of explaining as much skin as a whole finger shows
INSIDE, SOFT = 0.7, 0.008  # share of its radius by which a ball keeps away from other parts; metres
COLLISION, ENTWINED = 5.0, 30.0  # cost of a ball within the rest of the hand, and of the two fingers within each other
LANDMARKS, LANDMARKS_REACH = 2.0, 0.03  # cost of joints that are not where the fit had them; metres, at most
BEST, PAIRS = 28, 40  # poses of a finger, and pairs of them, that are kept of a frame
STEP_SIGMA, STEP_LIMIT = 0.010, 9.0  # metres per 50 ms that a joint moves against the palm; the most a step costs
WEIGHTS = np.linspace(0.6, 1.4, BALLS)  # of the balls: tips count most
FAR = slice(BALLS // 3, None)  # balls that should not be within other parts; those before are at the root
OUTER = slice(BALLS // 2, None)
# The rest of the hand: middle, ring and little finger, and the bones of the palm.
OTHERS = np.concatenate([TUBES[TUBES[:, 1] > 8], [(WRIST, knuckle) for knuckle in KNUCKLES]])


@dataclass(frozen=True)
class Found:
    """joints_T213: f64 metres, camera frame; NaN but for the joints of thumb and index finger beyond their roots, and
    where there was no depth. seen_T21: share of the outer half of the finger that was seen there, not hidden."""

    joints_T213: np.ndarray
    seen_T21: np.ndarray


@dataclass(frozen=True)
class _Finger:
    """K poses of a finger in one frame. explains_KP: which points; joints_K33, balls_KB3: metres, camera frame."""

    cost_K: np.ndarray
    explains_KP: np.ndarray
    joints_K33: np.ndarray
    balls_KB3: np.ndarray
    seen_K: np.ndarray


@dataclass(frozen=True)
class _Pairs:
    """The best pairs of poses in one frame. local_S63: joints of both in the axes of the palm; joints_S63: metres,
    camera frame; seen_S2: share of each finger."""

    cost_S: np.ndarray
    local_S63: np.ndarray
    joints_S63: np.ndarray
    seen_S2: np.ndarray


def find_fingers(
    time_T: np.ndarray,
    joints_T213: np.ndarray,
    patches: list[HandPatch | None],
    side: str,
    scale: float,
    camera: Camera,
) -> Found:
    """Thumb and index finger over a clip, on the palms of ``joints_T213`` (metres, camera frame).

    patches: of every frame, None where there is none. scale: size of the hand, 1 = an adult's.
    """
    rotations = hand_axes(joints_T213, side).rotations_T33
    frames = [
        None if patch is None else _Frame.of(patch, joints, rotation, scale, camera)
        for patch, joints, rotation in zip(patches, joints_T213, rotations, strict=True)
    ]
    joints, seen = np.full(joints_T213.shape, np.nan), np.zeros(joints_T213.shape[:2])
    rows = [row for row, frame in enumerate(frames) if frame is not None]
    pairs = [frame.pairs() for frame in frames if frame is not None]
    for row, pair, state in zip(rows, pairs, _path(time_T[rows], pairs), strict=True):
        joints[row, [*THUMB.joints, *INDEX.joints]] = pair.joints_S63[state]
        seen[row, [*THUMB.joints, *INDEX.joints]] = np.repeat(pair.seen_S2[state], 3)
    return Found(joints, seen)


@dataclass(frozen=True)
class _Frame:
    """One frame. beside_HW: metres to the nearest skin across the view; skin_z_HW: metres, its depth. points_P3: skin
    that palm, forearm and the other fingers do not explain. cell_m2: area of a cell at the hand."""

    patch: HandPatch
    joints_213: np.ndarray
    rotation_33: np.ndarray
    scale: float
    camera: Camera
    beside_HW: np.ndarray
    skin_z_HW: np.ndarray
    points_P3: np.ndarray
    cell_m2: float

    @classmethod
    def of(
        cls, patch: HandPatch, joints_213: np.ndarray, rotation_33: np.ndarray, scale: float, camera: Camera
    ) -> _Frame | None:
        """None where there is no skin."""
        knuckles = joints_213[list(KNUCKLES)].mean(0)
        skin = patch.skin_HW & (np.abs(patch.depth_HW - knuckles[2]) < HAND_REACH * scale)
        nearest = nearest_cells(skin)
        if nearest is None:
            return None
        cell_m = patch.step * float(knuckles[2]) / camera.focal_px
        rows, columns = np.indices(skin.shape)
        beside = np.hypot(nearest[..., 0] - rows, nearest[..., 1] - columns) * cell_m
        points = patch.points(skin, camera)
        place = (points - knuckles) @ rotation_33.T / scale
        flesh = (place[:, 1] < WEB_DISTAL) & (place[:, 0] < WEB_LATERAL)
        points = points[(np.linalg.norm(place, axis=1) < HAND_REACH) & (place[:, 1] > FOREARM) & ~flesh]
        away = tube_distances(points[None], joints_213[None, OTHERS], scale * RADII[OTHERS])[1][0].min(-1)
        depth = patch.depth_HW[nearest[..., 0], nearest[..., 1]]
        unexplained = points[away > EXPLAINS]
        return cls(patch, joints_213, rotation_33, scale, camera, beside, depth, unexplained, cell_m**2)

    def pairs(self) -> _Pairs:
        """The best pairs of a thumb and an index finger."""
        wrist = self.joints_213[list(KNUCKLES)].mean(0) - WRIST_TO_KNUCKLES * self.scale * self.rotation_33[1]
        thumb = self._finger(THUMB, wrist + self.scale * THUMB_ROOT @ self.rotation_33)
        index = self._finger(INDEX, self.joints_213[INDEX.root])
        both = thumb.explains_KP.astype(float) @ index.explains_KP.T
        explained = thumb.explains_KP.sum(1)[:, None] + index.explains_KP.sum(1) - both
        area = (THUMB.area_m2 + INDEX.area_m2) / 2 * self.scale**2
        apart = np.linalg.norm(thumb.balls_KB3[:, None, OUTER, None] - index.balls_KB3[None, :, None, OUTER], axis=-1)
        within = apart < 0.8 * self.scale * (THUMB.radii_B[OUTER, None] + INDEX.radii_B[OUTER])
        cost = thumb.cost_K[:, None] + index.cost_K - EXPLAINED * explained * self.cell_m2 / area
        cost += ENTWINED * within.mean((-1, -2))
        best = np.argsort(cost.ravel(), kind="stable")[:PAIRS]
        a, b = np.unravel_index(best, cost.shape)
        joints = np.concatenate([thumb.joints_K33[a], index.joints_K33[b]], 1)
        local = (joints - wrist) @ self.rotation_33.T
        return _Pairs(cost.ravel()[best], local, joints, np.stack([thumb.seen_K[a], index.seen_K[b]], 1))

    def _finger(self, poses: FingerPoses, root_3: np.ndarray) -> _Finger:
        """The BEST poses of one finger."""
        # The fit's own pose is one of them.
        own = self.joints_213[[poses.root, *poses.joints]][None]
        balls = root_3 + self.scale * poses.balls_CB3 @ self.rotation_33
        balls = np.concatenate([balls, along_bones(own)])
        joints = root_3 + self.scale * poses.joints_C33 @ self.rotation_33
        joints = np.concatenate([joints, own[:, 1:]])
        cost, seen = self._in_the_picture(balls, self.scale * poses.radii_B)
        expected = self.joints_213[list(poses.joints)]
        away = np.linalg.norm(joints[..., :2] / joints[..., 2:] - expected[:, :2] / expected[:, 2:], axis=-1)
        cost += LANDMARKS * np.minimum(away * expected[0, 2] / LANDMARKS_REACH, 1).sum(-1)
        # What costs time is asked of ever fewer.
        some = np.argsort(cost, kind="stable")[: 16 * BEST]
        cost = cost[some] + COLLISION * self._within_others(balls[some, FAR], self.scale * poses.radii_B[FAR], poses)
        fewer = np.argsort(cost, kind="stable")[: 4 * BEST]
        some, cost = some[fewer], cost[fewer]
        explains = self._explained(poses, root_3, joints[some])
        worth = EXPLAINED * explains.sum(1) * self.cell_m2 / (poses.area_m2 * self.scale**2)
        best = np.argsort(cost - worth, kind="stable")[:BEST]
        some = some[best]
        return _Finger(cost[best], explains[best], joints[some], balls[some], seen[some])

    def _in_the_picture(self, balls_CB3: np.ndarray, radii_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of every pose: its cost, and the share of it that is seen."""
        row, column, inside = self.patch.cells(self.camera.project(balls_CB3))
        depth, beside = self.patch.depth_HW[row, column], self.beside_HW[row, column]
        known = inside & (depth > 0)
        expected = balls_CB3[..., 2] - radii_B
        off = self.skin_z_HW[row, column] - expected
        cost = np.minimum((beside / BESIDE_SIGMA) ** 2 + (off / DEPTH_SIGMA) ** 2, FREE)
        cost = np.where(depth < expected, np.minimum(cost, HIDDEN), cost)
        seen = known & (beside < BESIDE_SIGMA) & (np.abs(off) < 2 * DEPTH_SIGMA)
        return np.where(known, cost, UNKNOWN) @ WEIGHTS, seen[:, OUTER].mean(1)

    def _within_others(self, balls_CB3: np.ndarray, radii_B: np.ndarray, poses: FingerPoses) -> np.ndarray:
        """How many of the balls of every pose are within the rest of the hand."""
        parts = OTHERS[OTHERS[:, 1] != poses.root]
        flat = balls_CB3.reshape(1, -1, 3)
        away = tube_distances(flat, self.joints_213[None, parts], self.scale * RADII[parts])[1][0].min(-1)
        return np.clip((INSIDE * radii_B - away.reshape(balls_CB3.shape[:2])) / SOFT, 0, 2).sum(1)

    def _explained(self, poses: FingerPoses, root_3: np.ndarray, joints_C33: np.ndarray) -> np.ndarray:
        """bool [C,P]: points that are on the skin of each pose, or within it."""
        chain = np.concatenate([np.broadcast_to(root_3, (len(joints_C33), 1, 3)), joints_C33], 1)
        ends = np.stack([chain[:, :-1], chain[:, 1:]], 2).reshape(1, -1, 2, 3)
        radii = np.tile(self.scale * RADII[np.array([(joint - 1, joint) for joint in poses.joints])], (len(chain), 1))
        away = tube_distances(self.points_P3[None], ends, radii)[1][0]
        return away.reshape(len(self.points_P3), len(chain), 3).min(-1).T < EXPLAINS


def _path(time_T: np.ndarray, pairs: list[_Pairs]) -> list[int]:
    """The state of every frame on the path of least cost."""
    if not pairs:
        return []
    total, back = pairs[0].cost_S, []
    for row in range(1, len(pairs)):
        before, now = (pair.local_S63[:, [1, 2, 4, 5]].reshape(-1, 12) for pair in pairs[row - 1 : row + 1])
        sigma = STEP_SIGMA * max((time_T[row] - time_T[row - 1]) / 0.05, 0.5)
        squared = np.sum((before[:, None] - now) ** 2, -1)
        step = total[:, None] + np.minimum(squared / sigma**2, STEP_LIMIT)
        back.append(step.argmin(0))
        total = step.min(0) + pairs[row].cost_S
    states = [int(total.argmin())]
    for choice in reversed(back):
        states.append(int(choice[states[-1]]))
    return states[::-1]
