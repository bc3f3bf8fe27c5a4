"""How far off the points are: one sigma across and along the viewing ray, for every frame.

Sigma is the exponential of a weighted sum of what is known about a frame: how well landmarks, depth and the estimates
of distance agree with the fit and with each other. The weights were fitted to the errors of simulated hands (Student-t
likelihood, tests/benchmarks/hand_sigma.py), with seeds that no published figure uses. What no frame shows is added in
quadrature: a hand that is larger or smaller than assumed, an unknown focal length, time without a measurement.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from extract.hand.equations import skin_before_joint
from extract.hand.observe import HandObservations, palm_distances
from extract.hand.skeleton import PALM, PALM_SIZE, RADII

ROOM = 1.5  # times a clip's usual sigma, see smoothed_away
SHRINKING, USUAL_MISFIT, MISFITS = 0.09, -0.75, (-0.4, 1.7)  # see shrinkage
SHRINKING_S = 0.5  # one sigma of the time over which shrinkage is averaged, seconds
GAP_ACCELERATION = 4.0  # m/s^2, of a hand that nobody looks at


@dataclass(frozen=True)
class Assumptions:
    """Relative one-sigma errors of what was assumed, 0 = known. focal: of the focal length; depth from a hand's size
    goes with it; depth from a sensor does not, but then the distance from the optical axis does. palm: of the hand's
    size."""

    focal: float = 0.0
    palm: float = 0.0


@dataclass(frozen=True)
class Weights:
    """Of the columns of ``doubts``, with a constant first. along: of metres, or of shares of the distance."""

    across: tuple[float, ...]
    along: tuple[float, ...]


IMAGE_ONLY = Weights(across=(-4.78, 0.73, 0.02, 0.51, 0.84, 0.0, 0.0), along=(-2.5, 0.38, 0.0, 0.73, 0.73, 0.0, 0.0))
WITH_SENSOR = Weights(
    across=(-5.42, 0.28, 0.14, 0.38, 0.18, 0.25, 0.69), along=(-5.23, 0.19, 0.12, 0.55, 0.39, 0.52, 0.97)
)

WITH_SKIN = Weights(  # of hands that were fitted to their whole skin
    across=(-5.95, 0.28, 0.26, 0.78, 0.37, 0.17, 0.41), along=(-6.26, 0.16, 0.35, 1.39, 0.83, 0.55, 0.44)
)


def doubts(observed: HandObservations, joints_T213: np.ndarray, palm_m: float) -> np.ndarray:
    """What speaks against a frame, f64 [T,6], none with a unit; typical values are near 0.

    Log misfit of the landmarks (of 3 mm); log misfit of the detector's relative depth (of 6 mm); disagreement of two
    estimates of the palm's distance (difference of logs); that of their mean and the fit; log misfit of the sensor's
    depth (of 6 mm; 0 without sensor); share of landmarks that the sensor did not measure (0 without sensor).
    """
    palm_z = joints_T213[:, PALM, 2].mean(1)
    ray = joints_T213[..., :2] / joints_T213[..., 2:]
    misfit = np.linalg.norm(ray - observed.rays_T212, axis=-1).mean(1) * palm_z
    behind = joints_T213[..., 2] - palm_z[:, None]
    relative = np.abs(behind - observed.behind_palm(palm_z)).mean(1)
    chord, slanted = palm_distances(observed.rays_T212, observed.image_z_T21, palm_m)
    disagreement = np.abs(np.log(chord / np.where(np.isfinite(slanted), slanted, chord)))
    against_fit = np.abs(np.log(observed.palm_distance_T / palm_z))
    sensor, unsensed = np.zeros(len(palm_z)), np.zeros(len(palm_z))
    measured = np.isfinite(observed.surface_z_T21)
    if observed.sensed:
        skin = skin_before_joint(joints_T213, RADII * (palm_m / PALM_SIZE))
        off = np.abs(joints_T213[..., 2] - skin - np.where(measured, observed.surface_z_T21, 0)).clip(0, 0.05)
        mean = np.sum(off * measured, 1) / np.maximum(measured.sum(1), 1)
        sensor, unsensed = np.log((mean + 0.001) / 0.006), 1 - measured.mean(1)
    return np.stack(
        [
            np.log(misfit.clip(0.001, 0.05) / 0.003),
            np.log(relative.clip(0.0006, 0.06) / 0.006),
            disagreement.clip(0, 0.5),
            against_fit.clip(0, 0.3),
            sensor,
            unsensed,
        ],
        1,
    )


def shrinkage(observed: HandObservations, joints_T213: np.ndarray, palm_m: float) -> np.ndarray:
    """By how much to scale each frame about the camera because its landmarks shrank, f64 [T], slow in time.

    Landmarks of hidden fingers shrink towards what is still to be seen, and a smaller hand is taken to be further away.
    The more the landmarks misfit, the more they shrank: a tenth for every factor of 3, up to a limit (measured on
    simulated hands, with and without a bar before them).
    """
    misfit = doubts(observed, joints_T213, palm_m)[:, 0]
    log_scale = -SHRINKING * (misfit - USUAL_MISFIT).clip(*MISFITS)
    apart = observed.time_T[:, None] - observed.time_T[observed.measured_T]
    weight = np.exp(-0.5 * (apart / SHRINKING_S) ** 2)
    return np.exp(weight @ log_scale[observed.measured_T] / weight.sum(1))


def point_sigma(
    observed: HandObservations, joints_T213: np.ndarray, palm_m: float, assumed: Assumptions, to_skin: bool = False
) -> np.ndarray:
    """One sigma of a measured point's position across and along the ray, f64 [T,2] metres.

    joints_T213: as placed, metres, camera frame. palm_m: size of the hand. to_skin: fitted to all of the skin that a
    sensor saw, not only to the depth at its landmarks.
    """
    weights = (WITH_SKIN if to_skin else WITH_SENSOR) if observed.sensed else IMAGE_ONLY
    columns = doubts(observed, joints_T213, palm_m)
    columns = np.concatenate([np.ones((len(columns), 1)), columns], 1)
    across, along = np.exp(columns @ np.array(weights.across)), np.exp(columns @ np.array(weights.along))
    centre = joints_T213.mean(1)
    if observed.sensed:
        across = np.hypot(across, assumed.focal * np.linalg.norm(centre[:, :2], axis=-1))
    else:
        distance = np.linalg.norm(centre, axis=-1)
        along = distance * np.sqrt(along**2 + assumed.focal**2 + assumed.palm**2)
    # Linear interpolation over a gap misses by at most acceleration x time since x time until / 2.
    since, until = _time_to_measured(observed.time_T, observed.measured_T)
    gap = GAP_ACCELERATION * since * until / 2
    return np.stack([np.hypot(across, gap), np.hypot(along, gap)], -1)


def smoothed_away(points_TN3: np.ndarray, raw_TN3: np.ndarray, sigma_T2: np.ndarray) -> np.ndarray:
    """bool [T,N]: smoothing over time moved the point further from where it was measured than one sigma, across or
    along the ray. What is shown there is the motion around it, not a measurement. A frame whose sigma is large because
    it does not fit the others gets no more room than ROOM times the usual."""
    room_T2 = np.minimum(sigma_T2, ROOM * np.median(sigma_T2, axis=0))
    ray = raw_TN3 / np.maximum(np.linalg.norm(raw_TN3, axis=-1, keepdims=True), 1e-9)
    moved = points_TN3 - raw_TN3
    along = np.sum(moved * ray, -1)
    across = np.linalg.norm(moved - along[..., None] * ray, axis=-1)
    return (across > room_T2[:, :1]) | (np.abs(along) > room_T2[:, 1:])


def _time_to_measured(time_T: np.ndarray, measured_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Seconds since the last and until the next measured frame, [T] each; the first and last frame are measured."""
    known = time_T[measured_T]
    before = np.maximum(np.searchsorted(known, time_T, side="right") - 1, 0)
    after = np.minimum(np.searchsorted(known, time_T, side="left"), len(known) - 1)
    return np.maximum(time_T - known[before], 0), np.maximum(known[after] - time_T, 0)
