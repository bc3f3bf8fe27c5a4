"""The real detector: MediaPipe HandLandmarker in VIDEO mode, frame by frame, for one video."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

LANDMARKS = 21


@dataclass(frozen=True)
class Detection:
    """One hand in one frame, as the detector saw it.

    side: ``left`` or ``right``, of the person. score: 0..1, the detector's certainty of the side.
    landmarks_px: f64 [21,2] pixels, in the order of skeleton.py.
    world_m: f64 [21,3] metres, hand-centred, OpenCV axes seen along the ray through the hand; its size is unreliable.
    """

    side: str
    score: float
    landmarks_px: np.ndarray
    world_m: np.ndarray


class HandDetector:
    """Detects hands in consecutive frames of one video. Deterministic; holds state between frames, so one per video.

    bundle: the verified ``hand_landmarker.task``. max_hands: at most so many. min_score: below this there is no hand.
    """

    def __init__(self, bundle: Path, max_hands: int, min_score: float):
        with _quiet():
            from mediapipe.tasks.python import BaseOptions, vision

            options = vision.HandLandmarkerOptions(
                base_options=BaseOptions(model_asset_path=str(bundle)),
                running_mode=vision.RunningMode.VIDEO,
                num_hands=max_hands,
                min_hand_detection_confidence=min_score,
                min_hand_presence_confidence=min_score,
                min_tracking_confidence=min_score,
            )
            self._landmarker = vision.HandLandmarker.create_from_options(options)
        self._last_ms = -1

    def __enter__(self) -> HandDetector:
        return self

    def __exit__(self, *_: object) -> None:
        self._landmarker.close()

    def __call__(self, image_HW3: np.ndarray, time_s: float) -> list[Detection]:
        """Hands in one RGB frame. Times must not go back; equal milliseconds are moved on by one, as MediaPipe asks."""
        with _quiet():
            from mediapipe import Image, ImageFormat

            stamp_ms = max(round(time_s * 1000), self._last_ms + 1)
            self._last_ms = stamp_ms
            image = Image(image_format=ImageFormat.SRGB, data=np.ascontiguousarray(image_HW3))
            result = self._landmarker.detect_for_video(image, stamp_ms)
        height, width = image_HW3.shape[:2]
        return [
            Detection(
                # The Tasks API of 1.x names the person's own side in an unmirrored image; older ones were mirrored.
                side=str(handedness[0].category_name).lower(),
                score=float(handedness[0].score),
                landmarks_px=np.array([[p.x * width, p.y * height] for p in landmarks]),
                world_m=np.array([[p.x, p.y, p.z] for p in world]),
            )
            for handedness, landmarks, world in zip(
                result.handedness, result.hand_landmarks, result.hand_world_landmarks, strict=True
            )
        ]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the C++ log of MediaPipe off the terminal; what it said before an error is added to that error."""
    saved = os.dup(2)
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 2)
        try:
            yield
        except Exception as error:
            log.seek(0)
            error.add_note(log.read()[-2000:].decode(errors="replace"))
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)
