"""Where a hand is in space: the fit, its distance, and how sure of it one may be, from one set of observations."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from extract.effector import Camera
from extract.hand.fingers import find_fingers
from extract.hand.fit import FitModel, HandFit, fit_hand
from extract.hand.observe import HandObservations, level
from extract.hand.patch import HandPatch
from extract.hand.skeleton import PALM_SIZE
from extract.hand.skin_fit import skin_view
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


@dataclass(frozen=True)
class Surroundings:
    """What a depth sensor saw around one hand: a patch per frame, None where there is none; the hand's side."""

    patches: list[HandPatch | None]
    side: str
    camera: Camera

    @property
    def seen(self) -> bool:
        """There is a patch at all."""
        return any(patch is not None for patch in self.patches)


def place_hand(
    observed: HandObservations,
    assumed_palm_m: float,
    sensor_sigma_m: float,
    assumed: Assumptions,
    model: FitModel | None = None,
    around: Surroundings | None = None,
) -> PlacedHand:
    """Fits the hand and judges the fit. Depth of a sensor that saw the hand only now and then is not used: two kinds of
    distance in one clip would be a jump that nobody made.

    around: what the sensor saw beside the landmarks; with it the fit is refined to the whole surface of the hand."""
    sensed = bool(sensed_frames(observed.surface_z_T21)[observed.measured_T].mean() >= MOSTLY)
    if not sensed:
        observed = replace(observed, surface_z_T21=np.full_like(observed.surface_z_T21, np.nan))
    fit = fit_hand(observed, assumed_palm_m, sensor_sigma_m, model)
    to_skin = sensed and around is not None and around.seen
    if to_skin and around is not None:
        fit = _refined(observed, fit, around, assumed_palm_m, sensor_sigma_m, model)
    if sensed:
        joints, raw, palm = fit.joints_T213, fit.raw_joints_T213, assumed_palm_m * fit.size
    else:
        palm = assumed_palm_m
        scale = level(fit.joints_T213, observed)
        scale = scale * shrinkage(observed, fit.joints_T213 * scale, palm)[:, None, None]
        joints, raw = fit.joints_T213 * scale, fit.raw_joints_T213 * scale
    return PlacedHand(joints, raw, palm, point_sigma(observed, joints, palm, assumed, to_skin), sensed)


def _refined(
    observed: HandObservations,
    fit: HandFit,
    around: Surroundings,
    assumed_palm_m: float,
    sensor_sigma_m: float,
    model: FitModel | None,
) -> HandFit:
    """The fit once more, with the fingers where depth shows them and the whole skin."""
    patches, side, camera = around.patches, around.side, around.camera
    scale = assumed_palm_m * fit.size / PALM_SIZE
    view = skin_view(observed.time_T, fit.joints_T213, patches, side, scale, camera)
    fit = fit_hand(observed, assumed_palm_m, sensor_sigma_m, model, view)
    found = find_fingers(observed.time_T, fit.joints_T213, patches, side, scale, camera)
    searched = np.isfinite(found.joints_T213[..., 0])
    # Depth beside a landmark tells nothing about a joint that is elsewhere.
    observed = replace(observed, surface_z_T21=np.where(searched, np.nan, observed.surface_z_T21))
    view = view.with_fingers(fit.joints_T213, found)
    return fit_hand(observed, assumed_palm_m, sensor_sigma_m, model, view)
