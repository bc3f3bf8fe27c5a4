"""What a clip is unsure of counts less in the loss, direction by direction."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pretrain.config import ObjectiveSettings
from pretrain.model.modeling_kinecloud import KinecloudPrediction
from pretrain.objectives import loss_of
from tests.test_pretrain_waypoints import dots

TRUST = 0.03
WEIGHTS = {"chamfer": 1, "tracked": 1, "grasp": 1, "waypoints": 1, "opening": 1}


def settings(trust_m: float | None) -> ObjectiveSettings:
    return ObjectiveSettings.model_validate(WEIGHTS | {"trust_m": trust_m})


def off_by(offset_B3: Tensor, window: dict[str, Any]) -> KinecloudPrediction:
    """The truth, with every place moved by the same metres."""
    waypoints = window["waypoints"].clone()
    waypoints[..., :3] += offset_B3[:, None]
    return KinecloudPrediction(
        points=window["future"] + offset_B3[:, None, None],
        opening=window["future_opening"].clone(),
        grasp=window["future_grasp"] + offset_B3[:, None],
        waypoints=waypoints,
    )


def directions(window: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Unit vectors along the ray to the effector and across it, [B,3] each."""
    along = torch.nn.functional.normalize(window["past_grasp"][:, -1], dim=-1)
    return along, torch.nn.functional.normalize(torch.linalg.cross(along, torch.tensor([[0.3, 1.0, 0.0]])), dim=-1)


def test_only_the_directions_that_a_clip_is_unsure_of_count_less() -> None:
    window = dots(1, 6)
    along, across = directions(window)
    window["sigma"] = torch.tensor([0.001, TRUST]).repeat(6, 1)
    plain = loss_of(off_by(0.05 * across, window), window, settings(None)).terms
    sure = loss_of(off_by(0.05 * across, window), window, settings(TRUST)).terms
    unsure = loss_of(off_by(0.05 * along, window), window, settings(TRUST)).terms
    shorter = loss_of(off_by(0.05 * 0.5**0.5 * across, window), window, settings(None)).terms
    for name in ("tracked", "grasp", "waypoints"):
        assert float(sure[name]) == pytest.approx(float(plain[name]), rel=2e-3), name
        assert float(unsure[name]) == pytest.approx(float(shorter[name]), rel=2e-3), name  # half of the square
    assert float(unsure["chamfer"]) < 0.8 * float(loss_of(off_by(0.05 * along, window), window, settings(None)).total)
    assert float(loss_of(off_by(0 * along, window), window, settings(TRUST)).total) < 1e-6


def test_clips_that_are_sure_decide_where_clips_that_are_not_disagree() -> None:
    window = dots(2, 2)
    for name in ("past_grasp", "future", "future_grasp", "waypoints"):
        window[name] = window[name][:1].repeat(2, *[1] * (window[name].ndim - 1))
    along, _ = directions(window)
    window["sigma"] = torch.tensor([[0.002, 0.01], [0.002, 0.3]])
    right, wrong = torch.zeros(2, 3), 0.2 * along
    claimed = off_by(torch.stack([right[0], wrong[1]]), window)  # what the two clips say
    assert claimed.waypoints is not None
    places = claimed.waypoints
    window |= {"future": claimed.points, "future_grasp": claimed.grasp, "waypoints": places}

    def cost(share: float, trust_m: float | None) -> float:
        middle = KinecloudPrediction(
            points=claimed.points[:1].lerp(claimed.points[1:], share).repeat(2, 1, 1, 1),
            opening=window["future_opening"].clone(),
            grasp=claimed.grasp[:1].lerp(claimed.grasp[1:], share).repeat(2, 1, 1),
            waypoints=places[:1].lerp(places[1:], share).repeat(2, 1, 1),
        )
        return float(loss_of(middle, window, settings(trust_m)).total)

    assert cost(0.1, TRUST) < cost(0.5, TRUST) < cost(0.9, TRUST)
    assert cost(0.5, None) == pytest.approx(cost(0.1, None), rel=0.05)  # without it, anything between will do


def test_weighing_directions_in_space_and_learning_in_the_image_are_refused_together() -> None:
    with pytest.raises(ValueError, match="trust_m"):
        ObjectiveSettings.model_validate({"tracks2d": 1.0, "trust_m": 0.03})
