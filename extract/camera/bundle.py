"""Bundle adjustment of camera poses and background points, with depth where there is any.

Minimises over poses (R_f, t_f: camera_from_world) and points X_p

    sum_o  rho(|pi(K (R X + t)) - pixel|^2 / sigma_px^2)  +  rho((z - depth)^2 / sigma_z^2)

with rho(s) = c^2 log(1 + s / c^2) (Cauchy), by Levenberg-Marquardt; points are eliminated first (Schur complement;
Triggs et al., 2000). Symbols: F frames, P points, O observations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.sparse
from scipy.spatial.transform import Rotation

from data.geometry import invert_rigid
from extract.camera.observations import Observations

CAUCHY = 2.0  # in sigmas
LEAST_DAMPING = 1e-6  # without depth nothing fixes the scale; damping keeps it where it is
WIDE = (8.0, 4.0, 2.0)  # times sigma: frames are placed forgivingly first, because a start may be far off
LEAST_Z = 1e-3  # of the depth of what is in front of the camera; relative scale has no metres


@dataclass(frozen=True)
class Noise:
    """One-sigma errors: pixels of the full picture, and depth relative to itself."""

    pixel: float
    depth: float


@dataclass(frozen=True)
class Scene:
    """camera_from_world_F44 f64. points_P3 f64 in the world, NaN = unknown, infinite = no part of the background."""

    camera_from_world_F44: np.ndarray
    points_P3: np.ndarray

    @property
    def world_from_camera_F44(self) -> np.ndarray:
        return invert_rigid(self.camera_from_world_F44)


@dataclass(frozen=True)
class _Linear:
    """Residuals of all observations and their derivatives, whitened and weighted."""

    cost: float
    residual_O3: np.ndarray
    by_pose_O36: np.ndarray
    by_point_O33: np.ndarray


def reprojection(scene: Scene, seen: Observations, k: np.ndarray) -> np.ndarray:
    """f64 [O] pixels from where the scene puts each observation; NaN: point unknown, infinite: no background."""
    with np.errstate(invalid="ignore", divide="ignore"):
        camera_O3 = _in_camera(scene, seen)
        z = camera_O3[:, 2]
        uv = camera_O3[:, :2] / z[:, None] * [k[0, 0], k[1, 1]] + k[:2, 2]
        distance = np.linalg.norm(uv - seen.pixels_O2, axis=1)
    given_up = np.isinf(scene.points_P3[seen.point_O]).any(1)
    return np.where(given_up | (z <= LEAST_Z), np.inf, distance)


def _placed(scene: Scene, seen: Observations) -> np.ndarray:
    """bool [O]: the point's place is known."""
    return np.isfinite(scene.points_P3[:, 0])[seen.point_O]


def _in_camera(scene: Scene, seen: Observations) -> np.ndarray:
    poses = scene.camera_from_world_F44[seen.frame_O]
    return np.einsum("oij,oj->oi", poses[:, :3, :3], scene.points_P3[seen.point_O]) + poses[:, :3, 3]


def _linearise(scene: Scene, seen: Observations, k: np.ndarray, noise: Noise) -> _Linear:
    camera = _in_camera(scene, seen)
    behind = camera[:, 2] < LEAST_Z
    x, y = camera[:, 0], camera[:, 1]
    z = np.maximum(camera[:, 2], LEAST_Z)
    fx, fy = k[0, 0], k[1, 1]
    residual = np.zeros((len(x), 3))
    residual[:, 0] = (fx * x / z + k[0, 2] - seen.pixels_O2[:, 0]) / noise.pixel
    residual[:, 1] = (fy * y / z + k[1, 2] - seen.pixels_O2[:, 1]) / noise.pixel
    known = seen.depth_O > 0
    sigma_z = np.where(known, noise.depth * seen.depth_O, 1.0)
    residual[:, 2] = np.where(known, (camera[:, 2] - seen.depth_O) / sigma_z, 0)
    by_camera = np.zeros((len(x), 3, 3))
    by_camera[:, 0, 0] = fx / z / noise.pixel
    by_camera[:, 0, 2] = -fx * x / z**2 / noise.pixel
    by_camera[:, 1, 1] = fy / z / noise.pixel
    by_camera[:, 1, 2] = -fy * y / z**2 / noise.pixel
    by_camera[:, 2, 2] = np.where(known, 1 / sigma_z, 0)
    square = np.stack([(residual[:, :2] ** 2).sum(1)] * 2 + [residual[:, 2] ** 2], 1)
    square = np.minimum(square, 1e8)
    weight = 1 / (1 + square / CAUCHY**2)
    weight[behind] = 0
    cost = CAUCHY**2 * float((np.log1p(square[:, 0] / CAUCHY**2) + np.log1p(square[:, 2] / CAUCHY**2)).sum())
    root = np.sqrt(weight)
    by_camera *= root[..., None]
    # A pose changes by a small turn w and shift v on the camera's side: X_c -> X_c + w x X_c + v.
    turn = np.zeros((len(x), 3, 3))
    turn[:, 0, 1], turn[:, 0, 2] = camera[:, 2], -y
    turn[:, 1, 0], turn[:, 1, 2] = -camera[:, 2], x
    turn[:, 2, 0], turn[:, 2, 1] = y, -x
    by_pose = np.concatenate([by_camera @ turn, by_camera], axis=2)
    by_point = by_camera @ scene.camera_from_world_F44[seen.frame_O][:, :3, :3]
    return _Linear(cost, residual * root, by_pose, by_point)


