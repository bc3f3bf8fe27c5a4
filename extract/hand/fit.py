"""One hand shape and one smooth motion, fitted to a whole clip at once (bundle adjustment over the hand).

Unknown: the 21 joints X_tk in every frame t (metres, camera frame), one length l_b per bone b, one size s of the hand
against the assumed one. Minimised, with robust weights on all terms of the data:

    sum_tk |(x/z, y/z)(X_tk) - ray_tk|^2 / s_ray^2             the landmarks in the image
  + sum_tk (z_tk - palm_z_t - relative_z_tk)^2 / s_relative^2   the detector's depth of each joint behind the palm
  + sum_tb (|X_ta - X_tb| - l_b)^2 / s_bone^2                   bones keep their length
  + sum_tk (z_tk - skin_k - surface_z_tk)^2 / s_sensor^2        only with a depth sensor: the skin lies before the joint
  + sum_t (palm_z_t - palm_distance_t)^2 / s_distance^2         only without one: other estimates of the distance
  + sum_b (l_b - s usual_b)^2 / (s_length usual_b)^2 + (s - 1)^2 / s_size^2    hands resemble each other
  + integral |acceleration|^2 / s_acceleration^2                hands move smoothly

With patches of depth around the hand, the fit is then repeated with the terms of its whole skin (skin_fit.py), from
where thumb and index finger were found (fingers.py).

Solved by damped Gauss-Newton, first for each frame alone, then together with smoothness; see equations.py. Simpler
estimators are compared with it in docs/results/hand_lifting.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from extract.hand.banded import SmoothSystem, acceleration_rows
from extract.hand.equations import Equations
from extract.hand.observe import HandObservations
from extract.hand.skeleton import BONE_LENGTHS, BONES, JOINTS, LANDMARK_SPAN, PALM, PALM_SIZE, RADII
from extract.hand.skin_fit import SkinView, add_skin


@dataclass(frozen=True)
class FitModel:
    """Noise of every term, one sigma. Set on simulated clips with seeds that no published figure uses.

    ray: share of the hand's extent. *_relative_z: metres, from the
    base to the tip of thumb and fingers. sensed_relative_z: how much less they count at joints that a sensor measured.
    bone: metres. length: of single bones, size: of the whole hand, shares of what is usual. distance: share, of the
    palm's distance without a sensor. acceleration: m/s^2 sqrt(s) for every hand size/s^2 by which the palm is seen to
    accelerate across the image, as hands that are restless there are so in depth too; across the optical axis; _z: in
    depth, of single joints against the hand; _hand_z: in depth, of the hand as a whole. calmest: hand sizes/s^2; calmer
    hands are taken for that restless. smooth, learn_lengths: switches, for comparisons.
    """

    ray: float = 0.023
    wrist_ray: float = 0.023
    wrist_relative_z: float = 0.006
    thumb_relative_z: tuple[float, ...] = (0.006, 0.009, 0.012, 0.014)
    finger_relative_z: tuple[float, ...] = (0.002, 0.0036, 0.005, 0.006)
    sensed_relative_z: float = 7.0
    bone: float = 0.003
    length: float = 0.15
    size: float = 0.08
    distance: float = 0.033
    acceleration: float = 0.09
    acceleration_z: float = 0.005
    acceleration_hand_z: float = 0.027
    calmest: float = 4.9
    smooth: bool = True
    learn_lengths: bool = True
    frame_steps: int = 5
    clip_steps: int = 6

    def relative_z_21(self) -> np.ndarray:
        """One sigma per joint, metres."""
        return np.array([self.wrist_relative_z, *self.thumb_relative_z, *self.finger_relative_z * 4])

    def ray_21(self) -> np.ndarray:
        """One sigma per joint, share of the hand's extent."""
        return np.array([self.wrist_ray] + [self.ray] * (JOINTS - 1))


