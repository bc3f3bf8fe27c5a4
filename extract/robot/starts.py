"""First guesses of the camera: every long track is asked from which cameras the recorded path would look like it.

One track in one frame after the other is the image of the recorded path, up to a constant offset: seven unknowns
(focal length and camera pose). Damped Gauss-Newton from many orientations at once, for many tracks at once; a guess is
then judged by how much of all that moves in the picture it explains.
"""

from __future__ import annotations

import itertools

import numpy as np

from extract.robot.bundle import Priors, Rig, Sights, offset_equations, rotation_matrix

SEEDS = 24  # tracks that are asked
ROUNDS = 14
KEPT = 40  # guesses that are judged


def seed_tracks(sights: Sights, travel_K: np.ndarray, count: int = SEEDS) -> list[int]:
    """Long tracks that travel far, at most ``count``."""
    length = np.bincount(sights.track_M, minlength=sights.tracks)
    return list(np.argsort(-(length * np.minimum(travel_K, np.quantile(travel_K, 0.9))), kind="stable")[:count])


def camera_guesses(sights: Sights, seeds: list[int], priors: Priors) -> list[Rig]:
    """At most ``KEPT`` cameras (without offsets) that explain one of the seed tracks each, best first."""
    rotations = _orientations()
    longest = max(int((sights.track_M == seed).sum()) for seed in seeds)
    pixels = np.zeros((len(seeds), longest, 2))
    path = np.zeros((len(seeds), longest, 3))
    weight = np.zeros((len(seeds), longest))
    for row, seed in enumerate(seeds):
        own = sights.track_M == seed
        count = int(own.sum())
        pixels[row, :count] = sights.pixels_M2[own]
        path[row, :count] = sights.poses[sights.pose_M[own], :3, 3]
        weight[row, :count] = 1
    count = len(rotations)
    pixels, path, weight = (np.repeat(array, count, 0) for array in (pixels, path, weight))
    turn = np.tile(rotations, (len(seeds), 1, 1))
    focal, turn, shift, cost = _refine(pixels, path, weight, turn, priors)
    chosen: list[Rig] = []
    per_seed = np.zeros(len(seeds), int)
    for number in np.argsort(cost, kind="stable"):
        row = int(number) // count
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = turn[number], shift[number]
        if per_seed[row] >= 4 or any(_alike(pose, float(focal[number]), other) for other in chosen):
            continue
        per_seed[row] += 1
        chosen.append(Rig(float(focal[number]), pose, np.zeros((0, 3)), np.zeros(3)))
        if len(chosen) == KEPT:
            break
    return chosen


def place_tracks(sights: Sights, rig: Rig, priors: Priors, rounds: int = 4) -> Rig:
    """The rig with the offset of every track that explains it best, the camera left as it is."""
    counts = np.bincount(sights.track_M, minlength=sights.tracks)
    heads = np.searchsorted(sights.track_M, np.arange(sights.tracks))
    middle = heads + counts // 2
    poses = sights.poses[sights.pose_M[middle]]
    camera = rig.camera_from_base
    depth = np.maximum((poses[:, :3, 3] @ camera[:3, :3].T + camera[:3, 3])[:, 2], 0.05)
    rays = np.concatenate([sights.pixels_M2[middle] / rig.focal, np.ones((sights.tracks, 1))], 1)
    base = (rays * depth[:, None] - camera[:3, 3]) @ camera[:3, :3]
    offsets = np.einsum("kji,kj->ki", poses[:, :3, :3], base - poses[:, :3, 3])
    placed = Rig(rig.focal, camera, offsets, rig.middle_3)
    for _ in range(rounds):
        left, right = offset_equations(sights, placed, priors)
        step = np.linalg.solve(left, right[..., None])[..., 0]
        length = np.linalg.norm(step, axis=1, keepdims=True)
        placed = Rig(rig.focal, camera, placed.offsets_K3 + step * np.minimum(1, 0.1 / (length + 1e-12)), rig.middle_3)
    return placed


def _alike(pose: np.ndarray, focal: float, other: Rig) -> bool:
    turned = np.trace(pose[:3, :3].T @ other.camera_from_base[:3, :3])
    shifted = np.linalg.norm(pose[:3, 3] - other.camera_from_base[:3, 3])
    return turned > 2.99 and abs(np.log(focal / other.focal)) < 0.1 and float(shifted) < 0.03


def _orientations() -> np.ndarray:
    """f64 [24,3,3]: the turns that bring a cube onto itself, then tilted so that no axis of the base is special."""
    turns = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            matrix = np.zeros((3, 3))
            matrix[range(3), order] = signs
            if np.linalg.det(matrix) > 0:
                turns.append(matrix)
    return np.stack(turns) @ rotation_matrix(np.array([0.3, 0.2, 0.1]))


