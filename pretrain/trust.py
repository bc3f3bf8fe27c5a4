"""How far the places of a window are trusted, direction by direction: what a clip is unsure of counts less.

Hands seen in colour alone are known well across the viewing ray and badly along it, and their clips say so (``sigma``).

Shapes: B windows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pretrain.model.geometry import transformed
from pretrain.model.modeling_kinecloud import KinecloudPrediction


def shares(sigma_B2: Tensor, trust_m: float) -> Tensor:
    """How much of a distance across and along the viewing ray counts, [B,2], 0..1: half of its square where ``sigma``
    (one standard deviation, metres) is ``trust_m``."""
    return (1 + (sigma_B2 / trust_m).square()).rsqrt()


def trusted(
    prediction: KinecloudPrediction, window: dict[str, Any], trust_m: float
) -> tuple[KinecloudPrediction, dict[str, Any]]:
    """Both in a space in which distances are shorter where the clip is unsure; for the loss alone.

    Every place is mapped by one linear map per window, about the camera and the ray to the present grasp point, so
    distances between clouds, points, grasp points and waypoints all shrink alike.
    """
    ray_B3 = torch.nn.functional.normalize(window["past_grasp"][:, -1].float(), dim=-1)
    across_B11, along_B11 = shares(window["sigma"].float(), trust_m)[..., None, None].unbind(1)
    eye_33 = torch.eye(3, device=ray_B3.device)
    map_B33 = across_B11 * eye_33 + (along_B11 - across_B11) * ray_B3[:, :, None] * ray_B3[:, None]

    def mapped(value: Any) -> Any:
        if value is None:
            return None
        matrix = map_B33.reshape(-1, *[1] * (value.ndim - 2), 3, 3)
        return torch.cat([transformed(matrix, value[..., :3].float()), value[..., 3:]], -1)

    predicted = {name: mapped(getattr(prediction, name)) for name in ("points", "grasp", "waypoints", "velocity")}
    shown = ("future", "future_grasp", "waypoints", "velocity")
    return replace(prediction, **predicted), window | {name: mapped(window.get(name)) for name in shown}
