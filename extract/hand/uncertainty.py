"""How far off the points are, one sigma across and along the viewing ray, as measured against exact simulated truth.

Without a depth sensor the distance rests on an assumed hand size, and no cheap signal tells a good frame from a bad
one; so sigma depends on distance, on the length of filled gaps and on how the camera was calibrated, on nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Noise:
    """One sigma: across_m and along_m in metres, across and along as shares of the distance; added."""

    across_m: float
    across: float
    along_m: float
    along: float


# Set on simulated close-ups with other seeds than those of the coverage in docs/results/hand_lifting.md.
IMAGE_ONLY = Noise(across_m=0.0055, across=0.0, along_m=0.005, along=0.086)
WITH_SENSOR = Noise(across_m=0.0048, across=0.0, along_m=0.0075, along=0.0)
GAP_ACCELERATION = 4.0  # m/s^2, of a hand that nobody looks at


def point_sigma(
    centre_T3: np.ndarray,
    time_T: np.ndarray,
    measured_T: np.ndarray,
    sensed_T: np.ndarray,
    assumed_focal_sigma: float,
) -> np.ndarray:
    """One sigma of a point's position across and along the ray, f32 [T,2] metres.

    centre_T3: the hand's centre, metres, camera frame. sensed_T: bool, the depth sensor saw the hand in this frame.
    assumed_focal_sigma: relative error of the focal length, 0 when it is known. Depth from a hand's size goes with it;
    depth from a sensor does not, but then the distance from the optical axis does.
    """
    distance = np.linalg.norm(centre_T3, axis=-1)
    off_axis = np.linalg.norm(centre_T3[:, :2], axis=-1)
    noise_T4 = np.where(sensed_T[:, None], _row(WITH_SENSOR), _row(IMAGE_ONLY))
    across = noise_T4[:, 0] + noise_T4[:, 1] * distance
    along = noise_T4[:, 2] + noise_T4[:, 3] * distance
    along = np.hypot(along, np.where(sensed_T, 0, assumed_focal_sigma * distance))
    across = np.hypot(across, np.where(sensed_T, assumed_focal_sigma * off_axis, 0))
    # Linear interpolation over a gap misses by at most acceleration x time since x time until / 2.
    since, until = _time_to_measured(time_T, measured_T)
    gap = GAP_ACCELERATION * since * until / 2
    return np.stack([np.hypot(across, gap), np.hypot(along, gap)], -1).astype(np.float32)


def _row(noise: Noise) -> np.ndarray:
    return np.array([noise.across_m, noise.across, noise.along_m, noise.along])


def _time_to_measured(time_T: np.ndarray, measured_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Seconds since the last and until the next measured frame, [T] each; the first and last frame are measured."""
    known = time_T[measured_T]
    before = np.maximum(np.searchsorted(known, time_T, side="right") - 1, 0)
    after = np.minimum(np.searchsorted(known, time_T, side="left"), len(known) - 1)
    return np.maximum(time_T - known[before], 0), np.maximum(known[after] - time_T, 0)
