"""A static camera from points that ride on an effector of known pose: bundle adjustment.

    min  sum_tk rho(|u_tk - project(f, camera_from_base (base_from_effector_t o_k))| / s)
         + sum_k |o_k - c|^2 / size^2 + |c|^2 / reach^2 + (log f - log f0)^2 / spread^2

over the focal length f (square pixels, principal point in the middle), camera_from_base (6), the place o_k of every
tracked point in the effector's frame and their middle c. rho is Geman and McClure's: what does not move with the
effector, or moves its jaws, counts for nothing. An effector that never turns leaves c undetermined; the prior then puts
it at the recorded pose, and nothing in the camera's frame depends on it. Normal equations by the Schur complement over
the points (Triggs et al., 2000), damped after Levenberg and Marquardt.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

SHARED = 10  # log f, rotation (3), translation (3), middle of the points (3)
ROUNDS = 60


@dataclass(frozen=True)
class Sights:
    """M measured image points. pixels_M2: f64, relative to the picture's middle, pixels. pose_M, track_M: int, sorted
    by track. poses: f64 [P,4,4] base_from_effector, metres. tracks: K. sharp_K22: f64, how sharply a point is located
    in every direction: residuals are multiplied by it; 1 across an edge, less along it.
    """

    pixels_M2: np.ndarray
    pose_M: np.ndarray
    track_M: np.ndarray
    poses: np.ndarray
    tracks: int
    sharp_K22: np.ndarray

    def of_tracks(self, which_K: np.ndarray) -> Sights:
        """Only those of some tracks (bool [K]), which are renumbered."""
        keep = which_K[self.track_M]
        number = np.cumsum(which_K) - 1
        return replace(
            self,
            pixels_M2=self.pixels_M2[keep],
            pose_M=self.pose_M[keep],
            track_M=number[self.track_M[keep]],
            tracks=int(which_K.sum()),
            sharp_K22=self.sharp_K22[which_K],
        )


@dataclass(frozen=True)
class Priors:
    """focal: pixels, focal_spread: of its logarithm. size, reach: metres (see above). noise: pixels, s above."""

    focal: float
    focal_spread: float
    size: float
    reach: float
    noise: float


@dataclass(frozen=True)
class Rig:
    """What the adjustment finds. focal: pixels. camera_from_base: f64 [4,4]. offsets_K3, middle_3: metres."""

    focal: float
    camera_from_base: np.ndarray
    offsets_K3: np.ndarray
    middle_3: np.ndarray

    def in_camera(self, poses: np.ndarray, offsets_3: np.ndarray) -> np.ndarray:
        """[..., 4, 4] poses and matching [..., 3] offsets -> [..., 3] metres in the camera frame."""
        base = (poses[..., :3, :3] @ offsets_3[..., None])[..., 0] + poses[..., :3, 3]
        return base @ self.camera_from_base[:3, :3].T + self.camera_from_base[:3, 3]

    def residuals(self, sights: Sights) -> np.ndarray:
        """f64 [M,2] pixels, measured minus expected; far away for what lies behind the camera."""
        points = self.in_camera(sights.poses[sights.pose_M], self.offsets_K3[sights.track_M])
        ahead = points[:, 2:] > 1e-3
        expected = self.focal * points[:, :2] / np.where(ahead, points[:, 2:], 1)
        return np.where(ahead, sights.pixels_M2 - expected, 1e4)

    def weighed(self, sights: Sights) -> np.ndarray:
        """f64 [M,2]: the residuals where they are sharp, less along edges."""
        return (sights.sharp_K22[sights.track_M] @ self.residuals(sights)[..., None])[..., 0]


@dataclass(frozen=True)
class Normal:
    """Normal equations at a rig: shared [10,10], own of every track [K,3,3], coupling [K,10,3], right-hand sides."""

    shared: np.ndarray
    own: np.ndarray
    coupling: np.ndarray
    shared_right: np.ndarray
    own_right: np.ndarray

    def solve(self, damping: float) -> tuple[np.ndarray, np.ndarray]:
        """Steps [10] and [K,3]."""
        own = self.own + damping * np.einsum("kii->ki", self.own)[:, :, None] * np.eye(3)
        shared = self.shared + damping * np.diag(np.diag(self.shared))
        inverse = np.linalg.inv(own)
        gain = self.coupling @ inverse
        reduced = shared - (gain @ self.coupling.transpose(0, 2, 1)).sum(0)
        right = self.shared_right - (gain @ self.own_right[..., None]).sum(0)[:, 0]
        step = np.linalg.solve(reduced, right)
        left = self.own_right - self.coupling.transpose(0, 2, 1) @ step
        return step, (inverse @ left[..., None])[..., 0]

    def covariance(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of the shared parameters [10,10], with the points' [K,10,3], of the points [K,3,3]."""
        inverse = np.linalg.inv(self.own)
        gain = np.einsum("kai,kij->kaj", self.coupling, inverse)
        reduced = self.shared - np.einsum("kai,kbi->ab", gain, self.coupling)
        shared = np.linalg.inv(reduced)
        cross = -np.einsum("ab,kbi->kai", shared, gain)
        own = inverse + np.einsum("kai,ab,kbj->kij", gain, shared, gain)
        return shared, cross, own


