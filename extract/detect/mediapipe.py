"""Human hands by MediaPipe as a detector among others, for chains that follow pixels instead of a hand model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from pydantic import Field

from data.episode import Frame
from extract.effector import Camera
from extract.hand.bundle import NETWORKS
from extract.hand.config import HandConfig
from extract.hand.detect import HandFinder
from extract.steps import Detection
from pipeline.config import Settings


class MediapipeSettings(Settings):
    """Detection of human hands, with landmarks."""

    name: Literal["mediapipe"] = "mediapipe"
    max_hands: int = Field(default=2, ge=1, le=2, description="Hands per frame.")
    min_score: float = Field(default=0.5, gt=0, lt=1, description="MediaPipe's thresholds.")


class Mediapipe:
    """A Detector of hands. Their boxes carry landmarks, of which the ``landmarks`` segmenter makes masks."""

    def __init__(self, settings: MediapipeSettings):
        self._finder = HandFinder(HandConfig(max_hands=settings.max_hands, min_score=settings.min_score))
        self.weights_sha256 = {file: sha for file, (_, sha) in NETWORKS.items()}

    def __call__(self, frames: Iterable[Frame], camera: Camera) -> Iterator[tuple[Frame, Sequence[Detection]]]:
        return self._finder(frames, camera)
