"""How far a robot's points are to be moved where the predictor is asked as another embodiment, from labelled clips.

Points on a hand and on a gripper are found by other means, each with a constant error of its own, and a hand does not
grasp where a gripper does. A predictor that learned a task from hands alone leads a gripper past things by as much.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from data.loader import WindowDataset
from pretrain.model.borrowed import Borrowed
from pretrain.model.modeling_kinecloud import KinecloudPredictor
from pretrain.reading import in_batches, spread

MOST_WINDOWS = 256  # evenly spread: three numbers need no more
FIRST_M, PRECISE_M = 0.01, 0.0005  # step of the search, and where it ends
PULL = 1.0  # per metre: an offset of 1 cm has to bring predictions nearer by 0.1 mm
_TRUTH = ("future", "future_grasp", "future_opening", "future_valid")


@dataclass(frozen=True)
class Offset:
    """metres_3: camera frame. without_m, with_m: mean distance of predicted from true grasp points, metres."""

    metres_3: tuple[float, float, float]
    without_m: float
    with_m: float


@torch.no_grad()
def fitted_offset(predictor: KinecloudPredictor, windows: WindowDataset, slot: int) -> Offset | None:
    """With which offset the predictor, asked as the embodiment of ``slot``, tells best what the robot of these windows
    did. None where no window knows its future."""
    batches = [window for _, window in in_batches(windows, spread(len(windows), MOST_WINDOWS))]
    if not any(window["future_valid"].any() for window in batches):
        return None

    def apart(offset_3: np.ndarray) -> float:
        asked = Borrowed(slot, torch.tensor(offset_3, dtype=torch.float32))
        return float(torch.cat([_distances(predictor, window, asked) for window in batches]).mean())

    nowhere = np.zeros(3)
    search = {
        "initial_simplex": np.vstack([nowhere, FIRST_M * np.eye(3)]), "xatol": PRECISE_M, "fatol": PRECISE_M / 20,
    }  # fmt: skip
    found = minimize(lambda x_3: apart(x_3) + PULL * (x_3 @ x_3), nowhere, method="Nelder-Mead", options=search).x
    x, y, z = found.tolist()
    return Offset((x, y, z), apart(nowhere), apart(found))


def _distances(predictor: KinecloudPredictor, window: dict[str, Any], borrowed: Borrowed) -> Tensor:
    """Of predicted from true grasp points, where these are known, metres."""
    observed = borrowed.asked({name: values for name, values in window.items() if name not in _TRUTH})
    predicted_BH3 = borrowed.answered(predictor(**observed)).grasp
    return (predicted_BH3 - window["future_grasp"]).norm(dim=-1)[window["future_valid"]]