def robust_cost(squared_M: np.ndarray) -> np.ndarray:
    """Geman-McClure cost of squared residuals in units of the noise: at most 1."""
    return squared_M / (1 + squared_M)


def adjust(sights: Sights, rig: Rig, priors: Priors, rounds: int = ROUNDS) -> tuple[Rig, float]:
    """The rig nearest to ``rig`` that minimises the cost above, and the cost."""
    damping, cost = 1e-3, _cost(sights, rig, priors)
    for _ in range(rounds):
        equations = normal_equations(sights, rig, priors)
        for _ in range(6):
            try:
                candidate = _moved(rig, *equations.solve(damping))
            except np.linalg.LinAlgError:
                damping *= 10
                continue
            new = _cost(sights, candidate, priors)
            if new < cost:
                break
            damping *= 6
        else:
            return rig, cost
        gained = cost - new
        rig, cost, damping = candidate, new, max(damping / 8, 1e-9)
        if gained < 1e-6 * cost:
            break
    return rig, cost


def normal_equations(sights: Sights, rig: Rig, priors: Priors) -> Normal:
    """Gauss-Newton equations with robust weights, in units of one sigma of the noise."""
    poses = sights.poses[sights.pose_M]
    base = np.einsum("mij,mj->mi", poses[:, :3, :3], rig.offsets_K3[sights.track_M]) + poses[:, :3, 3]
    rotation = rig.camera_from_base[:3, :3]
    turned = base @ rotation.T
    points = turned + rig.camera_from_base[:3, 3]
    z = np.maximum(points[:, 2], 1e-2)
    by_point = np.zeros((len(z), 2, 3))
    by_point[:, 0, 0] = by_point[:, 1, 1] = rig.focal / z
    by_point[:, :, 2] = -rig.focal * points[:, :2] / z[:, None] ** 2
    jacobian = np.zeros((len(z), 2, SHARED))
    jacobian[:, :, 0] = rig.focal * points[:, :2] / z[:, None]
    jacobian[:, :, 1:4] = -by_point @ _cross_matrix(turned)
    jacobian[:, :, 4:7] = by_point
    own = by_point @ (rotation @ poses[:, :3, :3])
    residual = rig.weighed(sights) / priors.noise
    weight = 1 / (1 + (residual**2).sum(1)) ** 2
    sharp = sights.sharp_K22[sights.track_M] / priors.noise
    jacobian, own = sharp @ jacobian, sharp @ own

    heads = np.searchsorted(sights.track_M, np.arange(sights.tracks))
    weighted = own * weight[:, None, None]
    own_block = np.add.reduceat(weighted.transpose(0, 2, 1) @ own, heads)
    own_right = np.add.reduceat(np.einsum("mai,ma->mi", weighted, residual), heads)
    coupling = np.add.reduceat(jacobian.transpose(0, 2, 1) @ weighted, heads)
    # Long sums without BLAS, whose order of adding depends on the number of threads.
    shared = np.einsum("mas,mat->st", jacobian * weight[:, None, None], jacobian)
    right = np.einsum("mas,ma->s", jacobian, residual * weight[:, None])

    size, reach, spread = priors.size**-2, priors.reach**-2, priors.focal_spread**-2
    from_middle = rig.offsets_K3 - rig.middle_3
    own_block += size * np.eye(3)
    own_right -= size * from_middle
    coupling[:, 7:] -= size * np.eye(3)
    shared[7:, 7:] += (size * sights.tracks + reach) * np.eye(3)
    right[7:] += size * from_middle.sum(0) - reach * rig.middle_3
    shared[0, 0] += spread
    right[0] -= spread * np.log(rig.focal / priors.focal)
    return Normal(shared, own_block, coupling, right, own_right)