def _sum_by(index_O: np.ndarray, blocks: np.ndarray, count: int) -> np.ndarray:
    """Sums blocks [O,...] that share an index -> [count,...], in a fixed order."""
    flat = blocks.reshape(len(blocks), -1)
    summed = np.stack([np.bincount(index_O, column, count) for column in flat.T], axis=1)
    return summed.reshape(count, *blocks.shape[1:])


def _stepped(poses_F44: np.ndarray, step_F6: np.ndarray) -> np.ndarray:
    turn = Rotation.from_rotvec(step_F6[:, :3]).as_matrix()
    moved = poses_F44.copy()
    moved[:, :3, :3] = turn @ poses_F44[:, :3, :3]
    moved[:, :3, 3] = np.einsum("fij,fj->fi", turn, poses_F44[:, :3, 3]) + step_F6[:, 3:]
    return moved


def adjust(scene: Scene, seen: Observations, k: np.ndarray, noise: Noise, rounds: int = 20) -> Scene:
    """Poses and points that agree best with the observations. The first frame stays where it is."""
    seen = seen.where(_placed(scene, seen))
    damping = 1e-4
    linear = _linearise(scene, seen, k, noise)
    for _ in range(rounds):
        step = _solve(linear, seen, damping)
        moved = Scene(_stepped(scene.camera_from_world_F44, step[0]), scene.points_P3 + step[1])
        tried = _linearise(moved, seen, k, noise)
        if tried.cost < linear.cost:
            gain = 1 - tried.cost / max(linear.cost, 1e-12)
            scene, linear, damping = moved, tried, max(damping / 5, LEAST_DAMPING)
            if gain < 1e-5:
                break
        else:
            damping *= 10
            if damping > 1e6:
                break
    return scene


def _solve(linear: _Linear, seen: Observations, damping: float) -> tuple[np.ndarray, np.ndarray]:
    """One damped step: f64 [F,6] (zero for frame 0) and f64 [P,3] (zero for points without observations)."""
    pose, point = linear.by_pose_O36, linear.by_point_O33
    pose_t, point_t = pose.transpose(0, 2, 1), point.transpose(0, 2, 1)
    a = _sum_by(seen.frame_O, pose_t @ pose, seen.frames)
    c = _sum_by(seen.point_O, point_t @ point, seen.points)
    gradient_f = _sum_by(seen.frame_O, (pose_t @ linear.residual_O3[..., None])[..., 0], seen.frames)
    gradient_p = _sum_by(seen.point_O, (point_t @ linear.residual_O3[..., None])[..., 0], seen.points)
    a = a + damping * _diagonal(a) + 1e-9 * np.eye(6)
    c = c + damping * _diagonal(c) + 1e-9 * np.eye(3)
    c_inverse = np.linalg.inv(c)
    cross = pose_t @ point  # [O,6,3]
    size = (6 * seen.frames, 3 * seen.points)
    rows = (6 * seen.frame_O)[:, None, None] + np.arange(6)[None, :, None] + np.zeros((1, 1, 3), int)
    columns = (3 * seen.point_O)[:, None, None] + np.arange(3)[None, None] + np.zeros((1, 6, 1), int)
    place = (rows.ravel(), columns.ravel())
    b = scipy.sparse.csr_matrix((cross.ravel(), place), shape=size)
    bc = scipy.sparse.csr_matrix(((cross @ c_inverse[seen.point_O]).ravel(), place), shape=size)
    schur = -(bc @ b.T).toarray()
    for frame in range(seen.frames):
        schur[6 * frame : 6 * frame + 6, 6 * frame : 6 * frame + 6] += a[frame]
    right = -gradient_f.ravel() + bc @ gradient_p.ravel()
    step = np.zeros(6 * seen.frames)
    step[6:] = scipy.linalg.solve(schur[6:, 6:], right[6:], assume_a="pos", check_finite=False)
    points = -np.einsum("pij,pj->pi", c_inverse, gradient_p + (b.T @ step).reshape(-1, 3))
    return step.reshape(-1, 6), points


