"""One observation as users have it -> what a policy reads, and what is wrong with one that does not fit. Numpy only.

Shapes: P past clouds, N points, Q proprioception dimensions, S image side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .square import letterbox, letterbox_depth


@dataclass(frozen=True)
class Wanted:
    """What a policy reads. past: P. size: S, pixels. proprio: its Q names. embodiments: known names. depth: it learned
    from pictures with depth."""

    past: int
    size: int
    proprio: Sequence[str]
    embodiments: Sequence[str]
    depth: bool


def prepared(
    wanted: Wanted,
    image_u8_HW3: np.ndarray,
    instruction: str,
    past_clouds_PN3: np.ndarray,
    past_valid: np.ndarray,
    intrinsics_33: np.ndarray,
    proprio: np.ndarray,
    embodiment: str,
    past_visible_PN: np.ndarray | None = None,
    past_opening_P: np.ndarray | None = None,
    past_grasp_P3: np.ndarray | None = None,
    depth_HW: np.ndarray | None = None,
) -> dict[str, Any]:
    """This observation as arguments of ``KinecloudPolicy.forward``, without a batch dimension; no ``past_grasp`` where
    it is not known, no ``depth`` where the policy did not learn from it.

    image_u8_HW3: u8 RGB of any size; intrinsics_33: its pixels. past_clouds_PN3: metres, camera frame of this image, at
    ``config.past_times``; past_valid: bool [P]. proprio: [Q] as ``config.proprio_names``, physical units. embodiment:
    one of ``config.embodiments``, or ``unknown``. past_visible_PN: default all. past_opening_P: metres, NaN = unknown,
    default unknown. past_grasp_P3: metres, default the centroid of the points seen now; rows that ``past_valid`` rules
    out say nothing, except the last, which is now. depth_HW: metres, 0 = unknown, of what the image shows; needed if
    ``config.depth``, and not looked at otherwise.
    Raises ValueError naming the argument that does not fit, what was expected, and what to do.
    """
    image_u8_HW3, clouds_PN3 = np.asarray(image_u8_HW3), np.asarray(past_clouds_PN3)
    visible_PN = np.ones(clouds_PN3.shape[:2], bool) if past_visible_PN is None else past_visible_PN
    opening_P = np.full(wanted.past, np.nan) if past_opening_P is None else past_opening_P
    if wanted.depth and depth_HW is None:
        raise ValueError("depth_HW is missing; this policy learned from pictures with depth")
    if image_u8_HW3.dtype != np.uint8:
        raise ValueError(f"image_u8_HW3 has dtype {image_u8_HW3.dtype}; expected uint8, RGB from 0 to 255")
    _expect("image_u8_HW3", image_u8_HW3, (None, None, 3))
    _expect("past_clouds_PN3", clouds_PN3, (wanted.past, None, 3))
    _expect("past_valid", past_valid, (wanted.past,))
    _expect("past_visible_PN", visible_PN, clouds_PN3.shape[:2])
    _expect("past_opening_P", opening_P, (wanted.past,))
    _expect("intrinsics_33", intrinsics_33, (3, 3))
    _expect("proprio", proprio, (len(wanted.proprio),), f" ({', '.join(wanted.proprio)})")
    if past_grasp_P3 is not None:
        _expect("past_grasp_P3", past_grasp_P3, (wanted.past, 3))
    if depth_HW is not None:
        _expect("depth_HW", depth_HW, image_u8_HW3.shape[:2], " (as the image)")
    for name, values in (("image_u8_HW3", image_u8_HW3), ("past_clouds_PN3", clouds_PN3)):
        if values.size == 0:
            raise ValueError(f"{name} has shape {list(values.shape)}, which holds nothing; send one that does")
    _expect_finite("past_clouds_PN3", clouds_PN3, "mark missing clouds in past_valid and fill them with any numbers")
    _expect_finite("proprio", proprio, "send what the robot reads now")
    _expect_finite("intrinsics_33", intrinsics_33, "send [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]")
    if (focal := np.diagonal(intrinsics_33)[:2]).min() <= 0:
        raise ValueError(f"intrinsics_33 has focal lengths {focal.tolist()}; expected more than 0, in pixels")
    if embodiment not in wanted.embodiments:
        raise ValueError(f"embodiment is {embodiment!r}; this policy knows: {', '.join(wanted.embodiments)}")
    square_SS3, square_33 = letterbox(image_u8_HW3, np.asarray(intrinsics_33), wanted.size)
    window: dict[str, Any] = {
        "image": np.ascontiguousarray(square_SS3.transpose(2, 0, 1)),
        "intrinsics": square_33,
        "past": np.asarray(clouds_PN3, np.float32),
        "past_visible": np.asarray(visible_PN, bool),
        "past_valid": np.asarray(past_valid, bool),
        "past_opening": np.asarray(opening_P, np.float32),
        "proprio": np.asarray(proprio, np.float32),
        "text": instruction,
        "embodiment": embodiment,
    }
    if past_grasp_P3 is not None:
        window["past_grasp"] = _grasp(np.asarray(past_grasp_P3), window["past_valid"])
    if wanted.depth:
        window["depth"] = letterbox_depth(_depth(np.asarray(depth_HW)), wanted.size)
    return window


def _grasp(grasp_P3: np.ndarray, valid_P: np.ndarray) -> np.ndarray:
    """f32 [P,3]; what is not known at times that are not valid is as it is now, as nobody looks at it."""
    said_P = np.append(valid_P[:-1], True)
    _expect_finite("past_grasp_P3", grasp_P3[said_P], "leave it out where it is not known")
    return np.where(said_P[:, None] | np.isfinite(grasp_P3), grasp_P3, grasp_P3[-1]).astype(np.float32)


def _depth(depth_HW: np.ndarray) -> np.ndarray:
    """f32 [H,W]."""
    remedy = "put 0 where nothing was measured"
    _expect_finite("depth_HW", depth_HW, remedy)
    if depth_HW.min() < 0:
        raise ValueError(f"depth_HW holds negative values, down to {depth_HW.min():g} m; {remedy}")
    return depth_HW.astype(np.float32)


def _expect_finite(name: str, values: Any, remedy: str) -> None:
    """In f32, which is what a policy reads."""
    if not (np.abs(np.asarray(values, np.float64)) <= np.finfo(np.float32).max).all():
        raise ValueError(f"{name} holds values that are not finite; {remedy}")


def _expect(name: str, value: Any, shape: tuple[int | None, ...], meaning: str = "") -> None:
    found = np.shape(value)
    if len(found) != len(shape) or any(want not in (None, got) for want, got in zip(shape, found, strict=True)):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{name} has shape {list(found)}; expected [{wanted}]{meaning}")