def offset_equations(sights: Sights, rig: Rig, priors: Priors) -> tuple[np.ndarray, np.ndarray]:
    """The points' own blocks of ``normal_equations`` alone: [K,3,3] and [K,3]."""
    poses = sights.poses[sights.pose_M]
    points = rig.in_camera(poses, rig.offsets_K3[sights.track_M])
    x, y, z = points[:, 0], points[:, 1], np.maximum(points[:, 2], 1e-2)
    sharp = sights.sharp_K22[sights.track_M] / priors.noise
    residual = (sharp @ (sights.pixels_M2 - rig.focal * points[:, :2] / z[:, None])[..., None])[..., 0]
    weight = 1 / (1 + (residual**2).sum(1)) ** 2
    turn = rig.camera_from_base[:3, :3] @ poses[:, :3, :3]
    scale = (rig.focal / z)[:, None]
    first, second = (
        scale * (turn[:, 0] - (x / z)[:, None] * turn[:, 2]),
        scale * (turn[:, 1] - (y / z)[:, None] * turn[:, 2]),
    )
    first, second = (
        sharp[:, 0, :1] * first + sharp[:, 0, 1:] * second,
        sharp[:, 1, :1] * first + sharp[:, 1, 1:] * second,
    )
    heads = np.searchsorted(sights.track_M, np.arange(sights.tracks))
    products = first[:, :, None] * first[:, None] + second[:, :, None] * second[:, None]
    left = np.add.reduceat(weight[:, None, None] * products, heads)
    right = np.add.reduceat(weight[:, None] * (first * residual[:, :1] + second * residual[:, 1:]), heads)
    left += priors.size**-2 * np.eye(3)
    right -= priors.size**-2 * (rig.offsets_K3 - rig.middle_3)
    return left, right


def _cost(sights: Sights, rig: Rig, priors: Priors) -> float:
    squared = (rig.weighed(sights) ** 2).sum(1) / priors.noise**2
    total = robust_cost(squared).sum()
    total += ((rig.offsets_K3 - rig.middle_3) ** 2).sum() / priors.size**2
    total += (rig.middle_3**2).sum() / priors.reach**2 + (np.log(rig.focal / priors.focal) / priors.focal_spread) ** 2
    return float(total)


def _moved(rig: Rig, step: np.ndarray, own_step: np.ndarray) -> Rig:
    pose = rig.camera_from_base.copy()
    pose[:3, :3] = rotation_matrix(step[1:4]) @ pose[:3, :3]
    pose[:3, 3] += step[4:7]
    focal = rig.focal * float(np.exp(np.clip(step[0], -0.5, 0.5)))
    return Rig(focal, pose, rig.offsets_K3 + own_step, rig.middle_3 + step[7:])


def rotation_matrix(vector_3: np.ndarray) -> np.ndarray:
    """Rotation vectors [..., 3], radians -> matrices [..., 3, 3] (Rodrigues)."""
    angle = np.linalg.norm(vector_3, axis=-1)[..., None, None]
    cross = _cross_matrix(vector_3)
    small = angle < 1e-8
    safe = np.where(small, 1.0, angle)
    first, second = np.where(small, 1.0, np.sin(safe) / safe), np.where(small, 0.5, (1 - np.cos(safe)) / safe**2)
    return np.eye(3) + first * cross + second * (cross @ cross)


def _cross_matrix(vector_3: np.ndarray) -> np.ndarray:
    """[..., 3] v -> [..., 3, 3] with (matrix @ w) = v x w."""
    matrix = np.zeros((*vector_3.shape[:-1], 3, 3))
    x, y, z = vector_3[..., 0], vector_3[..., 1], vector_3[..., 2]
    matrix[..., 0, 1], matrix[..., 0, 2], matrix[..., 1, 2] = -z, y, -x
    matrix[..., 1, 0], matrix[..., 2, 0], matrix[..., 2, 1] = z, -y, x
    return matrix
