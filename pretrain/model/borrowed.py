"""Asking a predictor as another embodiment than the robot's own, as the one that was seen doing the tasks.

Shapes: B batch, P past clouds, N points, H horizons, W waypoints.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .modeling_kinecloud import KinecloudPrediction


@dataclass(frozen=True)
class Borrowed:
    """slot: of the embodiment, from 1 in the order of ``config.embodiments``. offset_3: f32 [3] metres, camera frame,
    from where the robot's points are found to where that embodiment's would be."""

    slot: int
    offset_3: Tensor

    def asked(self, window: dict[str, Any]) -> dict[str, Any]:
        """An observation as the predictor is to see it: ``past`` f32 [B,P,N,3] and ``past_grasp`` f32 [B,P,3] moved,
        where they are given, and ``embodiment`` replaced."""
        past = window["past"]
        moved = {name: window[name] + self.offset_3 for name in ("past", "past_grasp") if window.get(name) is not None}
        slots_B = torch.full((len(past),), self.slot, dtype=torch.long, device=past.device)
        return window | moved | {"embodiment": slots_B}

    def followed(self, prediction: KinecloudPrediction) -> KinecloudPrediction:
        """Motion of the robot's own points as the predictor would have answered it."""
        return _moved(prediction, self.offset_3)

    def answered(self, prediction: KinecloudPrediction) -> KinecloudPrediction:
        """The predictor's answer as motion of the robot's own points."""
        return _moved(prediction, -self.offset_3)


def _moved(prediction: KinecloudPrediction, offset_3: Tensor) -> KinecloudPrediction:
    places = {
        name: values + F.pad(offset_3, (0, values.shape[-1] - 3))  # waypoints have an opening, too
        for name in ("points", "grasp", "waypoints")
        if (values := prediction.get(name)) is not None
    }
    return replace(prediction, **places)
