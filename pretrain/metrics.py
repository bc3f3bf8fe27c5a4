"""What a predicted cloud is measured by, and the simple baselines that any predictor has to beat.

Every measure is one value per window and horizon, [B,H], from the points that were *measured* at that horizon (visible,
inside the clip); NaN where fewer than 8 of them were, so that all methods are judged on the same windows. Clouds are
compared in the camera frame of the present image. ``MEASURES`` says what each measure is and where it comes from.

Shapes: B windows, P past clouds, H horizons, N points; clouds in metres, times in seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pretrain.chamfer import chamfer

NO_MOTION = "no motion"
MIN_POINTS = 8  # a cloud with fewer measured points has no meaningful error
WITHIN_MM = {"within_1cm": 10.0, "within_2cm": 20.0, "within_5cm": 50.0, "within_10cm": 100.0}


@dataclass(frozen=True)
class Measure:
    """unit: ``mm`` or ``share``. better: ``lower`` or ``higher``. text: definition and source, for people."""

    unit: str
    better: str
    text: str


MEASURES: dict[str, Measure] = {
    "ade_mm": Measure(
        "mm",
        "lower",
        "Average displacement error up to a horizon (Pellegrini et al. 2009): mean of the displacement over the "
        "horizons up to it, each weighted by the time since the one before, so that unequal spacing does not matter; "
        "with equal spacing the plain mean. Horizons at which too little was measured are left out.",
    ),
    "displacement_mm": Measure(
        "mm",
        "lower",
        "Mean distance of the measured points to where they were predicted. At the last horizon this is the final "
        "displacement error, FDE (Alahi et al. 2016).",
    ),
    "chamfer_mm": Measure(
        "mm",
        "lower",
        "Mean distance to the nearest neighbour between the predicted and the true positions of the measured points, "
        "averaged over both directions (Fan et al. 2017); needs no identity of points.",
    ),
    "path_mm": Measure(
        "mm",
        "lower",
        "Timing-free path error: mean of two distances, of the predicted place to the nearest place on the point's "
        "true future path, and of the true place to the nearest place on its predicted path. Being too fast or too "
        "slow costs little, another way costs its distance.",
    ),
    "off_path_mm": Measure(
        "mm",
        "lower",
        "Only the first of these two distances, from the predicted place to the true path. Among predictions that move "
        "it goes with success in closed loop better than displacement does; standing still scores zero.",
    ),
    **{
        name: Measure("share", "higher", f"Share of the measured points predicted less than {limit / 10:g} cm off.")
        for name, limit in WITHIN_MM.items()
    },
    "opening_mm": Measure(
        "mm", "lower", "Absolute error of the grasp aperture, where it is known now and at the horizon."
    ),
}


def errors_of(
    points_BHN3: Tensor, window: dict[str, Any], horizons: Sequence[float], opening_BH: Tensor | None = None
) -> dict[str, Tensor]:
    """All ``MEASURES`` of a prediction by name, f32 [B,H]; ``opening_mm`` only when an opening is given."""
    distance_BHN = 1000 * (points_BHN3 - window["future"]).norm(dim=-1)
    mask_BHN = measured(window)
    displacement_BH = _masked_mean(distance_BHN, mask_BHN)
    off_path_BHN = path_distance(points_BHN3, window["past"][:, -1], window["future"], mask_BHN)
    missed_BHN = path_distance(window["future"], window["past"][:, -1], points_BHN3)
    off_path_BH = 1000 * _masked_mean(off_path_BHN, mask_BHN)
    errors = {
        "ade_mm": average_over_time(displacement_BH, horizons),
        "displacement_mm": displacement_BH,
        "chamfer_mm": chamfer_mm(points_BHN3, window),
        "path_mm": (off_path_BH + 1000 * _masked_mean(missed_BHN, mask_BHN)) / 2,
        "off_path_mm": off_path_BH,
        **{name: _masked_mean((distance_BHN < limit).float(), mask_BHN) for name, limit in WITHIN_MM.items()},
    }
    if opening_BH is not None:
        known_BH = window["future_valid"] & torch.isfinite(window["past_opening"][:, -1:])
        error_BH = 1000 * (opening_BH - window["future_opening"]).abs()
        errors["opening_mm"] = torch.where(known_BH, error_BH, torch.full_like(error_BH, float("nan")))
    return errors


def measured(window: dict[str, Any]) -> Tensor:
    """Which points count at which horizon: bool [B,H,N], none where fewer than 8 were measured."""
    mask_BHN = window["future_visible"] & window["future_valid"][..., None]
    return mask_BHN & (mask_BHN.sum(-1, keepdim=True) >= min(MIN_POINTS, mask_BHN.shape[-1]))


def _masked_mean(value_BHN: Tensor, mask_BHN: Tensor) -> Tensor:
    """Mean over the points that count, NaN where none does."""
    return torch.where(mask_BHN, value_BHN, torch.zeros_like(value_BHN)).sum(-1) / mask_BHN.sum(-1)


def average_over_time(value_BH: Tensor, horizons: Sequence[float]) -> Tensor:
    """Mean of a value over the horizons up to each horizon, weighted by the time since the horizon before.

    Undefined values (NaN) are left out; the mean up to a horizon at which the value is undefined is undefined.
    """
    times_H = torch.tensor([0.0, *horizons], dtype=value_BH.dtype)
    known_BH = torch.isfinite(value_BH)
    weight_BH = known_BH * times_H.diff()
    mean_BH = (torch.nan_to_num(value_BH) * weight_BH).cumsum(1) / weight_BH.cumsum(1)
    return torch.where(known_BH, mean_BH, value_BH)


def chamfer_mm(points_BHN3: Tensor, window: dict[str, Any]) -> Tensor:
    """Neighbour distance between predicted and true positions of the measured points, mean of both directions."""
    mask_BHN = measured(window)
    mask = mask_BHN.flatten(0, 1)
    both_ways = chamfer(
        points_BHN3.flatten(0, 1),
        window["future"].flatten(0, 1),
        x_mask_BN=mask,
        y_mask_BM=mask,
        squared=False,
        reduction="none",
    )
    error_BH = 500 * both_ways.unflatten(0, mask_BHN.shape[:2])
    return torch.where(mask_BHN.any(-1), error_BH, torch.full_like(error_BH, float("nan")))


def path_distance(points_BHN3: Tensor, start_BN3: Tensor, path_BHN3: Tensor, known_BHN: Tensor | None = None) -> Tensor:
    """Distance of each point to the nearest place on its own path, [B,H,N]: straight pieces from the start through
    the path's places in order. known_BHN: places that belong to the path; the others are passed over."""
    nearest_BHN = torch.full(points_BHN3.shape[:-1], float("inf"), dtype=points_BHN3.dtype)
    here_BN3 = start_BN3
    for horizon in range(path_BHN3.shape[1]):
        next_BN3 = path_BHN3[:, horizon]
        if known_BHN is not None:
            next_BN3 = torch.where(known_BHN[:, horizon, :, None], next_BN3, here_BN3)
        piece_B1N3, from_here_BHN3 = (next_BN3 - here_BN3)[:, None], points_BHN3 - here_BN3[:, None]
        along_BHN = (from_here_BHN3 * piece_B1N3).sum(-1) / piece_B1N3.square().sum(-1).clamp(min=1e-12)
        off_BHN3 = from_here_BHN3 - along_BHN.clamp(0, 1)[..., None] * piece_B1N3
        nearest_BHN = torch.minimum(nearest_BHN, off_BHN3.norm(dim=-1))
        here_BN3 = next_BN3
    return nearest_BHN


