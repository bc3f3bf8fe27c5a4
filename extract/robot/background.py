"""What a static camera sees when nothing stands in front of it, and what stands out from that."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SAMPLED = 60  # frames that the background is the median of
DIFFERS = 14  # grey levels in any colour: more than compression noise


def background(images: Sequence[np.ndarray]) -> np.ndarray:
    """uint8 [H,W,3]: the median colour of every pixel over the shot. What rests most of the time is part of it."""
    chosen = np.unique(np.linspace(0, len(images) - 1, min(SAMPLED, len(images))).round().astype(int))
    return np.median(np.stack([images[k] for k in chosen]), axis=0).astype(np.uint8)


def stands_out(image_HW3: np.ndarray, background_HW3: np.ndarray) -> np.ndarray:
    """bool [H,W]: the picture is not the background there."""
    return np.abs(image_HW3.astype(np.int16) - background_HW3).max(-1) > DIFFERS


def foreground_share(foreground_THW: np.ndarray, pixels_TK2: np.ndarray, seen_TK: np.ndarray) -> np.ndarray:
    """f64 [K]: in what share of the frames where it is seen a point lies on something that stands out.

    foreground_THW: bool. pixels_TK2: pixels, the centre of the first at 0.5, NaN allowed where not seen.
    """
    height, width = foreground_THW.shape[1:]
    cell = np.floor(np.where(seen_TK[..., None], pixels_TK2, 0)).astype(int)
    column, row = np.clip(cell[..., 0], 0, width - 1), np.clip(cell[..., 1], 0, height - 1)
    inside = foreground_THW[np.arange(len(cell))[:, None], row, column] & seen_TK
    return inside.sum(0) / np.maximum(seen_TK.sum(0), 1)