IMAGE_ONLY = FitModel()
WITH_SENSOR = FitModel(
    ray=0.02,
    wrist_ray=0.026,
    wrist_relative_z=0.005,
    finger_relative_z=(0.0035, 0.0065, 0.009, 0.011),
    bone=0.0037,
    length=0.045,
    size=0.05,
    acceleration=0.037,
    acceleration_z=0.013,
    acceleration_hand_z=0.025,
    calmest=4.0,
)


@dataclass(frozen=True)
class HandFit:
    """joints_T213: f64 metres, camera frame. raw_joints_T213: the same without smoothness over time, each frame for
    itself with the clip's bones. bone_lengths: f64 [26] metres, order of skeleton.BONES. size: of the hand, 1 = as
    assumed."""

    joints_T213: np.ndarray
    raw_joints_T213: np.ndarray
    bone_lengths: np.ndarray
    size: float


WINDOW, OVERLAP = 240, 40  # frames; bounds memory on long videos
FRAME_DAMPING = 100.0  # 1/m^2
RAW_STEPS = 3


def fit_hand(
    observed: HandObservations,
    assumed_palm_m: float,
    sensor_sigma_m: float,
    model: FitModel | None = None,
    skin: SkinView | None = None,
) -> HandFit:
    """Fits the hand; see the module. Long clips are fitted in overlapping windows that fade into each other.

    model: by default the one for clips with a depth sensor, or without. skin: the whole of the hand's surface that the
    sensor saw, see skin_fit.py.
    """
    if model is None:
        model = WITH_SENSOR if observed.sensed else IMAGE_ONLY
    frames = len(observed.time_T)
    starts = [0, *range(WINDOW - OVERLAP, frames - OVERLAP, WINDOW - OVERLAP)]
    joints, raw = np.zeros((frames, JOINTS, 3)), np.zeros((frames, JOINTS, 3))
    lengths, size = np.zeros(len(BONES)), 0.0
    for start in starts:
        stop = min(start + WINDOW, frames)
        seen = None if skin is None else skin.part(slice(start, stop))
        part = _Fit(observed.part(slice(start, stop)), assumed_palm_m, sensor_sigma_m, model, seen).solved()
        weight = np.ones((stop - start, 1, 1))
        if start:
            shared = min(OVERLAP, stop - start)
            weight[:shared, 0, 0] = (np.arange(shared) + 0.5) / shared
        joints[start:stop] = (1 - weight) * joints[start:stop] + weight * part.joints_T213
        raw[start:stop] = (1 - weight) * raw[start:stop] + weight * part.raw_joints_T213
        lengths += part.bone_lengths * (stop - start)
        size += part.size * (stop - start)
    total = sum(min(start + WINDOW, frames) - start for start in starts)
    return HandFit(joints, raw, lengths / total, size / total)


