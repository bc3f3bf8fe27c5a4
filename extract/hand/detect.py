"""The real detector: MediaPipe HandLandmarker in VIDEO mode, frame by frame, for one video.

A landmarker that may find two hands looks for the second one in every frame that shows only one, which doubles its
cost. So every hand is followed by a landmarker of its own, and one that has nothing to follow looks for a hand now and
then, and whenever a hand appears or gets lost. It looks at the picture with the other hands painted over: that leaves
nothing but a new hand to be found.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data.episode import Frame
from extract.effector import Camera
from extract.hand.bundle import hand_bundle
from extract.hand.config import HandConfig
from extract.hand.detection import (
    Detection,
    change,
    is_new,
    painted_over,
    palm_centre,
    picture_around,
    with_second_look,
    without_duplicates,
)

NOTHING = np.zeros((64, 64, 3), np.uint8)  # a picture without hands


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
            looks = _SecondLooks(detector, config.second_look_hz)
            for frame in frames:
                yield frame, looks(frame, detector(frame.image, frame.time))


class _SecondLooks:
    """Looks again at one hand at a time in turn, and at hands that are new."""

    def __init__(self, detector: HandDetector, rate_hz: float | None):
        self._detector, self._rate_hz = detector, rate_hz
        self._next, self._seen, self._appeared = -np.inf, 0, False
        self._last: Detection | None = None

    def __call__(self, frame: Frame, found: list[Detection]) -> list[Detection]:
        self._appeared = len(found) > self._seen or (self._appeared and bool(found))
        self._seen = len(found)
        soon = self._next - 0.75 / self._rate_hz if self._rate_hz else 0.0
        if self._rate_hz is None or not found or frame.time < (soon if self._appeared else self._next):
            return found
        self._next, appeared, self._appeared = frame.time + 1 / self._rate_hz, self._appeared, False
        # The one that is furthest from the last one: with two hands they take turns.
        ranks = [
            0.0 if self._last is None else -float(np.linalg.norm(palm_centre(hand) - palm_centre(self._last)))
            for hand in found
        ]
        chosen = found if appeared else [found[int(np.argmin(ranks))]]
        self._last = chosen[-1]
        return [
            self._looked_at_again(hand, frame.image) if any(hand is one for one in chosen) else hand for hand in found
        ]

    def _looked_at_again(self, hand: Detection, image_HW3: np.ndarray) -> Detection:
        part, corner = picture_around(image_HW3, hand)
        return with_second_look(hand, self._detector.afresh(cv2.flip(part, 1)), corner, part.shape[1])


class HandDetector:
    """Detects hands in consecutive frames of one video. Deterministic; holds state between frames, so one per video.

    bundle: the verified ``hand_landmarker.task``. max_hands: at most so many. min_score: below this there is no hand.
    look_for_more_hz: how often, in video time, further hands are looked for while there is one; None = in every frame.
    """

    def __init__(self, bundle: Path, max_hands: int, min_score: float, look_for_more_hz: float | None = None):
        self._log = _Log()
        try:
            with self._log.quiet():
                self._landmarkers = [_Landmarker(bundle, min_score) for _ in range(max_hands)]
                self._afresh = _Landmarker(bundle, min_score, max_hands)
        except BaseException:
            self._log.close()
            raise
        self._pause_s = 1 / look_for_more_hz if look_for_more_hz else 0.0
        self._last_look = -np.inf

    def __enter__(self) -> HandDetector:
        return self

    def __exit__(self, *_: object) -> None:
        for landmarker in (*self._landmarkers, self._afresh):
            landmarker.close()
        self._log.close()

    def __call__(self, image_HW3: np.ndarray, time_s: float) -> list[Detection]:
        """Hands in one RGB frame. Times must not go back; equal milliseconds are moved on by one, as MediaPipe asks."""
        with self._log.quiet():
            return self._detect(image_HW3, time_s)

    def afresh(self, image_HW3: np.ndarray) -> list[Detection]:
        """Hands in a picture of its own, as if there had been none before it."""
        with self._log.quiet():
            return self._afresh.still(image_HW3)

    def _detect(self, image_HW3: np.ndarray, time_s: float) -> list[Detection]:
        followed = [landmarker for landmarker in self._landmarkers if landmarker.hand is not None]
        found, changes, picture = [], [], Picture(image_HW3)
        for landmarker in followed:
            before, hand = landmarker.hand, landmarker.follow(picture, time_s)
            if before is not None and hand is not None:
                found.append(hand)
                changes.append(change(before, hand))
        # Of two that have come to follow one hand, the one that saw less of a change has followed it all along.
        found = without_duplicates(found, changes)
        for landmarker in followed:
            if not any(landmarker.hand is hand for hand in found):
                landmarker.hand = None
        due = len(found) < max(len(followed), 1) or time_s - self._last_look >= self._pause_s - 1e-6
        free = [landmarker for landmarker in self._landmarkers if landmarker.hand is None]
        if not due or not free:
            return found
        self._last_look = time_s
        for landmarker in free:
            hand = landmarker.look(image_HW3, time_s, found)
            if hand is None:
                break
            found.append(hand)
        return found


class Picture:
    """A picture as MediaPipe takes it, copied once however many landmarkers look at it."""

    def __init__(self, image_HW3: np.ndarray):
        self._image_HW3 = image_HW3

    @cached_property
    def image(self) -> Any:
        from mediapipe import Image, ImageFormat

        return Image(image_format=ImageFormat.SRGB, data=np.ascontiguousarray(self._image_HW3))

    def detections(self, result: Any) -> list[Detection]:
        """What a landmarker found in it."""
        height, width = self._image_HW3.shape[:2]
        return [
            Detection(
                # The Tasks API of 1.x names the person's own side in an unmirrored image; older ones were mirrored.
                side=str(handedness[0].category_name).lower(),
                score=float(handedness[0].score),
                landmarks_px=np.array([[p.x * width, p.y * height] for p in landmarks]),
                world_m=np.array([[p.x, p.y, p.z] for p in world]),
                depth_px=np.array([p.z * width for p in landmarks]),
            )
            for handedness, landmarks, world in zip(
                result.handedness, result.hand_landmarks, result.hand_world_landmarks, strict=True
            )
        ]


class _Landmarker:
    """One HandLandmarker: it follows one hand (``hand``: as last seen; None: it is free), or looks at ``stills``."""

    def __init__(self, bundle: Path, min_score: float, stills: int = 0):
        from mediapipe.tasks.python import BaseOptions, vision

        options = vision.HandLandmarkerOptions(
            base_options=BaseOptions(model_asset_path=str(bundle)),
            running_mode=vision.RunningMode.IMAGE if stills else vision.RunningMode.VIDEO,
            num_hands=stills or 1,
            min_hand_detection_confidence=min_score,
            min_hand_presence_confidence=min_score,
            min_tracking_confidence=min_score,
        )
        self._landmarker = vision.HandLandmarker.create_from_options(options)
        self._last_ms = -1
        self._expects = False
        self.hand: Detection | None = None

    def close(self) -> None:
        self._landmarker.close()

    def follow(self, picture: Picture, time_s: float) -> Detection | None:
        """The hand near where it was."""
        self.hand = self._run(picture, time_s)
        return self.hand

    def look(self, image_HW3: np.ndarray, time_s: float, known: list[Detection]) -> Detection | None:
        """A hand that is none of the known ones, the one that is easiest to see, anywhere."""
        picture, expected = Picture(painted_over(image_HW3, known)), self._expects
        hand = _new(self._run(picture, time_s), known)
        if hand is None and expected:
            # MediaPipe looked where a hand was before, and looks in the whole picture only when there is none any more.
            if self._expects:
                self._run(Picture(NOTHING), time_s)
            hand = _new(self._run(picture, time_s), known)
        self.hand = hand
        return hand

    def still(self, image_HW3: np.ndarray) -> list[Detection]:
        """All hands in a picture that belongs to no video."""
        picture = Picture(image_HW3)
        return picture.detections(self._landmarker.detect(picture.image))

    def _run(self, picture: Picture, time_s: float) -> Detection | None:
        self._last_ms = max(round(time_s * 1000), self._last_ms + 1)
        found = picture.detections(self._landmarker.detect_for_video(picture.image, self._last_ms))
        self._expects = bool(found)
        return found[0] if found else None


def _new(hand: Detection | None, known: list[Detection]) -> Detection | None:
    """The hand, unless it is one of the known ones or what paint left of one."""
    if hand is None or not is_new(hand, known) or len(without_duplicates([*known, hand])) <= len(known):
        return None
    return hand


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
