"""A batch of LeRobot as observations of single environments, in the terms of ``KinecloudPolicy.act``.

Shapes: B batch, T moments, N points, Q proprioception dimensions, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from align.lerobot_plugin.names import (
    DEPTH,
    GRASP,
    INTRINSICS,
    OPENING,
    PAD,
    POINTS,
    STATE,
    TASK,
    TIME,
    VISIBLE,
    WORLD_FROM_CAMERA,
)
from align.moments import Moments, Past
from align.serve.rejected import problem
from pretrain.model.configuration_kinecloud import KinecloudConfig

SHAPES = {POINTS: "[B, N, 3]", INTRINSICS: "[B, 3, 3]", STATE: "[B, Q]"}
MM = 0.001


@dataclass(frozen=True)
class Row:
    """One environment of a batch. image: u8 RGB; intrinsics: its pixels. depth_HW: metres, 0 = unknown, or None."""

    moments: Moments
    image_u8_HW3: np.ndarray
    depth_HW: np.ndarray | None
    intrinsics_33: np.ndarray
    proprio: np.ndarray
    instruction: str

    def observation(self, embodiment: str, past: Past) -> dict[str, Any]:
        """The arguments of ``KinecloudPolicy.act``."""
        return {
            "image_u8_HW3": self.image_u8_HW3,
            "instruction": self.instruction,
            "intrinsics_33": self.intrinsics_33,
            "proprio": self.proprio,
            "embodiment": embodiment,
            "depth_HW": self.depth_HW,
            **past.arguments(),
        }


def rows_of(batch: Mapping[str, Any], config: KinecloudConfig, camera: str, step_s: float, now_s: float) -> list[Row]:
    """The rows of a batch, with the moments that it brings itself: one, or those of lerobot's delta timestamps.

    camera: name of the picture's feature. step_s: seconds between frames; now_s: seconds of the present one, where
    the batch tells no time. Raises ValueError with a line for each feature that is missing or does not fit.
    """
    wanted = [POINTS, INTRINSICS, STATE, camera, TASK, *([DEPTH] if config.depth else [])]
    if missing := [name for name in wanted if name not in batch]:
        found = ", ".join(sorted(name for name in batch if name.startswith("observation.") or name == TASK))
        lines = [
            problem(name, "nothing", SHAPES.get(name, "a batch of it"), f"The batch holds: {found or 'nothing'}.")
            for name in missing
        ]
        raise ValueError("\n".join(lines))
    points = _numbers(batch[POINTS])
    if points.ndim not in (3, 4) or points.shape[-1] != 3:
        raise ValueError(problem(POINTS, str(list(points.shape)), "[B, N, 3] or [B, T, N, 3]", "Send metres."))
    over_time = points.ndim == 4
    points_BTN3 = points if over_time else points[:, None]
    size_B, moments, count = points_BTN3.shape[:3]

    def told(name: str, shape: tuple[int, ...], otherwise: float | bool) -> np.ndarray:
        """[B,T,...] of a feature that may be left out."""
        if name not in batch:
            dtype = bool if isinstance(otherwise, bool) else np.float32
            return np.full((size_B, moments, *shape), otherwise, dtype)
        return _shaped(name, _numbers(batch[name]), (size_B, moments, *shape))

    times_BT = now_s + step_s * np.tile(np.arange(1 - moments, 1, dtype=np.float64), (size_B, 1))
    if TIME in batch:
        times_BT = _shaped(TIME, _f64(batch[TIME]), (size_B, moments))
    visible_BTN = told(VISIBLE, (count,), True) > 0.5
    opening_BT, grasp_BT3 = told(OPENING, (), np.nan), told(GRASP, (3,), np.nan)
    poses_BT44 = np.tile(np.eye(4, dtype=np.float32), (size_B, moments, 1, 1))
    if WORLD_FROM_CAMERA in batch:
        poses_BT44 = told(WORLD_FROM_CAMERA, (4, 4), 0)
    known_BT = ~(told(POINTS + PAD, (), False) > 0.5)
    now = {name: _now(batch[name], over_time) for name in wanted if name != TASK}
    images_BHW3 = _pictures(camera, now[camera])
    instructions = _instructions(batch[TASK], size_B)
    shapes = {INTRINSICS: (size_B, 3, 3), STATE: (size_B, len(config.proprio_names))}
    intrinsics_B33, proprio_BQ = (_shaped(name, _numbers(now[name]), shape) for name, shape in shapes.items())
    depth_BHW = None
    if config.depth:
        depth_BHW = _shaped(DEPTH, _numbers(now[DEPTH]), images_BHW3.shape[:3]).astype(np.float32) * np.float32(MM)
    rows = []
    for row in range(size_B):
        known = known_BT[row]
        arrays_BT = (times_BT, points_BTN3, visible_BTN, opening_BT, grasp_BT3, poses_BT44)
        seen = Moments(*(array_BT[row][known] for array_BT in arrays_BT))
        depth_HW = None if depth_BHW is None else depth_BHW[row]
        rows.append(
            Row(seen, images_BHW3[row], depth_HW, intrinsics_B33[row], proprio_BQ[row], instructions[row])
        )  # fmt: skip
    return rows


def _numbers(values: Tensor) -> np.ndarray:
    array = torch.as_tensor(values).detach().cpu().numpy()
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _f64(values: Tensor) -> np.ndarray:
    """Times keep their digits: seconds since 1970 in f32 are two minutes apart."""
    return torch.as_tensor(values).detach().cpu().double().numpy()


def _now(values: Tensor, over_time: bool) -> Tensor:
    return values[:, -1] if over_time else values


def _shaped(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The array without or with axes of length 1. Raises ValueError where it is something else."""
    if [side for side in array.shape if side != 1] != [side for side in shape if side != 1]:
        raise ValueError(problem(name, str(list(array.shape)), str(list(shape)), "Hold the batch against the policy."))
    return array.reshape(shape)


def _pictures(name: str, values: Tensor) -> np.ndarray:
    """[B,3,H,W] from 0 to 1, or u8, as u8 [B,H,W,3]."""
    if values.ndim != 4 or values.shape[1] != 3:
        raise ValueError(problem(name, str(list(values.shape)), "[B, 3, H, W]", "Send RGB, channels first."))
    values = values.detach().cpu()
    if values.dtype != torch.uint8:
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= 1):
            remedy = "lerobot's pictures span 0 to 1; take off a normalisation of pictures."
            raise ValueError(problem(name, f"values {low:g} to {high:g}", "0 to 1", remedy))
        values = (values * 255).round().to(torch.uint8)
    return np.ascontiguousarray(values.numpy().transpose(0, 2, 3, 1))


def _instructions(words: Any, size: int) -> list[str]:
    found = [words] if isinstance(words, str) else list(words)
    if not all(isinstance(text, str) for text in found):
        raise ValueError(problem(TASK, f"{type(words).__name__} of no texts", "texts", "Send instructions in words."))
    if len(found) != size:
        raise ValueError(problem(TASK, f"{len(found)} texts", f"{size}, one per row", "Send one instruction per row."))
    return found
