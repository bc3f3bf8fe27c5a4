"""One observation as users have it -> the tensors that a graph takes.

Shapes: P past clouds, N points, Q proprioception dimensions, S image side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from align.graph.noise import normal
from align.graph.words import ids_of
from pretrain.model.square import letterbox, letterbox_depth


def feeds_of(
    document: Mapping[str, Any],
    tokenizer: Any,
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
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Arguments and defaults as of KinecloudPolicy.predict; seed: of the noise of a graph that samples.

    document: the graph's metadata. Raises ValueError naming the argument that does not fit and what was expected.
    """
    wanted = {row["name"]: row for row in document["inputs"]}
    past, names, size = len(document["past_times_s"]), document["proprio"]["names"], document["picture"]["size"]
    image_u8_HW3, clouds_PN3 = np.asarray(image_u8_HW3), np.asarray(past_clouds_PN3, np.float32)
    if image_u8_HW3.dtype != np.uint8:
        raise ValueError(f"image_u8_HW3 has dtype {image_u8_HW3.dtype}; expected uint8, RGB from 0 to 255")
    if "depth" in wanted and depth_HW is None:
        raise ValueError("depth_HW is missing; this policy learned from pictures with depth")
    _expect("past_clouds_PN3", clouds_PN3, (past, None, 3))
    if clouds_PN3.shape[1] < 2:
        raise ValueError(f"past_clouds_PN3 has {clouds_PN3.shape[1]} points; a graph takes 2 or more")
    opening_P = np.full(past, np.nan) if past_opening_P is None else past_opening_P
    visible_PN = np.ones(clouds_PN3.shape[:2], bool) if past_visible_PN is None else past_visible_PN
    grasp_P3 = np.full((past, 3), np.nan) if past_grasp_P3 is None else past_grasp_P3
    for name, value, shape in (
        ("image_u8_HW3", image_u8_HW3, (None, None, 3)),
        ("past_valid", past_valid, (past,)),
        ("past_visible_PN", visible_PN, clouds_PN3.shape[:2]),
        ("past_opening_P", opening_P, (past,)),
        ("past_grasp_P3", grasp_P3, (past, 3)),
        ("intrinsics_33", intrinsics_33, (3, 3)),
        ("proprio", proprio, (len(names),)),
        *([("depth_HW", depth_HW, image_u8_HW3.shape[:2])] if depth_HW is not None else []),
    ):
        _expect(name, value, shape)
    for name, value in (("past_clouds_PN3", clouds_PN3), ("proprio", proprio), ("intrinsics_33", intrinsics_33)):
        if not np.isfinite(np.asarray(value, np.float64)).all():
            raise ValueError(f"{name} holds values that are not finite; mark missing clouds in past_valid instead")
    if embodiment not in document["embodiments"]:
        raise ValueError(f"embodiment is {embodiment!r}; this policy knows: {', '.join(document['embodiments'])}")
    square_u8_SS3, square_33 = letterbox(image_u8_HW3, np.asarray(intrinsics_33), size)
    values: dict[str, Any] = {
        "image": square_u8_SS3.transpose(2, 0, 1),
        "intrinsics": square_33,
        "past": clouds_PN3,
        "past_visible": visible_PN,
        "past_valid": past_valid,
        "past_opening": opening_P,
        "past_grasp": grasp_P3,
        "proprio": proprio,
    }
    if "depth" in wanted:
        values["depth"] = letterbox_depth(np.asarray(depth_HW), size)
    feeds = {name: np.ascontiguousarray(value, wanted[name]["dtype"])[None] for name, value in values.items()}
    feeds["embodiment"] = np.array([document["embodiments"][embodiment]], np.int64)
    feeds["text_ids"] = ids_of(instruction, document["text"], tokenizer)
    for name in ("noise", "action_noise"):
        if name in wanted:
            feeds[name] = normal([clouds_PN3.shape[1] if n == "N" else n for n in wanted[name]["shape"]], seed)
    return {name: feeds[name] for name in wanted}


def _expect(name: str, value: Any, shape: tuple[int | None, ...]) -> None:
    found = np.shape(value)
    if len(found) != len(shape) or any(want not in (None, got) for want, got in zip(shape, found, strict=True)):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{name} has shape {list(found)}; expected [{wanted}]")
