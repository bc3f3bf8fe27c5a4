"""The terms of the pretraining loss, by name. Each gives one value per window, so a bad window can be named.

Shapes: B windows, H horizons, N points. Clouds in metres; values in units of 0.1 m, about 1 for a motion of the size of
a hand, but for flow matching, whose values are in units of the typical displacement at a horizon.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.chamfer import chamfer
from pretrain.config import ObjectiveSettings
from pretrain.model.flow import path, training_time
from pretrain.model.geometry import flattened, projected, rays_of
from pretrain.model.modeling_kinecloud import KinecloudPrediction, KinecloudPredictor
from pretrain.randomness import WindowRandom
from pretrain.trust import trusted

UNIT_M = 0.1
_ROBUST, _ROUGH = 0.02, 0.05  # errors below 2 mm count quadratically, those of waypoints below 5 mm


@dataclass(frozen=True)
class Loss:
    """total: differentiable scalar, the mean over all windows. terms: detached scalars by name.
    per_window_B: detached, not finite = bad."""

    total: Tensor
    terms: dict[str, Tensor]
    per_window_B: Tensor


def _mean_where(value: Tensor, mask: Tensor) -> Tensor:
    """Mean over all dimensions but the first where mask, [B]; 0 where there is nothing."""
    value, mask = value.flatten(1), mask.flatten(1)
    return torch.where(mask, value, torch.zeros_like(value)).sum(1) / mask.sum(1).clamp(min=1)


def _robust(square: Tensor) -> Tensor:
    """sqrt(d^2 + c^2) - c: quadratic for small errors, linear for large ones."""
    return (square + _ROBUST**2).sqrt() - _ROBUST


def _visible(window: dict[str, Any]) -> Tensor:
    return window["future_visible"] & window["future_valid"][..., None]


def chamfer_term(prediction: KinecloudPrediction, window: dict[str, Any]) -> Tensor:
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
        check_finite=False,  # loss_of has looked, without waiting for the device
    )
    return _mean_where(distance.unflatten(0, visible_BHN.shape[:2]) / 2, visible_BHN.any(-1))


def tracked_term(prediction: KinecloudPrediction, window: dict[str, Any]) -> Tensor:
    """Distance of each measured point to where it was predicted, robust from 2 mm on."""
    square = ((prediction.points.float() - window["future"]) / UNIT_M).square().sum(-1)
    return _mean_where(_robust(square), _visible(window))


def tracks2d_term(prediction: KinecloudPrediction, window: dict[str, Any]) -> Tensor:
    """The same in the image plane, as trackers without depth see it: distances on a plane 1 m away.

    With ``model.dimensions: 2`` this is any-point trajectory modelling (Wen et al. 2024): the future of 2D tracks.
    """
    apart = flattened(prediction.points.float()) - flattened(window["future"])
    return _mean_where(_robust((apart / UNIT_M).square().sum(-1)), _visible(window))


def flow_matching_term(prediction: KinecloudPrediction, window: dict[str, Any]) -> Tensor:
    """Squared error of the velocity of noised displacements, mean over coordinates; see pretrain/model/flow.py."""
    square = (prediction.velocity.float() - window["velocity"]).square().mean(-1)
    return _mean_where(square, _visible(window))


def latent_action_term(prediction: KinecloudPrediction, window: dict[str, Any]) -> Tensor:
    """Cost of making the later image from a latent action and of guessing that action; see pretrain/model/latent.py."""
    assert prediction.latent is not None, "image_later is missing from the window"
    return prediction.latent.float()


def opening_term(prediction: KinecloudPrediction, window: dict[str, Any]) -> Tensor:
    """Absolute error of the grasp aperture; unknown apertures (NaN) do not count."""
    true_BH = window["future_opening"]
    known_BH = torch.isfinite(true_BH) & window["future_valid"]
    return _mean_where((prediction.opening.float() - torch.nan_to_num(true_BH)).abs() / UNIT_M, known_BH)


def grasp_term(prediction: KinecloudPrediction, window: dict[str, Any]) -> Tensor:
    """Distance of the grasp point to where it was predicted, robust from 2 mm on."""
    square = ((prediction.grasp.float() - window["future_grasp"]) / UNIT_M).square().sum(-1)
    return _mean_where(_robust(square), window["future_valid"])


def waypoints_term(prediction: KinecloudPrediction, window: dict[str, Any]) -> Tensor:
    """Distance of the places that the effector will pass, robust from 5 mm on, and absolute error of the openings."""
    assert prediction.waypoints is not None, "the predictor has no waypoints"
    true_BW4, valid_BW = window["waypoints"], window["waypoints_valid"]
    apart_BW4 = (prediction.waypoints.float() - torch.nan_to_num(true_BW4)) / UNIT_M
    place_BW = (apart_BW4[..., :3].square().sum(-1) + _ROUGH**2).sqrt() - _ROUGH
    known_BW = valid_BW & torch.isfinite(true_BW4[..., 3])
    return _mean_where(place_BW, valid_BW) + _mean_where(apart_BW4[..., 3].abs(), known_BW)


def heatmap_term(prediction: KinecloudPrediction, window: dict[str, Any]) -> Tensor:
    """How far what the predictor looks at is from a spot around the waypoint (Kullback and Leibler 1951), for those in
    the picture: the spot is normal, one cell wide. Distances alone teach slowly where small things are."""
    assert prediction.heatmap is not None, "the predictor has no waypoints"
    look_BWhw = prediction.heatmap.float()
    rows, columns = look_BWhw.shape[2:]
    share_BW2 = window["waypoints_at"]
    across_BWw = share_BW2[..., :1] * columns - 0.5 - torch.arange(columns, device=share_BW2.device)
    down_BWh = share_BW2[..., 1:] * rows - 0.5 - torch.arange(rows, device=share_BW2.device)
    spot_BWhw = -0.5 * (down_BWh.square()[..., None] + across_BWw.square()[..., None, :])
    spot_BWL = F.log_softmax(spot_BWhw.flatten(2), -1)
    apart_BW = (spot_BWL.exp() * (spot_BWL - look_BWhw.flatten(2))).sum(-1)
    shown_BW = window["waypoints_valid"] & ((share_BW2 > 0) & (share_BW2 < 1)).all(-1)
    return _mean_where(apart_BW, shown_BW)


def in_picture(points_BW3: Tensor, intrinsics_B33: Tensor, size: int) -> Tensor:
    """Where an image of side ``size`` shows points, metres, as shares of its side from the top left, [B,W,2]; what is
    behind the camera is shown nowhere: -1."""
    share_BW2 = projected(points_BW3, rays_of(intrinsics_B33)) / size
    return torch.where(points_BW3[..., 2:] > 1e-3, share_BW2, -1.0)


TERMS: dict[str, Callable[[KinecloudPrediction, dict[str, Any]], Tensor]] = {
    "chamfer": chamfer_term,
    "tracked": tracked_term,
    "tracks2d": tracks2d_term,
    "flow_matching": flow_matching_term,
    "latent_action": latent_action_term,
    "opening": opening_term,
    "grasp": grasp_term,
    "waypoints": waypoints_term,
    "heatmap": heatmap_term,
}


def loss_of(prediction: KinecloudPrediction, window: dict[str, Any], weights: ObjectiveSettings) -> Loss:
    """Weighted sum of the terms, each the mean over all windows; a window in which a term is undefined gives 0 to it.

    So the mean over ranks and micro-batches of equal size is the loss of one large batch. With ``weights.trust_m`` all
    distances are shorter in directions of which the clip is unsure, see pretrain/trust.py.
    """
    future = window["future"]
    finite_B = (torch.isfinite(prediction.points) & torch.isfinite(future)).flatten(1).all(1)
    # Chamfer refuses clouds that are not finite: their windows get a loss that is not, and the caller decides
    finite_B111 = finite_B[:, None, None, None]
    window = window | {"future": torch.where(finite_B111, future, 0.0)}
    prediction = replace(prediction, points=torch.where(finite_B111, prediction.points, 0.0))
    if weights.heatmap:
        places_BW3 = torch.nan_to_num(window["waypoints"][..., :3])
        window["waypoints_at"] = in_picture(places_BW3, window["intrinsics"], window["image"].shape[-1])
    if weights.trust_m is not None:
        prediction, window = trusted(prediction, window, weights.trust_m)
    values = {name: term(prediction, window) for name, term in TERMS.items() if getattr(weights, name)}
    per_window_B = torch.stack([getattr(weights, name) * value_B for name, value_B in values.items()]).sum(0)
    per_window_B = torch.where(finite_B, per_window_B, float("nan"))
    terms = {name: value_B.detach().mean() for name, value_B in values.items()}
    return Loss(per_window_B.mean(), terms, per_window_B.detach())


def noised(window: dict[str, Any], predictor: KinecloudPredictor, random: WindowRandom) -> dict[str, Any]:
    """The window with a point on the path between noise and its true displacements: what a generative predictor
    learns from. Other predictors need nothing, and get it."""
    if not predictor.config.generative:
        return window
    place, velocity, tau_B = on_the_way(predictor.deltas(window["past"][:, -1], window["future"]), random)
    return window | {"noised": place, "tau": tau_B, "velocity": velocity}


def on_the_way(clean: Tensor, random: WindowRandom) -> tuple[Tensor, Tensor, Tensor]:
    """A point on the path from noise to ``clean`` [B,...], the velocity there, and its time [B]; see
    pretrain/model/flow.py."""
    tau_B = training_time(random.beta(1.5, 1.0)).to(clean)
    place, velocity = path(clean, random.normal(*clean.shape[1:]).to(clean), tau_B)
    return place, velocity, tau_B


def at_present_depth(window: dict[str, Any]) -> dict[str, Any]:
    """The window with future grasp points and waypoints moved along their rays to the present depth: what an image
    shows of them."""
    depth_B11 = window["past_grasp"][:, -1:, 2:]
    grasp_BH3, place_BW3 = (flattened(window[name][..., :3]) * depth_B11 for name in ("future_grasp", "waypoints"))
    waypoints_BW4 = torch.cat([place_BW3, window["waypoints"][..., 3:]], -1)
    return window | {"future_grasp": grasp_BH3, "waypoints": waypoints_BW4}
