"""Errors of predicted clouds in millimetres, and the two baselines that any predictor has to beat.

Shapes: B windows, P past clouds, H horizons, N points; clouds in metres.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pretrain.chamfer import chamfer

MIN_POINTS = 8  # a cloud with fewer measured points has no meaningful Chamfer distance


def no_motion(window: dict[str, Any], horizons: list[float]) -> Tensor:
    """The present cloud at every horizon, [B,H,N,3]."""
    return window["past"][:, -1:].expand(-1, len(horizons), -1, -1)


def constant_velocity(window: dict[str, Any], horizons: list[float], times: list[float]) -> Tensor:
    """Every point goes on with its velocity between the last two past clouds; stands still if the former is missing."""
    velocity_BN3 = (window["past"][:, -1] - window["past"][:, -2]) / (times[-1] - times[-2])
    velocity_BN3 = velocity_BN3 * window["past_valid"][:, -2, None, None]
    return _coast(window["past"][:, -1], velocity_BN3, horizons)


def least_squares_velocity(window: dict[str, Any], horizons: list[float], times: list[float]) -> Tensor:
    """The whole cloud goes on with the least-squares velocity of its centroid over all valid past clouds."""
    weight_BP1 = window["past_valid"][..., None].to(window["past"].dtype)
    time_P1 = torch.tensor(times, dtype=window["past"].dtype)[:, None]
    mean_B11 = (weight_BP1 * time_P1).sum(1, keepdim=True) / weight_BP1.sum(1, keepdim=True).clamp(min=1)
    time_BP1 = weight_BP1 * (time_P1 - mean_B11)
    path_BP3 = window["past"].mean(2) - window["past"][:, -1:].mean(2)
    velocity_B3 = (time_BP1 * path_BP3).sum(1) / time_BP1.square().sum(1).clamp(min=1e-6)
    return _coast(window["past"][:, -1], velocity_B3[:, None], horizons)


def _coast(now_BN3: Tensor, velocity_BN3: Tensor, horizons: list[float]) -> Tensor:
    times_H = torch.tensor(horizons, dtype=now_BN3.dtype)
    return now_BN3[:, None] + velocity_BN3[:, None] * times_H[None, :, None, None]


def baselines(window: dict[str, Any], horizons: list[float], times: list[float]) -> dict[str, Tensor]:
    """Predictions by name of baseline."""
    if len(times) < 2:
        return {"no motion": no_motion(window, horizons)}
    return {
        "no motion": no_motion(window, horizons),
        "constant velocity": constant_velocity(window, horizons, times),
        "least-squares velocity": least_squares_velocity(window, horizons, times),
    }


def errors_mm(points_BHN3: Tensor, window: dict[str, Any]) -> dict[str, Tensor]:
    """Errors per window and horizon, [B,H] millimetres, NaN where fewer than 8 points were measured.

    ``displacement``: mean distance of each measured point to where it was predicted. ``chamfer``: mean neighbour
    distance, averaged over both directions, between the predicted and the true positions of the measured points.
    """
    mask_BHN = window["future_visible"] & window["future_valid"][..., None]
    enough_BH = mask_BHN.sum(-1) >= min(MIN_POINTS, mask_BHN.shape[-1])
    distance_BHN = (points_BHN3 - window["future"]).norm(dim=-1)
    displacement_BH = (distance_BHN * mask_BHN).sum(-1) / mask_BHN.sum(-1).clamp(min=1)
    mask = mask_BHN.flatten(0, 1)
    both_ways = chamfer(
        points_BHN3.flatten(0, 1),
        window["future"].flatten(0, 1),
        x_mask_BN=mask,
        y_mask_BM=mask,
        squared=False,
        reduction="none",
    )
    chamfer_BH = both_ways.unflatten(0, enough_BH.shape) / 2
    nothing = torch.full_like(displacement_BH, float("nan"))
    return {
        "displacement": torch.where(enough_BH, 1000 * displacement_BH, nothing),
        "chamfer": torch.where(enough_BH, 1000 * chamfer_BH, nothing),
    }
