"""What a predictor got right and wrong, as pictures: the image it saw with the present, the true and the predicted
cloud."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from data.loader import WindowDataset, collate
from pretrain.model.modeling_kinecloud import KinecloudPredictor
from pretrain.prediction import predict

_SIDE = 384  # pixels of a picture
_MAX_POINTS = 200  # drawn per cloud
_COLORS = {"now": (255, 255, 255), "true": (64, 220, 120), "predicted": (255, 140, 40)}


@dataclass(frozen=True)
class Example:
    """One held-out window and what was predicted for it: clouds over now and the horizons, [1+H,N,3] metres.

    picture: JPEG. visible_TN: bool [1+H,N], which points were measured.
    """

    picture: bytes
    true_TN3: np.ndarray
    predicted_TN3: np.ndarray
    visible_TN: np.ndarray


def example_of(model: KinecloudPredictor, dataset: WindowDataset, number: int) -> Example:
    """Predicts window ``number`` again and draws the last horizon."""
    window = collate([dataset[(number, number)]])
    predicted, _ = predict(model, window)
    now = window["past"][0, -1:]
    visible = window["future_visible"][0] & window["future_valid"][0, :, None]
    return Example(
        _drawn(window, predicted),
        torch.cat([now, window["future"][0]]).numpy(),
        torch.cat([now, predicted[0]]).numpy(),
        torch.cat([window["past_visible"][0, -1:], visible]).numpy(),
    )


def _drawn(window: dict[str, Any], predicted_1HN3: Tensor) -> bytes:
    """JPEG of the conditioning image, enlarged, with the clouds now and at the last horizon."""
    image = Image.fromarray(window["image"][0].permute(1, 2, 0).numpy())
    scale = max(1, _SIDE // image.width)
    image = image.resize((image.width * scale, image.height * scale), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    intrinsics = window["intrinsics"][0].numpy()
    clouds = {"now": window["past"][0, -1], "true": window["future"][0, -1], "predicted": predicted_1HN3[0, -1]}
    for name, points_N3 in clouds.items():
        step = -(-len(points_N3) // _MAX_POINTS)
        uvw = points_N3[::step].numpy() @ intrinsics.T
        uvw = uvw[uvw[:, 2] > 1e-3]
        for u, v in uvw[:, :2] / uvw[:, 2:] * scale:
            pen.ellipse((u - 2, v - 2, u + 2, v + 2), fill=_COLORS[name])
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88, subsampling=0)  # dots keep their colours
    return buffer.getvalue()
