"""The steps that take the whole picture for the effector: points are followed all over it.

For labelled recordings in which nothing finds the effector: what moves in the picture is learned, whatever it is, as
in any-point trajectory modelling (Wen et al. 2024, arXiv 2401.00025).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import numpy as np

from data.episode import Frame
from extract.effector import Camera
from extract.steps import BoxDetection, Detection, Shot
from pipeline.config import Settings


class PictureSettings(Settings):
    """All of every frame."""

    name: Literal["picture"] = "picture"


class Picture:
    """A Detector: the box around the frame."""

    def __init__(self, settings: PictureSettings):
        self.weights_sha256: dict[str, str] = {}

    def __call__(self, frames: Iterable[Frame], camera: Camera) -> Iterator[tuple[Frame, list[Detection]]]:
        for frame in frames:
            height, width = frame.image.shape[:2]
            yield frame, [BoxDetection("picture", 1.0, np.array([0, 0, width, height], float))]


class PictureMask:
    """A Segmenter: all pixels."""

    def __init__(self, settings: PictureSettings):
        self.weights_sha256: dict[str, str] = {}

    def __call__(self, shot: Shot, seen: Sequence[Detection | None]) -> list[np.ndarray | None]:
        return [np.ones(frame.image.shape[:2], bool) for frame in shot.frames]