def no_motion(window: dict[str, Any], horizons: Sequence[float]) -> Tensor:
    """The present cloud at every horizon, [B,H,N,3]."""
    return window["past"][:, -1:].expand(-1, len(horizons), -1, -1)


def constant_velocity(window: dict[str, Any], horizons: Sequence[float], times: Sequence[float]) -> Tensor:
    """Every point goes on with its velocity between the last two past clouds; stands still if the former is missing."""
    velocity_BN3 = (window["past"][:, -1] - window["past"][:, -2]) / (times[-1] - times[-2])
    velocity_BN3 = velocity_BN3 * window["past_valid"][:, -2, None, None]
    return _coast(window["past"][:, -1], velocity_BN3, horizons)


def least_squares_velocity(window: dict[str, Any], horizons: Sequence[float], times: Sequence[float]) -> Tensor:
    """The whole cloud goes on with the least-squares velocity of its centroid over all valid past clouds."""
    weight_BP1 = window["past_valid"][..., None].to(window["past"].dtype)
    time_P1 = torch.tensor(times, dtype=window["past"].dtype)[:, None]
    mean_B11 = (weight_BP1 * time_P1).sum(1, keepdim=True) / weight_BP1.sum(1, keepdim=True).clamp(min=1)
    time_BP1 = weight_BP1 * (time_P1 - mean_B11)
    path_BP3 = window["past"].mean(2) - window["past"][:, -1:].mean(2)
    velocity_B3 = (time_BP1 * path_BP3).sum(1) / time_BP1.square().sum(1).clamp(min=1e-6)
    return _coast(window["past"][:, -1], velocity_B3[:, None], horizons)


def _coast(now_BN3: Tensor, velocity_BN3: Tensor, horizons: Sequence[float]) -> Tensor:
    times_H = torch.tensor(horizons, dtype=now_BN3.dtype)
    return now_BN3[:, None] + velocity_BN3[:, None] * times_H[None, :, None, None]


def baselines(window: dict[str, Any], horizons: Sequence[float], times: Sequence[float]) -> dict[str, Tensor]:
    """Predicted clouds [B,H,N,3] by name of baseline, for horizons and past ``times`` in seconds."""
    if len(times) < 2:
        return {NO_MOTION: no_motion(window, horizons)}
    return {
        NO_MOTION: no_motion(window, horizons),
        "constant velocity": constant_velocity(window, horizons, times),
        "least-squares velocity": least_squares_velocity(window, horizons, times),
    }


def same_opening(window: dict[str, Any], horizons: Sequence[float]) -> Tensor:
    """The present aperture at every horizon, [B,H] metres: what these baselines say of it."""
    return window["past_opening"][:, -1:].expand(-1, len(horizons))
