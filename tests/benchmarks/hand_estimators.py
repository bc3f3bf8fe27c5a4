"""Simpler ways from 21 landmarks to metric 3D, to compare the whole-clip fit with. All work frame by frame.

Each takes one hand's measured frames: landmarks_T212 (pixels), world_T213 (MediaPipe's metres) and the camera, and
gives joints f64 [T,21,3], metres, camera frame.
"""

from __future__ import annotations

import cv2
import numpy as np

from extract.effector import Camera
from extract.hand.fit import FitModel, fit_hand
from extract.hand.observe import HandObservations, depth_of_least_foreshortened_chord
from extract.hand.skeleton import BONE_LENGTHS, BONES, PALM_SIZE, palm_size

PER_FRAME = FitModel(smooth=False, learn_lengths=False)
SMOOTH_ONLY = FitModel(learn_lengths=False)


def placed(observed: HandObservations, depth_T: np.ndarray) -> np.ndarray:
    """MediaPipe's relative depth, set at a depth of the palm, along the landmarks' rays."""
    z = depth_T[:, None] + observed.relative_z_T21
    return np.concatenate([observed.rays_T212 * z[..., None], z[..., None]], -1)


def naive(observed: HandObservations, palm_m: float) -> np.ndarray:
    """Wrist to middle knuckle has its usual length and lies across the view: z = f L / l."""
    bone = int(np.flatnonzero((np.array([0, 9]) == BONES).all(1))[0])
    seen = np.linalg.norm(observed.rays_T212[:, 9] - observed.rays_T212[:, 0], axis=-1)
    return placed(observed, BONE_LENGTHS[bone] * palm_m / PALM_SIZE / seen)


def least_foreshortened(observed: HandObservations, palm_m: float) -> np.ndarray:
    """Depth from the palm chord that is foreshortened least (a2)."""
    return placed(observed, depth_of_least_foreshortened_chord(observed.rays_T212, palm_m))


def perspective_n_point(
    landmarks_T212: np.ndarray, world_T213: np.ndarray, camera: Camera, palm_m: float | None
) -> np.ndarray:
    """SQPNP on the world landmarks as they are, or rescaled in every frame to a constant palm (p0)."""
    joints = np.zeros_like(world_T213)
    for t, (pixels, world) in enumerate(zip(landmarks_T212, world_T213, strict=True)):
        model = world if palm_m is None else world * (palm_m / palm_size(world))
        _, turn, shift = cv2.solvePnP(model, pixels, camera.intrinsics_33, None, flags=cv2.SOLVEPNP_SQPNP)
        joints[t] = model @ cv2.Rodrigues(turn)[0].T + shift.T
    return joints


def template_fit(observed: HandObservations, palm_m: float) -> np.ndarray:
    """Template bones fitted to every frame alone (g4; with sensor depth in the observations: e2)."""
    return fit_hand(observed, palm_m, 0.004, PER_FRAME).joints_T213


def at_median_depth(shape: np.ndarray, *others: np.ndarray) -> np.ndarray:
    """``shape`` moved along its rays to the median mean depth of all estimates (m)."""
    depth = np.median([joints[..., 2].mean(1) for joints in (shape, *others)], axis=0)
    return shape * (depth / shape[..., 2].mean(1))[:, None, None]


def rts_smoothed(joints: np.ndarray, time_T: np.ndarray, sensed: bool) -> np.ndarray:
    """Rauch-Tung-Striebel smoother (1965), constant velocity, on (x/z, y/z, log mean z, z against the mean)."""
    mean = joints[..., 2].mean(1)
    rays = (joints[..., :2] / joints[..., 2:]).reshape(len(joints), -1)
    rays = _rts(rays, time_T, 0.003, 3.0).reshape(*joints.shape[:2], 2)
    log_mean = _rts(np.log(mean)[:, None], time_T, *((0.008, 1.84) if sensed else (0.12, 0.5)))
    against = _rts(joints[..., 2] - mean[:, None], time_T, 0.008, 0.5)
    z = np.exp(log_mean) + against
    return np.concatenate([rays * z[..., None], z[..., None]], -1)


def _rts(values_TD: np.ndarray, time_T: np.ndarray, sigma: float, acceleration: float) -> np.ndarray:
    """Smooths D independent signals that share one covariance. acceleration: white-noise density, unit/s^2 sqrt(s)."""
    count = len(values_TD)
    state = np.stack([values_TD[0], np.zeros_like(values_TD[0])])
    covariance = np.diag([sigma**2, 25.0])
    filtered, predicted, moves = [], [], []
    for t in range(count):
        step = time_T[t] - time_T[t - 1] if t else 0.0
        move = np.array([[1, step], [0, 1]])
        noise = acceleration**2 * np.array([[step**3 / 3, step**2 / 2], [step**2 / 2, step]])
        state, covariance = move @ state, move @ covariance @ move.T + noise
        predicted.append((state, covariance))
        moves.append(move)
        gain = covariance[:, 0] / (covariance[0, 0] + sigma**2)
        state = state + gain[:, None] * (values_TD[t] - state[0])
        covariance = covariance - np.outer(gain, covariance[0])
        filtered.append((state, covariance))
    smoothed = [filtered[-1][0]]
    for t in range(count - 2, -1, -1):
        state, covariance = filtered[t]
        gain = covariance @ moves[t + 1].T @ np.linalg.inv(predicted[t + 1][1])
        smoothed.append(state + gain @ (smoothed[-1] - predicted[t + 1][0]))
    return np.array([state[0] for state in smoothed[::-1]])
