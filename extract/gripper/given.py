"""The steps for an effector whose mask comes with the episode: nothing has to be found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import numpy as np

from data.episode import Frame
from extract.effector import Camera
from extract.steps import BoxDetection, Detection, Shot
from pipeline.config import Settings


class GivenSettings(Settings):
    """The mask in the episode's arrays."""

    name: Literal["given"] = "given"


class Given:
    """A Detector: the box around the frame's mask."""

    def __init__(self, settings: GivenSettings):
        self.weights_sha256: dict[str, str] = {}

    def __call__(self, frames: Iterable[Frame], camera: Camera) -> Iterator[tuple[Frame, list[Detection]]]:
        for frame in frames:
            yield frame, [] if (box := mask_box(frame.mask)) is None else [BoxDetection("given", 1.0, box)]


class GivenMask:
    """A Segmenter: the frame's own mask."""

    def __init__(self, settings: GivenSettings):
        self.weights_sha256: dict[str, str] = {}

    def __call__(self, shot: Shot, seen: Sequence[Detection | None]) -> list[np.ndarray | None]:
        return [frame.mask for frame in shot.frames]


def mask_box(mask_HW: np.ndarray | None) -> np.ndarray | None:
    """f64 x0, y0, x1, y1 pixels around a mask; None without one, or without a pixel in it."""
    if mask_HW is None or not mask_HW.any():
        return None
    rows, columns = np.flatnonzero(mask_HW.any(1)), np.flatnonzero(mask_HW.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], float)
