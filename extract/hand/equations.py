"""Normal equations of one Gauss-Newton step of the hand fit, for all frames at once.

The unknowns of a frame are 63 numbers: x of all joints, y of all joints, and the depths in a basis whose first vector
is the hand's mean depth (Helmert's orthogonal matrix), because hands move otherwise in depth than joints move against
the hand. In that basis smoothness ties each number to itself alone, which keeps the banded system narrow.

Most terms are sums over joints or bones of weight x vector x vector^T with vectors that never change, so their Hessians
are one matrix product: weights [T,K] times outer products [K,441].
"""

from __future__ import annotations

import numpy as np

from extract.hand.banded import SmoothSystem
from extract.hand.skeleton import BONES, JOINTS, PALM, PARENTS, TIPS

X, Y, Z = (slice(JOINTS * axis, JOINTS * (axis + 1)) for axis in range(3))
DIAGONAL = np.arange(3 * JOINTS)
NOT_PALM = np.array([k for k in range(JOINTS) if k not in PALM])
STEEPEST = 0.27  # cosine; skin seen at a steeper angle is taken to be seen at that
TIP_TILT = 0.6  # finger tips are round: they tilt only that much


def _helmert() -> np.ndarray:
    """Orthogonal [21,21], first row constant."""
    basis = np.zeros((JOINTS, JOINTS))
    basis[0] = 1
    for k in range(1, JOINTS):
        basis[k, :k], basis[k, k] = 1, -k
    return basis / np.linalg.norm(basis, axis=1, keepdims=True)


def _outer(first_KJ: np.ndarray, second_KJ: np.ndarray) -> np.ndarray:
    return (first_KJ[:, :, None] * second_KJ[:, None]).reshape(len(first_KJ), -1)


BASIS = _helmert()
ENDS = np.eye(JOINTS)[BONES[:, 0]] - np.eye(JOINTS)[BONES[:, 1]]
PALM_MEAN = np.isin(np.arange(JOINTS), PALM)[None] / len(PALM)
BEHIND_PALM = np.eye(JOINTS) - PALM_MEAN
JOINT = np.eye(JOINTS)
BONE_XX, BONE_XZ, BONE_ZZ = _outer(ENDS, ENDS), _outer(ENDS, ENDS @ BASIS.T), _outer(ENDS @ BASIS.T, ENDS @ BASIS.T)
JOINT_XZ, JOINT_ZZ = _outer(JOINT, BASIS.T), _outer(BASIS.T, BASIS.T)
RELATIVE_ZZ = _outer(BEHIND_PALM @ BASIS.T, BEHIND_PALM @ BASIS.T)
PALM_ZZ = _outer(PALM_MEAN @ BASIS.T, PALM_MEAN @ BASIS.T)


def huber(error: np.ndarray, sigma: np.ndarray | float, limit: float) -> np.ndarray:
    """Weights 1 / sigma^2, falling off beyond ``limit`` sigma (Huber 1964)."""
    ratio = np.abs(error) / sigma
    return np.minimum(1, limit / np.maximum(ratio, 1e-12)) / sigma**2


