"""How far points typically move by each horizon: what flow matching mixes its noise with."""

from __future__ import annotations

import torch

from data.loader import WindowDataset
from pretrain.model.modeling_kinecloud import KinecloudPredictor
from pretrain.reading import in_batches, spread

_WINDOWS = 1024  # enough for a mean of squares


@torch.no_grad()
def displacement_scale(predictor: KinecloudPredictor, dataset: WindowDataset) -> list[float]:
    """Root mean square of a coordinate of the displacements per horizon, in length units, over windows spread evenly.

    predictor: whose ``deltas`` are measured, with a scale of 1. Points that were not measured do not count.
    """
    squares, counts = 0.0, 0.0
    for _, window in in_batches(dataset, spread(len(dataset), _WINDOWS)):
        moved = predictor.deltas(window["past"][:, -1], window["future"]).double()
        mask = (window["future_visible"] & window["future_valid"][..., None])[..., None]
        squares = squares + torch.where(mask, moved.square(), 0.0).sum((0, 2, 3))
        counts = counts + mask.sum((0, 2, 3)) * predictor.config.dimensions
    rms = (squares / torch.as_tensor(counts).clamp(min=1)).sqrt()
    return [max(float(value), 1e-3) for value in torch.as_tensor(rms)]
