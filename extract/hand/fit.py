"""One hand shape and one smooth motion, fitted to a whole clip at once (bundle adjustment over the hand).

Unknown: the 21 joints X_tk in every frame t (metres, camera frame) and one length l_b per bone b. Minimised, with Huber
weights on all but the last two terms:

    sum_tk |(x/z, y/z)(X_tk) - ray_tk|^2 / s_ray^2            the landmarks in the image
  + sum_tk (z_tk - palm_z_t - relative_z_tk)^2 / s_relative^2  MediaPipe's depth of each joint behind the palm
  + sum_tb (|X_ta - X_tb| - l_b)^2 / s_bone^2                  bones keep their length
  + sum_tk (z_tk - radius_k - surface_z_tk)^2 / s_sensor^2     only with a depth sensor: the skin lies before the joint
  + sum_b (l_b - usual_b)^2 / (s_length usual_b)^2             hands resemble each other
  + integral |acceleration|^2 / s_acceleration^2               hands move smoothly

Solved by damped Gauss-Newton; the Hessian is banded (63 unknowns a frame, tied to two neighbours). The median of the
simpler estimators and smoothing after the fact are compared with it in docs/results/hand_lifting.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from extract.hand.banded import SmoothSystem, acceleration_rows
from extract.hand.observe import HandObservations, depth_of_least_foreshortened_chord
from extract.hand.skeleton import BONE_LENGTHS, BONES, JOINTS, PALM, PALM_SIZE, RADII


@dataclass(frozen=True)
class FitModel:
    """Noise of every term, one sigma. Set on simulated clips with seeds that no published figure uses.

    ray: share of the hand's extent. *_relative_z: metres, from the base to the tip of thumb and fingers. bone: metres.
    length: share of the usual length. acceleration: m/s^2 sqrt(s) for every hand size/s^2 by which the palm is seen to
    accelerate across the image, as hands that are restless there are so in depth too; across the optical axis; _z: in
    depth, of single joints against the hand; _hand_z: in depth, of the hand as a whole. calmest: hand sizes/s^2; calmer
    hands are taken for that restless. smooth, learn_lengths: switches, for comparisons.
    """

    ray: float = 0.02
    wrist_relative_z: float = 0.005
    thumb_relative_z: tuple[float, ...] = (0.006, 0.009, 0.012, 0.014)
    finger_relative_z: tuple[float, ...] = (0.0035, 0.0065, 0.009, 0.011)
    bone: float = 0.003
    length: float = 0.08
    acceleration: float = 0.09
    acceleration_z: float = 0.02
    acceleration_hand_z: float = 0.04
    calmest: float = 4.0
    smooth: bool = True
    learn_lengths: bool = True
    iterations: int = 14

    def relative_z_21(self) -> np.ndarray:
        """One sigma per joint, metres."""
        return np.array([self.wrist_relative_z, *self.thumb_relative_z, *self.finger_relative_z * 4])


@dataclass(frozen=True)
class HandFit:
    """joints_T213: f64 metres, camera frame. bone_lengths: f64 [26] metres, order of skeleton.BONES."""

    joints_T213: np.ndarray
    bone_lengths: np.ndarray


WINDOW, OVERLAP = 240, 40  # frames; bounds memory on long videos


def fit_hand(
    observed: HandObservations, assumed_palm_m: float, sensor_sigma_m: float, model: FitModel | None = None
) -> HandFit:
    """Fits the hand; see the module. Long clips are fitted in overlapping windows that fade into each other."""
    model = model or FitModel()
    frames = len(observed.time_T)
    starts = [0, *range(WINDOW - OVERLAP, frames - OVERLAP, WINDOW - OVERLAP)]
    joints = np.zeros((frames, JOINTS, 3))
    lengths = np.zeros(len(BONES))
    for start in starts:
        stop = min(start + WINDOW, frames)
        part = _fit_window(observed.part(slice(start, stop)), assumed_palm_m, sensor_sigma_m, model)
        weight = np.ones((stop - start, 1, 1))
        if start:
            shared = min(OVERLAP, stop - start)
            weight[:shared, 0, 0] = (np.arange(shared) + 0.5) / shared
        joints[start:stop] = (1 - weight) * joints[start:stop] + weight * part.joints_T213
        lengths += part.bone_lengths * (stop - start)
    total = sum(min(start + WINDOW, frames) - start for start in starts)
    return HandFit(joints, lengths / total)


def _fit_window(observed: HandObservations, assumed_palm_m: float, sensor_sigma_m: float, model: FitModel) -> HandFit:
    usual = BONE_LENGTHS * (assumed_palm_m / PALM_SIZE)
    radii = RADII * (assumed_palm_m / PALM_SIZE)
    lengths = usual.copy()
    joints = _start(observed, assumed_palm_m, radii)
    smoothness = None
    if model.smooth and len(joints) > 2:
        smoothness = SmoothSystem(acceleration_rows(observed.time_T), _motion_precision(observed, model))
    for iteration in range(model.iterations):
        equations = _Equations(joints)
        equations.add_rays(observed, model)
        equations.add_relative_z(observed, model)
        if np.isfinite(observed.surface_z_T21).any():
            equations.add_surface(observed, radii, sensor_sigma_m)
        if model.learn_lengths and iteration >= 3:  # the first steps only bring the start into shape
            lengths = _lengths(joints, usual, observed.measured_T, model)
        equations.add_bones(lengths, model)
        # Damping holds back what the data hardly constrain while the robust weights still change.
        equations.damp(100 * 10 ** (-iteration / 3))
        step = equations.step(smoothness)
        joints = joints + step
        joints[..., 2] = joints[..., 2].clip(0.05, 50)
        if iteration > 5 and np.abs(step).max() < 2e-4:
            break
    return HandFit(joints, lengths)


def _start(observed: HandObservations, assumed_palm_m: float, radii: np.ndarray) -> np.ndarray:
    """Joints from one depth per frame and MediaPipe's relative depth; the sensor's depth where there is one."""
    palm_z = depth_of_least_foreshortened_chord(observed.rays_T212, assumed_palm_m)
    sensed = np.where(np.isfinite(observed.surface_z_T21), observed.surface_z_T21 + radii, np.nan)
    known = np.isfinite(sensed[:, PALM]).sum(1) >= 3
    palm_z[known] = np.nanmedian(sensed[known][:, PALM], axis=1)
    # One bad frame must not start a whole stretch wrong: a running median over 7 frames.
    padded = np.pad(palm_z, 3, mode="edge")
    palm_z = np.median(np.lib.stride_tricks.sliding_window_view(padded, 7), axis=1)
    z = np.maximum(palm_z[:, None] + observed.relative_z_T21, 0.05)
    return np.concatenate([observed.rays_T212 * z[..., None], z[..., None]], -1)


def _motion_precision(observed: HandObservations, model: FitModel) -> np.ndarray:
    """Inverse covariance [63,63] of the joints' accelerations: joints against the hand's mean, and the mean itself."""
    unrest = max(_image_acceleration(observed), model.calmest)
    mean = np.full((JOINTS, JOINTS), 1 / JOINTS)
    single = np.eye(JOINTS) / (model.acceleration * unrest) ** 2
    depth = (np.eye(JOINTS) - mean) / (model.acceleration_z * unrest) ** 2
    depth += mean / JOINTS / (model.acceleration_hand_z * unrest) ** 2
    precision = np.zeros((JOINTS, 3, JOINTS, 3))
    precision[:, 0, :, 0] = precision[:, 1, :, 1] = single
    precision[:, 2, :, 2] = depth
    return precision.reshape(3 * JOINTS, 3 * JOINTS)


def _image_acceleration(observed: HandObservations) -> float:
    """Root mean square acceleration of the palm across the image, hand sizes/s^2, over steps of about 0.12 s: shorter
    ones show the landmarks' noise, longer ones miss how fast hands turn back."""
    time = observed.time_T[observed.measured_T]
    palm = observed.rays_T212[observed.measured_T][:, PALM].mean(1)
    lag = max(1, round(0.12 / float(np.median(np.diff(time))))) if len(time) > 1 else 1
    if len(time) <= 2 * lag:
        return 0.0
    elapsed = time[lag:] - time[:-lag]
    velocity = (palm[lag:] - palm[:-lag]) / elapsed[:, None]
    acceleration = np.linalg.norm(velocity[lag:] - velocity[:-lag], axis=-1) * 2 / (elapsed[lag:] + elapsed[:-lag])
    return float(np.sqrt(np.mean(acceleration**2)) / np.median(observed.extent_T[observed.measured_T]))