def _refine(
    pixels_BM2: np.ndarray, path_BM3: np.ndarray, weight_BM: np.ndarray, turn_B33: np.ndarray, priors: Priors
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Focal [B], rotation [B,3,3], translation [B,3] of camera_from_base, and the mean squared residual [B]."""
    mass = weight_BM.sum(1)
    centre = (path_BM3 * weight_BM[..., None]).sum(1) / mass[:, None]
    middle = (pixels_BM2 * weight_BM[..., None]).sum(1) / mass[:, None]
    moves = (path_BM3 - centre[:, None]) * weight_BM[..., None]
    seen = (pixels_BM2 - middle[:, None]) * weight_BM[..., None]
    focal = np.full(len(mass), priors.focal)
    across = np.sqrt((moves**2).sum((1, 2)) * 2 / 3)
    depth = np.clip(focal * across / np.sqrt((seen**2).sum((1, 2)) + 1e-9), 0.2, 5)
    aim = np.concatenate([middle / focal[:, None], np.ones((len(mass), 1))], 1) * depth[:, None]
    shift = aim - np.einsum("bij,bj->bi", turn_B33, centre)
    damping = np.full(len(mass), 1e-2)
    cost = _mean_squared(pixels_BM2, path_BM3, weight_BM, focal, turn_B33, shift, priors)
    for _ in range(ROUNDS):
        turned = path_BM3 @ np.swapaxes(turn_B33, 1, 2)
        points = turned + shift[:, None]
        z = np.maximum(points[..., 2], 0.02)
        by_point = np.zeros((*z.shape, 2, 3))
        by_point[..., 0, 0] = by_point[..., 1, 1] = focal[:, None] / z
        by_point[..., :, 2] = -focal[:, None, None] * points[..., :2] / z[..., None] ** 2
        jacobian = np.zeros((*z.shape, 2, 7))
        jacobian[..., 0] = focal[:, None, None] * points[..., :2] / z[..., None]
        for axis in range(3):  # d(w x y)/dw_axis = e_axis x y
            jacobian[..., 1 + axis] = np.einsum("bmij,bmj->bmi", by_point, np.cross(np.eye(3)[axis], turned))
        jacobian[..., 4:7] = by_point
        residual = pixels_BM2 - focal[:, None, None] * points[..., :2] / z[..., None]
        weighted = jacobian * weight_BM[..., None, None] / priors.noise**2
        flat = weighted.reshape(len(mass), -1, 7)
        normal = np.swapaxes(flat, 1, 2) @ jacobian.reshape(len(mass), -1, 7)
        right = np.einsum("bmi,bm->bi", flat, residual.reshape(len(mass), -1))
        normal[:, 0, 0] += priors.focal_spread**-2
        right[:, 0] -= np.log(focal / priors.focal) * priors.focal_spread**-2
        normal += (damping[:, None] * np.einsum("bii->bi", normal) + 1e-9)[:, :, None] * np.eye(7)
        step = np.linalg.solve(normal, right[..., None])[..., 0]
        step[:, 1:4] *= np.minimum(1, 0.5 / (np.linalg.norm(step[:, 1:4], axis=1, keepdims=True) + 1e-12))
        new_focal = focal * np.exp(np.clip(step[:, 0], -0.3, 0.3))
        new_turn = rotation_matrix(step[:, 1:4]) @ turn_B33
        new_shift = shift + step[:, 4:7]
        new_cost = _mean_squared(pixels_BM2, path_BM3, weight_BM, new_focal, new_turn, new_shift, priors)
        better = new_cost < cost
        focal, cost = np.where(better, new_focal, focal), np.where(better, new_cost, cost)
        turn_B33 = np.where(better[:, None, None], new_turn, turn_B33)
        shift = np.where(better[:, None], new_shift, shift)
        damping = np.where(better, damping / 5, damping * 6)
    return focal, turn_B33, shift, cost


def _mean_squared(
    pixels: np.ndarray,
    path: np.ndarray,
    weight: np.ndarray,
    focal: np.ndarray,
    turn: np.ndarray,
    shift: np.ndarray,
    priors: Priors,
) -> np.ndarray:
    points = path @ np.swapaxes(turn, 1, 2) + shift[:, None]
    ahead = points[..., 2] > 0.02
    expected = focal[:, None, None] * points[..., :2] / np.where(ahead, points[..., 2], 1)[..., None]
    squared = np.where(ahead, ((pixels - expected) ** 2).sum(-1), 1e8) * weight
    prior = (np.log(focal / priors.focal) / priors.focal_spread) ** 2
    return (squared.sum(1) / priors.noise**2 + prior) / weight.sum(1)
