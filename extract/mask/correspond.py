"""Soft correspondences between a template and a measured surface (the E-step of coherent point drift).

Each measured point was drawn from one of the template's points, blurred by ``sigma``, or is an outlier: P[s,m] is the
probability that measured point s shows template point m (Myronenko and Song, "Point Set Registration: Coherent Point
Drift", 2010). Hidden template points explain nothing and so pull nothing. Colour counts as three more coordinates:
it tells fingers apart and stops a surface from sliding along itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from extract.mask.surface import Surface

COLOUR_SIGMA = 0.08  # of the RGB range: shading and video compression
OUTLIER_RADIUS_M = 0.05  # the effector's size, over which outliers are spread
FARTHEST = 40.0  # squared distances in sigmas are cut here: beyond lie denormal numbers, slow and meaningless


@dataclass(frozen=True)
class Targets:
    """Where the measurement wants each template point: points_M3 (metres, camera frame) with weight mass_M.

    support: mean log-likelihood of the measured points, higher is better.
    """

    points_M3: np.ndarray
    mass_M: np.ndarray
    support: float


def soft_targets(
    placed_M3: np.ndarray,
    colours_M3: np.ndarray,
    measured: Surface,
    sigma_m: float,
    outliers: float,
    colour_sigma: float = COLOUR_SIGMA,
) -> Targets:
    """Mean measured point per template point, weighted by probability. ``outliers``: their share, roughly."""
    centre = placed_M3.mean(0)
    to_metres = sigma_m / colour_sigma
    a_S6 = _features(measured.points_N3 - centre, measured.colours_N3 * to_metres, sigma_m)
    b_M6 = _features(placed_M3 - centre, colours_M3 * to_metres, sigma_m)
    squared_SM = a_S6 @ (-2 * b_M6.T)
    squared_SM += (a_S6 * a_S6).sum(1)[:, None]
    squared_SM += (b_M6 * b_M6).sum(1)
    np.clip(squared_SM, 0, FARTHEST, out=squared_SM)
    squared_SM *= np.float32(-0.5)
    likelihood_SM = np.exp(squared_SM, out=squared_SM)
    total_S = likelihood_SM.sum(1) + np.float32(outliers * len(placed_M3) * (sigma_m / OUTLIER_RADIUS_M) ** 2)
    likelihood_SM /= total_S[:, None]
    mass_M = likelihood_SM.sum(0).astype(np.float64)
    sums_M3 = likelihood_SM.T @ (measured.points_N3 - centre).astype(np.float32)
    points_M3 = sums_M3 / np.maximum(mass_M, 1e-6)[:, None] + centre
    return Targets(points_M3, mass_M, float(np.log(total_S).mean()))


def _features(points_N3: np.ndarray, colours_N3: np.ndarray, sigma_m: float) -> np.ndarray:
    return (np.concatenate([points_N3, colours_N3], 1) / sigma_m).astype(np.float32)