def _lengths(joints: np.ndarray, usual: np.ndarray, measured_T: np.ndarray, model: FitModel) -> np.ndarray:
    """Best bone lengths for given joints. A quarter of the frames' weight: errors of neighbouring frames are alike."""
    seen = np.linalg.norm(joints[:, BONES[:, 0]] - joints[:, BONES[:, 1]], axis=-1)[measured_T]
    prior, weight = 1 / (model.length * usual) ** 2, 0.25 / model.bone**2
    return (prior * usual + weight * seen.sum(0)) / (prior + weight * len(seen))


def _huber(error: np.ndarray, sigma: np.ndarray | float, limit: float = 1.5) -> np.ndarray:
    """Weights 1 / sigma^2, falling off beyond ``limit`` sigma (Huber 1964)."""
    ratio = np.abs(error) / sigma
    return np.minimum(1, limit / np.maximum(ratio, 1e-12)) / sigma**2


class _Equations:
    """Normal equations of one Gauss-Newton step around ``joints``: H [T,63,63], g [T,63]."""

    def __init__(self, joints: np.ndarray):
        self.joints = joints
        frames = len(joints)
        self.hessian = np.zeros((frames, JOINTS, 3, JOINTS, 3))
        self.gradient = np.zeros((frames, JOINTS, 3))

    def add_rays(self, observed: HandObservations, model: FitModel) -> None:
        x, y, z = np.moveaxis(self.joints, -1, 0)
        error = self.joints[..., :2] / z[..., None] - observed.rays_T212
        sigma = model.ray * observed.extent_T[:, None]
        weight = _huber(np.linalg.norm(error, axis=-1), sigma) * observed.measured_T[:, None]
        jacobian = np.zeros((*z.shape, 2, 3))
        jacobian[..., 0, 0] = jacobian[..., 1, 1] = 1 / z
        jacobian[..., 0, 2], jacobian[..., 1, 2] = -x / z**2, -y / z**2
        joint = np.arange(JOINTS)
        blocks = np.einsum("tkab,tkac,tk->ktbc", jacobian, jacobian, weight)
        self.hessian[:, joint, :, joint, :] += blocks
        self.gradient += np.einsum("tkab,tka,tk->tkb", jacobian, error, weight)

    def add_relative_z(self, observed: HandObservations, model: FitModel) -> None:
        behind_palm = np.eye(JOINTS)
        behind_palm[:, PALM] -= 1 / len(PALM)
        error = self.joints[..., 2] @ behind_palm.T - observed.relative_z_T21
        weight = _huber(error, model.relative_z_21()) * observed.measured_T[:, None]
        self.hessian[:, :, 2, :, 2] += np.einsum("ka,tk,kb->tab", behind_palm, weight, behind_palm)
        self.gradient[..., 2] += (weight * error) @ behind_palm

    def add_surface(self, observed: HandObservations, radii: np.ndarray, sigma: float) -> None:
        measured = np.isfinite(observed.surface_z_T21)
        error = np.where(measured, self.joints[..., 2] - radii - observed.surface_z_T21, 0)
        # Cauchy: a landmark beside the hand or behind another finger must not count at all.
        weight = measured / (1 + (error / (2 * sigma)) ** 2) / sigma**2
        joint = np.arange(JOINTS)
        self.hessian[:, joint, 2, joint, 2] += weight
        self.gradient[..., 2] += weight * error

    def add_bones(self, lengths: np.ndarray, model: FitModel) -> None:
        a, b = BONES.T
        difference = self.joints[:, a] - self.joints[:, b]
        length = np.linalg.norm(difference, axis=-1)
        direction = difference / np.maximum(length, 1e-9)[..., None]
        error = length - lengths
        weight = _huber(error, model.bone, limit=2.0)
        blocks = np.einsum("tba,tbc,tb->btac", direction, direction, weight)
        pulls = direction * (weight * error)[..., None]
        for bone, (i, j) in enumerate(BONES):
            self.hessian[:, i, :, i] += blocks[bone]
            self.hessian[:, j, :, j] += blocks[bone]
            self.hessian[:, i, :, j] -= blocks[bone]
            self.hessian[:, j, :, i] -= blocks[bone]
            self.gradient[:, i] += pulls[:, bone]
            self.gradient[:, j] -= pulls[:, bone]

    def damp(self, amount: float) -> None:
        joint = np.arange(JOINTS)
        for axis in range(3):
            self.hessian[:, joint, axis, joint, axis] += amount

    def step(self, smoothness: SmoothSystem | None) -> np.ndarray:
        frames = len(self.joints)
        hessian = self.hessian.reshape(frames, 3 * JOINTS, 3 * JOINTS)
        gradient = self.gradient.reshape(frames, 3 * JOINTS)
        if smoothness is None:
            return -np.linalg.solve(hessian, gradient[..., None]).reshape(self.joints.shape)
        gradient = gradient + smoothness.gradient(self.joints.reshape(frames, -1))
        return smoothness.solve(hessian, gradient).reshape(self.joints.shape)
