"""The terms of the pretraining loss, by name. Each gives one value per window, so a bad window can be named.

Shapes: B windows, H horizons, N points. Clouds in metres; values in units of 0.1 m, about 1 for a motion of the size of
a hand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pretrain.chamfer import chamfer
from pretrain.config import ObjectiveSettings
from pretrain.model.modeling_kinecloud import KinecloudPrediction

UNIT_M = 0.1
_ROBUST = 0.02  # errors below 2 mm count quadratically


@dataclass(frozen=True)
class Loss:
    """total: differentiable scalar. terms: detached scalars by name. per_window_B: detached, not finite = bad."""

    total: Tensor
    terms: dict[str, Tensor]
    per_window_B: Tensor


def _mean_where(value: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over all dimensions but the first where mask; and whether there was anything, [B]."""
    value, mask = value.flatten(1), mask.flatten(1)
    count = mask.sum(1)
    return torch.where(mask, value, torch.zeros_like(value)).sum(1) / count.clamp(min=1), count > 0


def _visible(window: dict[str, Any]) -> Tensor:
    return window["future_visible"] & window["future_valid"][..., None]


def chamfer_term(prediction: KinecloudPrediction, window: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Mean neighbour distance in both directions, over the points that are measured at that horizon."""
    visible_BHN = _visible(window)
    mask = visible_BHN.flatten(0, 1)
    distance = chamfer(
        prediction.points.float().flatten(0, 1) / UNIT_M,
        window["future"].flatten(0, 1) / UNIT_M,
        x_mask_BN=mask,
        y_mask_BM=mask,
        squared=False,
        reduction="none",
    )
    return _mean_where(distance.unflatten(0, visible_BHN.shape[:2]) / 2, visible_BHN.any(-1))


def tracked_term(prediction: KinecloudPrediction, window: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Distance of each measured point to where it was predicted, sqrt(d^2 + c^2) - c with c = 2 mm."""
    square = ((prediction.points.float() - window["future"]) / UNIT_M).square().sum(-1)
    return _mean_where((square + _ROBUST**2).sqrt() - _ROBUST, _visible(window))


def opening_term(prediction: KinecloudPrediction, window: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Absolute error of the grasp aperture; unknown apertures (NaN) do not count."""
    true_BH = window["future_opening"]
    known_BH = torch.isfinite(true_BH) & window["future_valid"]
    error_BH = (prediction.opening.float() - torch.nan_to_num(true_BH)).abs() / UNIT_M
    return _mean_where(error_BH, known_BH)


TERMS: dict[str, Callable[[KinecloudPrediction, dict[str, Any]], tuple[Tensor, Tensor]]] = {
    "chamfer": chamfer_term,
    "tracked": tracked_term,
    "opening": opening_term,
}


def loss_of(prediction: KinecloudPrediction, window: dict[str, Any], weights: ObjectiveSettings) -> Loss:
    """Weighted sum of the terms; each term is the mean over the windows in which it is defined."""
    finite_B = torch.isfinite(prediction.points).flatten(1).all(1)
    if not finite_B.all():  # Chamfer refuses such clouds; the caller decides on all ranks together what to do
        bad_B = torch.where(finite_B, 0.0, float("nan"))
        return Loss(prediction.points.sum(), {}, bad_B.detach())
    total, terms = prediction.points.new_zeros((), dtype=torch.float32), {}
    per_window_B = torch.zeros(len(finite_B), device=total.device)
    for name, term in TERMS.items():
        weight = getattr(weights, name)
        if weight == 0:
            continue
        value_B, defined_B = term(prediction, window)
        value = (value_B * defined_B).sum() / defined_B.sum().clamp(min=1)
        total = total + weight * value
        terms[name] = value.detach()
        per_window_B = per_window_B + weight * value_B.detach()
    return Loss(total, terms, per_window_B)
