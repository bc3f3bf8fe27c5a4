"""What a predictor says of a window, when it is judged: from what was known at that moment and nothing else."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pipeline.errors import KinecloudError
from pretrain.model.modeling_kinecloud import KinecloudPredictor

PRESENT = (
    "image", "intrinsics", "depth", "past", "past_visible", "past_valid", "past_opening", "past_grasp", "text",
    "embodiment", "seed",
)  # fmt: skip
_SEED_STEP = 0x9E3779B97F4A7C15  # odd, so that no two samples of a window share a seed
_SEEDS = 2**63


@torch.no_grad()
def predict(model: KinecloudPredictor, window: dict[str, Any], sample: int = 0) -> tuple[Tensor, Tensor]:
    """Future clouds f32 [B,H,N,3] and openings f32 [B,H] of a batch of windows, metres, on the CPU.

    Only the ``PRESENT`` fields reach the model. sample: a generative model draws another future for every number; the
    first is drawn with the windows' own seeds. Raises KinecloudError naming the clips of predictions that are not
    finite.
    """
    inputs: dict[str, Any] = {name: window[name] for name in PRESENT if name in window}
    if sample:
        inputs["seed"] = torch.tensor([(seed + sample * _SEED_STEP) % _SEEDS for seed in window["seed"].tolist()])
    inputs = {name: v.to(model.device) if isinstance(v, Tensor) else v for name, v in inputs.items()}
    was_training = model.training
    prediction = model.eval()(**inputs)
    model.train(was_training)
    points, opening = prediction.points.float().cpu(), prediction.opening.float().cpu()
    bad_B = ~(torch.isfinite(points).flatten(1).all(1) & torch.isfinite(opening).all(1))
    if bad_B.any():
        clips = sorted({key for key, bad in zip(window["key"], bad_B.tolist(), strict=True) if bad})
        raise KinecloudError(f"the predictor gives values that are not finite for {', '.join(clips)}")
    return points, opening
