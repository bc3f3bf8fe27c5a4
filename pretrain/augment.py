"""Random changes of training windows that keep them true.

Turning the camera about its axis, zooming and shifting the image are exact: pixels are moved by the very map that the
changed camera implies, and clouds are expressed in the changed camera frame.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.config import AugmentSettings
from pretrain.model.configuration_kinecloud import UNKNOWN_EMBODIMENT
from pretrain.model.geometry import rotation_matrix
from pretrain.randomness import WindowRandom


def augment(
    window: dict[str, Any], settings: AugmentSettings, random: WindowRandom, progress: float = 1.0
) -> dict[str, Any]:
    """A changed copy of a batch of windows, as ``random`` says. progress: share of the training that is done."""
    window = dict(window)
    device = window["past"].device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return random.uniform(low, high, *shape).to(device)

    roll_B = uniform(-settings.roll_deg, settings.roll_deg) * (torch.pi / 180)
    zoom_B = uniform(1 - settings.zoom, 1 + settings.zoom)
    shift_B2 = uniform(-settings.shift, settings.shift, 2) * window["image"].shape[-1]
    gain_B3 = uniform(1 - settings.color, 1 + settings.color, 3) * uniform(1 - settings.color, 1 + settings.color, 1)
    if settings.roll_deg or settings.zoom or settings.shift:
        change_camera(window, roll_B, zoom_B, shift_B2)
    if settings.color:
        image = window["image"].float() * gain_B3[..., None, None]
        window["image"] = image.round().clamp(0, 255).to(torch.uint8)
    window["image_present"] = uniform(0, 1) >= settings.drop_image
    for field, share, empty in (
        ("text", settings.drop_text, ""),
        ("embodiment", settings.drop_embodiment, UNKNOWN_EMBODIMENT),
    ):
        dropped = (random.uniform(0, 1) < share).tolist()
        window[field] = [empty if drop else value for value, drop in zip(window[field], dropped, strict=True)]
    return window


def change_camera(window: dict[str, Any], roll_B: Tensor, zoom_B: Tensor, shift_B2: Tensor) -> None:
    """Replaces image, intrinsics and clouds by those of a camera turned by ``roll_B`` (radians, about z), with focal
    lengths times ``zoom_B`` and the principal point moved by ``shift_B2`` pixels. Beyond the old image is black."""
    rotation_B33 = rotation_matrix(torch.stack([torch.zeros_like(roll_B), torch.zeros_like(roll_B), roll_B], -1))
    for field in ("past", "future"):
        window[field] = window[field] @ rotation_B33.transpose(1, 2)[:, None]
    before_B33 = window["intrinsics"]
    after_B33 = before_B33.clone()
    after_B33[:, :2, :2] *= zoom_B[:, None, None]
    after_B33[:, :2, 2] += shift_B2
    old_from_new_B33 = before_B33 @ rotation_B33.transpose(1, 2) @ torch.linalg.inv(after_B33)
    size = window["image"].shape[-1]
    # grid_sample counts from -1 to 1 over the whole image: pixel = (x + 1) * size / 2
    pixel_from_grid = torch.tensor(
        [[size / 2, 0, size / 2], [0, size / 2, size / 2], [0, 0, 1]], device=before_B33.device
    )
    theta_B23 = (torch.linalg.inv(pixel_from_grid) @ old_from_new_B33 @ pixel_from_grid)[:, :2]
    grid = F.affine_grid(theta_B23, list(window["image"].shape), align_corners=False)
    image = F.grid_sample(window["image"].float(), grid, mode="bilinear", align_corners=False)
    window["image"], window["intrinsics"] = image.round().to(torch.uint8), after_B33
