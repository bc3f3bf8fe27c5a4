"""Where a hand is in space: the fit, its distance, and how sure of it one may be, from one set of observations."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from extract.hand.fit import FitModel, fit_hand
from extract.hand.observe import HandObservations, level
from extract.hand.trust import SENSED
from extract.hand.uncertainty import Assumptions, point_sigma, shrinkage

MOSTLY = 0.5  # share of measured frames that make a clip's distance measured


@dataclass(frozen=True)
class PlacedHand:
    """joints_T213, raw_joints_T213: f64 metres, camera frame, smooth and without smoothness over time. palm_m: size of
    the hand, metres, as assumed or as the sensor saw it. sigma_T2: f64 metres, one sigma across and along the ray.
    sensed: the distance rests on a sensor."""

    joints_T213: np.ndarray
    raw_joints_T213: np.ndarray
    palm_m: float
    sigma_T2: np.ndarray
    sensed: bool


def sensed_frames(surface_z_T21: np.ndarray) -> np.ndarray:
    """bool [T]: the sensor measured the hand's distance in this frame."""
    return np.isfinite(surface_z_T21).sum(1) >= SENSED


def place_hand(
    observed: HandObservations,
    assumed_palm_m: float,
    sensor_sigma_m: float,
    assumed: Assumptions,
    model: FitModel | None = None,
) -> PlacedHand:
    """Fits the hand and judges the fit. Depth of a sensor that saw the hand only now and then is not used: two kinds of
    distance in one clip would be a jump that nobody made."""
    sensed = bool(sensed_frames(observed.surface_z_T21)[observed.measured_T].mean() >= MOSTLY)
    if not sensed:
        observed = replace(observed, surface_z_T21=np.full_like(observed.surface_z_T21, np.nan))
    fit = fit_hand(observed, assumed_palm_m, sensor_sigma_m, model)
    if sensed:
        joints, raw, palm = fit.joints_T213, fit.raw_joints_T213, assumed_palm_m * fit.size
    else:
        palm = assumed_palm_m
        scale = level(fit.joints_T213, observed)
        scale = scale * shrinkage(observed, fit.joints_T213 * scale, palm)[:, None, None]
        joints, raw = fit.joints_T213 * scale, fit.raw_joints_T213 * scale
    return PlacedHand(joints, raw, palm, point_sigma(observed, joints, palm, assumed), sensed)