class _Fit:
    """One window."""

    def __init__(
        self,
        observed: HandObservations,
        assumed_palm_m: float,
        sensor_sigma_m: float,
        model: FitModel,
        skin: SkinView | None,
    ):
        self.observed, self.model, self.sensor_sigma, self.skin = observed, model, sensor_sigma_m, skin
        self.usual = BONE_LENGTHS * (assumed_palm_m * LANDMARK_SPAN / PALM_SIZE)
        self.radii = RADII * (assumed_palm_m / PALM_SIZE)
        self.lengths, self.size = self.usual.copy(), 1.0
        self.joints = self._start() if skin is None else skin.joints_T213

    def solved(self) -> HandFit:
        model, smoothness = self.model, None
        if model.smooth and len(self.joints) > 2:
            precision = _motion_precision(self.observed, model)
            smoothness = SmoothSystem(acceleration_rows(self.observed.time_T), precision)
        for number in range(model.frame_steps + model.clip_steps):
            together = number >= model.frame_steps
            if model.learn_lengths and number >= 2:  # the first steps only bring the start into shape
                self._learn_lengths()
            # Damping holds back what the data hardly constrain while the robust weights still change.
            moved = self._step(smoothness if together else None, FRAME_DAMPING * 10 ** (-number / 2))
            if number > model.frame_steps and moved < 5e-4:
                break
        smooth = self.joints
        if smoothness is not None:
            for _ in range(RAW_STEPS):
                self._step(None, FRAME_DAMPING)
        return HandFit(smooth, self.joints, self.lengths, self.size)

    def _start(self) -> np.ndarray:
        """Joints from one depth per frame and the detector's relative depth; the sensor's depth where there is one."""
        observed = self.observed
        palm_z = observed.palm_distance_T.copy()
        sensed = np.where(np.isfinite(observed.surface_z_T21), observed.surface_z_T21 + self.radii, np.nan)
        known = np.isfinite(sensed[:, PALM]).sum(1) >= 3
        palm_z[known] = np.nanmedian(sensed[known][:, PALM], axis=1)
        # One bad frame must not start a whole stretch wrong: a running median over 7 frames.
        padded = np.pad(palm_z, 3, mode="edge")
        palm_z = np.median(np.lib.stride_tricks.sliding_window_view(padded, 7), axis=1)
        z = np.maximum(palm_z[:, None] + observed.behind_palm(palm_z), 0.05)
        return np.concatenate([observed.rays_T212 * z[..., None], z[..., None]], -1)

    def _step(self, smoothness: SmoothSystem | None, damping: float) -> float:
        """One Gauss-Newton step; how far the joint went that went furthest, metres."""
        observed, model = self.observed, self.model
        equations = Equations(self.joints)
        doubt = 1.0 if self.skin is None else self.skin.doubt_T21
        equations.add_rays(observed.rays_T212, doubt * model.ray_21() * observed.extent_T[:, None], observed.measured_T)
        target = observed.behind_palm(self.joints[:, PALM, 2].mean(1))
        sensed = np.isfinite(observed.surface_z_T21)
        loosened = np.where(sensed, model.sensed_relative_z, doubt)
        equations.add_relative_z(target, model.relative_z_21() * loosened, observed.measured_T)
        if sensed.any():
            equations.add_surface(observed.surface_z_T21, self.radii * self.size, self.sensor_sigma)
        else:
            equations.add_distance(observed.palm_distance_T, model.distance, observed.measured_T)
        equations.add_bones(self.lengths, model.bone)
        if self.skin is not None:
            add_skin(equations, self.skin, self.radii * self.size)
        step = equations.step(smoothness, damping)
        self.joints = self.joints + step
        self.joints[..., 2] = self.joints[..., 2].clip(0.05, 50)
        return float(np.abs(step).max())

    def _learn_lengths(self) -> None:
        """Best bone lengths for given joints: a Gaussian prior of one common size and of single bones, updated by the
        mean of what is seen. A tenth of the frames' weight: errors of neighbouring frames are alike."""
        model, usual = self.model, self.usual
        ends = self.joints[self.observed.measured_T][:, BONES.T]
        seen = np.linalg.norm(ends[:, 0] - ends[:, 1], axis=-1)
        prior = model.size**2 * np.outer(usual, usual) + np.diag((model.length * usual) ** 2)
        noise = model.bone**2 / (0.1 * len(seen)) * np.eye(len(usual))
        self.lengths = usual + prior @ np.linalg.solve(prior + noise, seen.mean(0) - usual)
        single = np.sum(self.lengths / usual - 1)
        self.size = 1 + single / (len(usual) + model.length**2 / model.size**2)


def _motion_precision(observed: HandObservations, model: FitModel) -> np.ndarray:
    """Inverse variance [63] of the accelerations of Equations' unknowns: across twice, then the hand's mean depth and
    the joints' depths against it."""
    unrest = max(_image_acceleration(observed), model.calmest)
    across = np.full(2 * JOINTS, 1 / (model.acceleration * unrest) ** 2)
    together = 1 / JOINTS / (model.acceleration_hand_z * unrest) ** 2
    single = np.full(JOINTS - 1, 1 / (model.acceleration_z * unrest) ** 2)
    return np.concatenate([across, [together], single])


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
