"""The real detector: MediaPipe HandLandmarker in VIDEO mode, frame by frame, for one video.

A landmarker that may find two hands looks for the second one in every frame that shows only one, which doubles its
cost. So one hand is followed by a landmarker for one hand, and a second one is looked for now and then, and whenever
the hand appears or gets lost; while there are two, a landmarker for two follows both.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from data.episode import Frame
from extract.effector import Camera
from extract.hand.bundle import hand_bundle
from extract.hand.config import HandConfig
from extract.hand.skeleton import PALM

LANDMARKS = 21
SAME_HAND = 0.35  # two detections with palms closer than this share of their size are one hand


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

    @property
    def label(self) -> str:
        """``left hand`` or ``right hand``."""
        return f"{self.side} hand"

    @property
    def box_4(self) -> np.ndarray:
        """f64 x0, y0, x1, y1 pixels, around the landmarks; may reach beyond the picture."""
        return np.concatenate([self.landmarks_px.min(0), self.landmarks_px.max(0)])


def palm_centre(detection: Detection) -> np.ndarray:
    """[2] pixels."""
    return detection.landmarks_px[list(PALM)].mean(0)


def hand_size(detection: Detection) -> float:
    """Longer side of the box around the landmarks, pixels, at least 1."""
    return float(max(np.ptp(detection.landmarks_px, axis=0).max(), 1.0))


def without_duplicates(found: list[Detection]) -> list[Detection]:
    """Drops the less certain of two detections of the same hand."""
    kept: list[Detection] = []
    for detection in sorted(found, key=lambda d: -d.score):
        near = SAME_HAND * hand_size(detection)
        if all(np.linalg.norm(palm_centre(detection) - palm_centre(other)) > near for other in kept):
            kept.append(detection)
    return kept


class HandFinder:
    """Finds hands in any number of videos: a ``Detector`` (extract/steps.py) that holds no frame back."""

    def __init__(self, config: HandConfig):
        self.config = config

    @cached_property
    def bundle(self) -> Path:
        """The verified model file; downloaded at first use."""
        return hand_bundle(self.config.bundle)

    def __call__(
        self, frames: Iterable[Frame], camera: Camera | None = None
    ) -> Iterator[tuple[Frame, list[Detection]]]:
        """Every frame of one video with its hands, at once and in order. The camera is not needed."""
        config = self.config
        with HandDetector(self.bundle, config.max_hands, config.min_score, config.look_for_more_hz) as detector:
            for frame in frames:
                yield frame, detector(frame.image, frame.time)


class HandDetector:
    """Detects hands in consecutive frames of one video. Deterministic; holds state between frames, so one per video.

    bundle: the verified ``hand_landmarker.task``. max_hands: at most so many. min_score: below this there is no hand.
    look_for_more_hz: how often, in video time, a second hand is looked for while there is one; None = in every frame.
    """

    def __init__(self, bundle: Path, max_hands: int, min_score: float, look_for_more_hz: float | None = None):
        self._log = _Log()
        try:
            with self._log.quiet():
                self._many = _Landmarker(bundle, max_hands, min_score)
                self._one = self._look = None
                if max_hands > 1 and look_for_more_hz is not None:
                    self._one = _Landmarker(bundle, 1, min_score)
                    self._look = _Landmarker(bundle, max_hands, min_score, video=False)
        except BaseException:
            self._log.close()
            raise
        self._pause_s = 1 / look_for_more_hz if look_for_more_hz else 0.0
        self._following_many = self._one is None
        self._last_many = self._last_look = -np.inf
        self._seen = 0

    def __enter__(self) -> HandDetector:
        return self

    def __exit__(self, *_: object) -> None:
        for landmarker in (self._many, self._one, self._look):
            if landmarker is not None:
                landmarker.close()
        self._log.close()

    def __call__(self, image_HW3: np.ndarray, time_s: float) -> list[Detection]:
        """Hands in one RGB frame. Times must not go back; equal milliseconds are moved on by one, as MediaPipe asks."""
        with self._log.quiet():
            found = (
                self._follow_many(image_HW3, time_s) if self._following_many else self._follow_one(image_HW3, time_s)
            )
        self._seen = len(found)
        return found

    def _follow_many(self, image_HW3: np.ndarray, time_s: float) -> list[Detection]:
        found = self._many(image_HW3, time_s)
        if self._one is None:
            return found
        if len(without_duplicates(found)) > 1:
            self._last_many = time_s
        elif time_s - self._last_many > self._pause_s:
            self._following_many = False
            self._last_look = time_s
        return found

    def _follow_one(self, image_HW3: np.ndarray, time_s: float) -> list[Detection]:
        assert self._one is not None and self._look is not None
        found = self._one(image_HW3, time_s)
        changed = len(found) != self._seen
        if not found and self._seen:  # it looked where the hand was; the second time it looks everywhere
            found = self._one(image_HW3, time_s)
        if not found or not (changed or time_s - self._last_look >= self._pause_s - 1e-6):
            return found
        self._last_look = time_s
        more = without_duplicates(self._look(image_HW3, time_s))
        if len(more) < 2:
            return found
        self._following_many, self._last_many = True, time_s
        return more


class _Landmarker:
    """One HandLandmarker."""

    def __init__(self, bundle: Path, max_hands: int, min_score: float, video: bool = True):
        from mediapipe.tasks.python import BaseOptions, vision

        options = vision.HandLandmarkerOptions(
            base_options=BaseOptions(model_asset_path=str(bundle)),
            running_mode=vision.RunningMode.VIDEO if video else vision.RunningMode.IMAGE,
            num_hands=max_hands,
            min_hand_detection_confidence=min_score,
            min_hand_presence_confidence=min_score,
            min_tracking_confidence=min_score,
        )
        self._landmarker = vision.HandLandmarker.create_from_options(options)
        self._video = video
        self._last_ms = -1

    def close(self) -> None:
        self._landmarker.close()

    def __call__(self, image_HW3: np.ndarray, time_s: float) -> list[Detection]:
        from mediapipe import Image, ImageFormat

        image = Image(image_format=ImageFormat.SRGB, data=np.ascontiguousarray(image_HW3))
        if self._video:
            self._last_ms = max(round(time_s * 1000), self._last_ms + 1)
            result = self._landmarker.detect_for_video(image, self._last_ms)
        else:
            result = self._landmarker.detect(image)
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


class _Log:
    """Keeps the C++ log of MediaPipe off the terminal; what it said before an error is added to that error."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the detector
        self._terminal = os.dup(2)

    def close(self) -> None:
        os.close(self._terminal)
        self._file.close()

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        os.dup2(self._file.fileno(), 2)
        try:
            yield
        except Exception as error:
            self._file.seek(0)
            error.add_note(self._file.read()[-2000:].decode(errors="replace"))
            raise
        finally:
            os.dup2(self._terminal, 2)
