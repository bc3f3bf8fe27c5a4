"""Rows of a batch as the training window that ``KinecloudPolicy.forward`` takes.

Shapes: B batch, P past clouds, N points, S side of the square picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from align.lerobot_plugin.moments import past_of
from align.lerobot_plugin.rows import Row
from pretrain.model.configuration_kinecloud import KinecloudConfig
from pretrain.model.square import letterbox, letterbox_depth

_PAST = {
    "past": "past_clouds_PN3",
    "past_visible": "past_visible_PN",
    "past_valid": "past_valid",
    "past_opening": "past_opening_P",
    "past_grasp": "past_grasp_P3",
}


def window_of(
    rows: Sequence[Row], config: KinecloudConfig, embodiment: str, device: torch.device | str
) -> dict[str, Any]:
    """The same preprocessing as ``KinecloudPolicy.predict`` does, for many at once."""
    arrays: dict[str, list[np.ndarray]] = {}
    for row in rows:
        square_SS3, intrinsics = letterbox(row.image_u8_HW3, row.intrinsics_33, config.image_size)
        past = past_of(row.moments, config.past_times)
        found = {
            "image": np.ascontiguousarray(square_SS3.transpose(2, 0, 1)),
            "intrinsics": intrinsics.astype(np.float32),
            "proprio": row.proprio.astype(np.float32),
            **{name: past[argument] for name, argument in _PAST.items()},
        }
        if row.depth_HW is not None:
            found["depth"] = letterbox_depth(row.depth_HW, config.image_size).astype(np.float32)
        for name, array in found.items():
            arrays.setdefault(name, []).append(array)
    window: dict[str, Any] = {name: torch.from_numpy(np.stack(stack)).to(device) for name, stack in arrays.items()}
    return window | {"text": [row.instruction for row in rows], "embodiment": [embodiment] * len(rows)}