def _diagonal(blocks: np.ndarray) -> np.ndarray:
    return blocks * np.eye(blocks.shape[-1])


def place_cameras(scene: Scene, seen: Observations, k: np.ndarray, noise: Noise, rounds: int = 12) -> Scene:
    """Every frame's pose by itself, from points that stay where they are (all frames at once, Gauss-Newton)."""
    seen = seen.where(_placed(scene, seen))
    for number in range(rounds):
        wide = WIDE[number] if number < len(WIDE) else 1.0
        linear = _linearise(scene, seen, k, Noise(noise.pixel * wide, noise.depth * wide))
        pose_t = linear.by_pose_O36.transpose(0, 2, 1)
        a = _sum_by(seen.frame_O, pose_t @ linear.by_pose_O36, seen.frames)
        gradient = _sum_by(seen.frame_O, (pose_t @ linear.residual_O3[..., None])[..., 0], seen.frames)
        a = a + 1e-6 * _diagonal(a) + 1e-9 * np.eye(6)
        step = -np.linalg.solve(a, gradient[..., None])[..., 0]
        length = np.linalg.norm(step[:, :3], axis=1, keepdims=True)
        step *= np.minimum(1, 0.2 / np.maximum(length, 1e-12))
        scene = Scene(_stepped(scene.camera_from_world_F44, step), scene.points_P3)
        if number >= len(WIDE) and np.abs(step).max() < 1e-6:
            break
    return scene


def disagreement(scene: Scene, seen: Observations, k: np.ndarray, noise: Noise) -> float:
    """The robust sum that ``adjust`` minimises."""
    return _linearise(scene, seen.where(_placed(scene, seen)), k, noise).cost


def triangulate(camera_from_world_F44: np.ndarray, seen: Observations, k: np.ndarray, least_deg: float) -> np.ndarray:
    """Points f64 [P,3] nearest to all their rays; NaN where the rays differ by less than about ``least_deg`` degrees.

    Minimises sum |(I - d d^T)(X - c)|^2 over rays from c along d; the smallest eigenvalue of the normal matrix tells
    how well the rays fix the distance.
    """
    world_from_camera = invert_rigid(camera_from_world_F44)[seen.frame_O]
    ray = np.concatenate([(seen.pixels_O2 - k[:2, 2]) / [k[0, 0], k[1, 1]], np.ones((len(seen.frame_O), 1))], axis=1)
    ray = np.einsum("oij,oj->oi", world_from_camera[:, :3, :3], ray)
    ray /= np.linalg.norm(ray, axis=1, keepdims=True)
    across = np.eye(3) - ray[:, :, None] * ray[:, None]
    normal = _sum_by(seen.point_O, across, seen.points)
    right = _sum_by(seen.point_O, (across @ world_from_camera[:, :3, 3:])[..., 0], seen.points)
    count = np.bincount(seen.point_O, minlength=seen.points)
    least = np.linalg.eigvalsh(normal)[:, 0] / np.maximum(count, 1)  # mean sin^2 of the angle to the mean ray
    good = (count >= 2) & (least > np.sin(np.radians(least_deg) / 2) ** 2)
    points = np.full((seen.points, 3), np.nan)
    if good.any():
        points[good] = np.linalg.solve(normal[good], right[good][..., None])[..., 0]
    z = _in_camera(Scene(camera_from_world_F44, points), seen)[:, 2]
    behind = np.bincount(seen.point_O, ~(z > LEAST_Z), seen.points) > 0
    points[behind] = np.nan
    return points
