"""Registration of a gripper model to one depth picture: rotation, translation and both jaws, by Gauss-Newton.

Minimises, over the visible model points p with normals n and their nearest measured points q,

    sum w (n (q - p))^2 / sigma^2 + w slide |q - p|^2 / sigma^2
        + |turn|^2 / turn_sigma^2 + |jaws - expected|^2 / jaw_sigma^2

(point to plane, Chen and Medioni, 1992, with a little point to point that holds what planes leave free); w is Cauchy's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from extract.effector import Camera
from extract.gripper.registered.model import GripperModel, State
from extract.gripper.registered.surface import measured

POINTS = 500  # model points that are registered
MOST_MEASURED = 5000
FACING = 0.15  # cosine of normal and ray; grazing surfaces are measured badly
SIGMA_M = 0.0015
SLIDE = 0.02
TURN_SIGMA, JAW_SIGMA_M = np.deg2rad(4.0), 0.02
CORRELATED = 20.0  # neighbours err together: so many points count as one
AGREE_M, THROUGH_M = 0.004, 0.010
CROP_PX = 0.04  # of the picture's longer side, around where the gripper is expected
CROP_M = 0.03
STILL_M = 3e-5  # a step so small ends the iteration


@dataclass(frozen=True)
class Fit:
    """state: where the gripper is. share: of the visible model points that could be judged, those that agree.

    seen: share of all points facing the camera that agree. residual_m: median distance to the surface of those.
    """

    state: State
    share: float
    seen: float
    residual_m: float


class Registration:
    """Registers one model to depth pictures of one camera."""

    def __init__(self, model: GripperModel, camera: Camera):
        self.model, self.camera = model, camera
        self._chosen = model.spread(POINTS)
        self._local = model.points_M3[self._chosen].astype(np.float64)
        self._normals = model.normals_M3[self._chosen].astype(np.float64)
        self._side = model.side_M2[self._chosen]

    def fit(self, depth_HW: np.ndarray, start: State, limits_m: tuple[float, ...]) -> Fit | None:
        """Refined from a start; None where nothing is. limits_m: how far model and surface may be apart, by round."""
        cloud = self._cloud(depth_HW, start, limits_m[0])
        if len(cloud) < 30:
            return None
        tree = KDTree(cloud, balanced_tree=False, compact_nodes=False)
        state, expected = start, start.jaws_2
        for number, limit in enumerate(limits_m):
            step = self._step(tree, cloud, state, start, expected, limit)
            if step is None:
                return None
            state, moved = step
            if number + 1 < len(limits_m) and limits_m[number + 1] == limit and moved < STILL_M:
                break
        return self._judged(depth_HW, tree, state)

    def visible(self, depth_HW: np.ndarray, state: State, chosen: np.ndarray) -> np.ndarray:
        """bool: which of the model's points are measured in the picture, facing the camera and not covered."""
        points = self.model.placed(state, chosen)
        behind = measured(depth_HW, self.camera, points) - points[:, 2]
        normals = self.model.normals_M3[chosen] @ state.rotation_33.T
        return (np.abs(behind) < 2 * AGREE_M) & (_cosine(points, normals) > FACING)

    def _cloud(self, depth_HW: np.ndarray, start: State, limit: float) -> np.ndarray:
        """f64 [P,3] metres: what is measured around where the gripper is expected."""
        points = self._placed(start)
        pixels = self.camera.project(points)
        height, width = depth_HW.shape
        margin = CROP_PX * max(height, width) + limit * self.camera.focal_px / max(points[:, 2].min(), 0.05)
        x0, y0 = np.maximum(np.floor(pixels.min(0) - margin), 0).astype(int)
        x1, y1 = np.minimum(np.ceil(pixels.max(0) + margin), (width, height)).astype(int)
        patch = depth_HW[y0:y1, x0:x1]
        near, far = points[:, 2].min() - CROP_M - limit, points[:, 2].max() + CROP_M + limit
        rows, columns = np.nonzero((patch > near) & (patch < far))
        stride = max(1, -(-len(rows) // MOST_MEASURED))
        if stride > 1:  # every so many pixels in a pattern that is as dense along rows as along columns
            kept = (rows * 2 + columns) % stride == 0
            rows, columns = rows[kept], columns[kept]
        return self.camera.unproject(
            np.stack([columns + x0, rows + y0], -1) + 0.5, patch[rows, columns].astype(np.float64)
        )

    def _placed(self, state: State) -> np.ndarray:
        local = self._local + (self._side @ state.jaws_2)[:, None] * self.model.jaw_axis_3
        return local @ state.rotation_33.T + state.translation_3

    def _step(
        self, tree: KDTree, cloud: np.ndarray, state: State, start: State, expected: np.ndarray, limit: float
    ) -> tuple[State, float] | None:
        """One step, and how far it moves, metres."""
        points = self._placed(state)
        normals = self._normals @ state.rotation_33.T
        facing = np.flatnonzero(_cosine(points, normals) > FACING)
        apart, index = tree.query(points[facing], distance_upper_bound=limit)
        found = np.isfinite(apart)
        if found.sum() < 12:
            return None
        rows = facing[found]
        p, n, q = points[rows], normals[rows], cloud[np.asarray(index)[found]]
        off = q - p
        plane = (off * n).sum(1)
        weight = 1 / (1 + (plane / max(SIGMA_M * 2, limit / 4)) ** 2) / (SIGMA_M**2 * CORRELATED)
        middle = points.mean(0)
        arm = p - middle
        axis = state.rotation_33 @ self.model.jaw_axis_3
        along = self._side[rows]
        jacobian = np.concatenate([np.cross(arm, n), n, along * (n @ axis)[:, None]], 1)
        lhs = (jacobian * weight[:, None]).T @ jacobian
        rhs = (jacobian * weight[:, None]).T @ plane
        moves = np.zeros((len(rows), 3, 8))  # of each point, by each unknown
        moves[:, 0, 1], moves[:, 0, 2] = arm[:, 2], -arm[:, 1]
        moves[:, 1, 0], moves[:, 1, 2] = -arm[:, 2], arm[:, 0]
        moves[:, 2, 0], moves[:, 2, 1] = arm[:, 1], -arm[:, 0]
        moves[:, :, 3:6] = np.eye(3)
        moves[:, :, 6:] = axis[None, :, None] * along[:, None]
        flat = moves.reshape(-1, 8)
        slide = np.repeat(SLIDE * weight, 3)
        lhs += (flat * slide[:, None]).T @ flat
        rhs += (flat * slide[:, None]).T @ off.ravel()
        turned = _log(state.rotation_33 @ start.rotation_33.T)
        lhs[range(3), range(3)] += 1 / TURN_SIGMA**2
        rhs[:3] -= turned / TURN_SIGMA**2
        lhs[range(6, 8), range(6, 8)] += 1 / JAW_SIGMA_M**2
        rhs[6:] += (expected - state.jaws_2) / JAW_SIGMA_M**2
        move = np.linalg.solve(lhs, rhs)
        turn = _exp(move[:3])
        rotation = turn @ state.rotation_33
        translation = turn @ (state.translation_3 - middle) + middle + move[3:6]
        size = float(np.linalg.norm(move[3:6]) + 0.05 * np.linalg.norm(move[:3]) + np.abs(move[6:]).max())
        return State(rotation, translation, state.jaws_2 + move[6:]), size

    def _judged(self, depth_HW: np.ndarray, tree: KDTree, state: State) -> Fit:
        points = self._placed(state)
        normals = self._normals @ state.rotation_33.T
        facing = _cosine(points, normals) > FACING
        points, normals = points[facing], normals[facing]
        behind = measured(depth_HW, self.camera, points) - points[:, 2]
        apart, index = tree.query(points, distance_upper_bound=AGREE_M)
        agree = np.isfinite(apart)
        through = ~agree & (behind > THROUGH_M)
        judged = agree.sum() + through.sum()
        off = ((tree.data[np.asarray(index)[agree]] - points[agree]) * normals[agree]).sum(1)
        residual = float(np.median(np.abs(off))) if agree.any() else np.inf
        return Fit(state, float(agree.sum() / max(judged, 1)), float(agree.mean()), residual)


def _cosine(points_N3: np.ndarray, normals_N3: np.ndarray) -> np.ndarray:
    """f64 [N]: 1 where a surface looks straight at the camera."""
    return -(points_N3 * normals_N3).sum(1) / np.linalg.norm(points_N3, axis=1)


def _exp(turn_3: np.ndarray) -> np.ndarray:
    """f64 [3,3]: the rotation by |turn| radians about turn (Rodrigues)."""
    angle = float(np.linalg.norm(turn_3))
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = turn_3 / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def _log(rotation_33: np.ndarray) -> np.ndarray:
    """f64 [3]: the turn (radians about its axis) of a small rotation."""
    skew = (rotation_33 - rotation_33.T) / 2
    return np.array([skew[2, 1], skew[0, 2], skew[1, 0]])