class Equations:
    """Terms are added one by one around ``joints_T213``; H [T,63,63] (lower triangle) and g [T,63] collect them."""

    def __init__(self, joints_T213: np.ndarray):
        self.joints = joints_T213
        frames = len(joints_T213)
        self.hessian = np.zeros((frames, 3 * JOINTS, 3 * JOINTS))
        self.gradient = np.zeros((frames, 3 * JOINTS))
        self._zz = np.zeros((frames, JOINTS * JOINTS))
        self._z_gradient = np.zeros((frames, JOINTS))

    def add_rays(self, rays_T212: np.ndarray, sigma_T21: np.ndarray, measured_T: np.ndarray) -> None:
        """Joints lie on the landmarks' rays (x/z, y/z)."""
        x, y, z = np.moveaxis(self.joints, -1, 0)
        error_x, error_y = x / z - rays_T212[..., 0], y / z - rays_T212[..., 1]
        weight = huber(np.hypot(error_x, error_y), sigma_T21, 1.0) * measured_T[:, None]
        by_xy, by_z_x, by_z_y = 1 / z, -x / z**2, -y / z**2
        for part, error, by_z in ((X, error_x, by_z_x), (Y, error_y, by_z_y)):
            self.hessian[:, DIAGONAL[part], DIAGONAL[part]] += weight * by_xy**2
            self._add(Z, part, (weight * by_xy * by_z) @ JOINT_XZ)
            self.gradient[:, part] += weight * by_xy * error
            self._z_gradient += weight * by_z * error
        self._zz += (weight * (by_z_x**2 + by_z_y**2)) @ JOINT_ZZ

    def add_relative_z(self, behind_palm_T21: np.ndarray, sigma_T21: np.ndarray, measured_T: np.ndarray) -> None:
        """Joints lie that far behind the palm's centre."""
        error = self.joints[..., 2] @ BEHIND_PALM.T - behind_palm_T21
        weight = huber(error, sigma_T21, 1.5) * measured_T[:, None]
        self._zz += weight @ RELATIVE_ZZ
        self._z_gradient += (weight * error) @ BEHIND_PALM

    def add_surface(self, surface_z_T21: np.ndarray, radii_21: np.ndarray, sigma: float) -> None:
        """The skin that the sensor saw at a landmark lies before the joint; NaN = not measured."""
        measured = np.isfinite(surface_z_T21)
        error = np.where(measured, self.joints[..., 2] - skin_before_joint(self.joints, radii_21) - surface_z_T21, 0)
        # Cauchy: a landmark beside the hand or behind another finger must not count at all.
        weight = measured / (1 + (error / (1.33 * sigma)) ** 2) / sigma**2
        self._zz += weight @ JOINT_ZZ
        self._z_gradient += weight * error

    def add_distance(self, palm_z_T: np.ndarray, relative_sigma: float, measured_T: np.ndarray) -> None:
        """The palm's centre is that far away."""
        error = self.joints[:, PALM, 2].mean(1) - palm_z_T
        weight = (huber(error, relative_sigma * palm_z_T, 1.0) * measured_T)[:, None]
        self._zz += weight @ PALM_ZZ
        self._z_gradient += (weight * error[:, None]) @ PALM_MEAN

    def add_bones(self, lengths: np.ndarray, sigma: float) -> None:
        """Bones have these lengths."""
        difference = self.joints[:, BONES[:, 0]] - self.joints[:, BONES[:, 1]]
        length = np.linalg.norm(difference, axis=-1)
        x, y, z = np.moveaxis(difference / np.maximum(length, 1e-9)[..., None], -1, 0)
        error = length - lengths
        weight = huber(error, sigma, 2.0)
        self._add(X, X, (weight * x * x) @ BONE_XX)
        self._add(Y, X, (weight * x * y) @ BONE_XX)
        self._add(Y, Y, (weight * y * y) @ BONE_XX)
        self._add(Z, X, (weight * x * z) @ BONE_XZ)
        self._add(Z, Y, (weight * y * z) @ BONE_XZ)
        self._zz += (weight * z * z) @ BONE_ZZ
        self.gradient[:, X] += (weight * error * x) @ ENDS
        self.gradient[:, Y] += (weight * error * y) @ ENDS
        self._z_gradient += (weight * error * z) @ ENDS

    def add_places(self, places_T213: np.ndarray, sigma_T21: np.ndarray) -> None:
        """Joints are at these places; NaN = not known."""
        known = np.isfinite(places_T213[..., 0])
        error = np.where(known[..., None], self.joints - places_T213, 0)
        weight = known * huber(np.linalg.norm(error, axis=-1), sigma_T21, 1.5)
        for axis, part in ((0, X), (1, Y)):
            self.hessian[:, DIAGONAL[part], DIAGONAL[part]] += weight
            self.gradient[:, part] += weight * error[..., axis]
        self._zz += weight @ JOINT_ZZ
        self._z_gradient += weight * error[..., 2]

    def add_along_bones(
        self,
        ends_TP2: np.ndarray,
        fraction_TP: np.ndarray,
        slope_TP3: np.ndarray,
        error_TP: np.ndarray,
        weight_TP: np.ndarray,
    ) -> None:
        """P errors in each frame, each of a place along a bone: ends_TP2 are its joints, fraction_TP where between
        them, slope_TP3 how the error changes with the place."""
        frames, points = error_TP.shape
        row, number = np.arange(frames)[:, None], np.arange(points)[None]
        slopes = np.zeros((frames, points, 3, JOINTS))
        for end, share in ((0, 1 - fraction_TP), (1, fraction_TP)):
            slopes[row, number, :, ends_TP2[..., end]] += share[..., None] * slope_TP3
        slopes[:, :, 2] = slopes[:, :, 2] @ BASIS.T
        slopes = slopes.reshape(frames, points, 3 * JOINTS)
        weighted = (slopes * weight_TP[..., None]).transpose(0, 2, 1)
        self.hessian += weighted @ slopes
        self.gradient += (weighted @ error_TP[..., None])[..., 0]

    def _add(self, rows: slice, columns: slice, block_T441: np.ndarray) -> None:
        """Adds a block that was computed with ``columns`` first."""
        self.hessian[:, rows, columns] += block_T441.reshape(-1, JOINTS, JOINTS).transpose(0, 2, 1)

    def step(self, smoothness: SmoothSystem | None, damping: float) -> np.ndarray:
        """The step f64 [T,21,3], each frame for itself or tied by smoothness."""
        self._add(Z, Z, self._zz)
        self.gradient[:, Z] += self._z_gradient @ BASIS.T
        self.hessian[:, DIAGONAL, DIAGONAL] += damping
        if smoothness is None:
            for rows, columns in ((X, Y), (X, Z), (Y, Z)):
                self.hessian[:, rows, columns] = self.hessian[:, columns, rows].transpose(0, 2, 1)
            step = -np.linalg.solve(self.hessian, self.gradient[..., None])[..., 0]
        else:
            x, y, z = np.moveaxis(self.joints, -1, 0)
            unknowns = np.concatenate([x, y, z @ BASIS.T], 1)
            step = smoothness.solve(self.hessian, self.gradient + smoothness.gradient(unknowns))
        return np.stack([step[:, X], step[:, Y], step[:, Z] @ BASIS], -1)


def skin_before_joint(joints_T213: np.ndarray, radii_21: np.ndarray) -> np.ndarray:
    """How far the skin seen at a joint's landmark lies before the joint along z, f64 [T,21] metres: its radius where
    palm or bone lie across the view, and more where they are slanted, radius / cosine."""
    joints = joints_T213
    ray = joints / np.linalg.norm(joints, axis=-1, keepdims=True)
    normal = np.cross(joints[:, 5] - joints[:, 17], joints[:, 9] - joints[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
    cosine = np.abs(np.sum(normal[:, None] * ray, -1))
    bone = joints[:, NOT_PALM] - joints[:, PARENTS[NOT_PALM]]
    bone /= np.maximum(np.linalg.norm(bone, axis=-1, keepdims=True), 1e-9)
    along = np.sum(bone * ray[:, NOT_PALM], -1)
    cosine[:, NOT_PALM] = np.sqrt(np.maximum(1 - along**2, 0))
    cosine = np.maximum(cosine, STEEPEST)
    cosine[:, TIPS] = cosine[:, TIPS] ** TIP_TILT
    return radii_21 / cosine
