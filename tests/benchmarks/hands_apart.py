"""Who is who among two hands, how soon a second one is seen, how good masks are, and what looking costs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from data.episode import Frame
from data.video import frames as read_frames
from extract.hand.bundle import hand_bundle
from extract.hand.config import HandConfig
from extract.hand.detect import HandFinder
from extract.hand.detection import Detection, hand_size
from extract.hand.extractor import HandExtractor
from extract.hand.identity import link
from extract.segment.landmarks import LandmarkMask
from extract.steps import Shot
from tests.benchmarks.trust_cases import Footage

NEAR = 0.3  # hand sizes between a detection and the true hand that it shows
FREE, INSIDE = 0.8, 1.0  # a hand is plain to see when the other leaves so much of it free and all of it is in view


def identity(clip: Footage) -> dict[str, Any]:
    """Swaps and losses in one clip of two hands, with the default rate of looking for more and with every frame's."""
    config = HandConfig()
    adaptive = _found(clip, config)
    always = _found(clip, config.model_copy(update={"look_for_more_hz": None}))
    owner = [_owners(clip, slot, found) for slot, found in enumerate(adaptive)]
    plain = _plain(clip)
    tracks = link(np.array([frame.time for frame in clip.frames]), adaptive, config.max_gap_s)
    owners, swaps = [], 0
    for track in tracks:
        known = [
            owner[slot][next(i for i, hand in enumerate(adaptive[slot]) if hand is detection)]
            for slot, detection in zip(track.slots, track.detections, strict=True)
        ]
        known = [who for who in known if who >= 0]
        owners.append(known)
        swaps += sum(a != b for a, b in pairwise(known))
    seen = np.array([[who in row for row in owner] for who in (0, 1)])
    return {
        "clip": clip.name,
        "swaps": swaps,
        "tracks": len([known for known in owners if len(known) > 5]),
        "seen": float(seen[plain].mean()),
        "seen_always": float(_seen(clip, always)[plain].mean()),
        "delays_s": _delays(clip, seen, _seen(clip, always)),
    }


def _found(clip: Footage, config: HandConfig) -> list[list[Detection]]:
    return [found for _, found in HandFinder(config)(clip.frames)]


def _owners(clip: Footage, slot: int, found: list[Detection]) -> list[int]:
    """For every detection the number of the true hand that it shows, -1 for none."""
    assert clip.truth_HT213 is not None
    true = clip.camera.project(clip.truth_HT213[:, slot])
    owners = []
    for hand in found:
        away = np.linalg.norm(hand.landmarks_px - true, axis=-1).mean(1) / hand_size(hand)
        owners.append(int(away.argmin()) if away.min() < NEAR else -1)
    return owners


def _seen(clip: Footage, found: list[list[Detection]]) -> np.ndarray:
    owners = [_owners(clip, slot, hands) for slot, hands in enumerate(found)]
    return np.array([[who in row for row in owners] for who in (0, 1)])


def _plain(clip: Footage) -> np.ndarray:
    """bool [2,T]: the hand is plain to see."""
    assert clip.truth_HT213 is not None and clip.uncovered_HT is not None
    pixels = clip.camera.project(clip.truth_HT213)
    inside = ((pixels >= 0) & (pixels <= np.array(clip.camera.image_size))).all(-1).mean(-1)
    return (inside >= INSIDE) & (clip.uncovered_HT >= FREE)


def _delays(clip: Footage, seen_2T: np.ndarray, always_2T: np.ndarray) -> list[float]:
    """Seconds by which a hand is found later than by looking for it in every frame, for every time it appears."""
    times = np.array([frame.time for frame in clip.frames])
    delays = []
    for seen, always in zip(seen_2T, always_2T, strict=True):
        for start in np.flatnonzero(always & ~np.roll(always, 1)):
            if start > 4 and always[max(start - 4, 0) : start].any():
                continue  # it was lost for a moment only
            later = np.flatnonzero(seen[start:])
            delays.append(float(times[start + later[0]] - times[start]) if len(later) else float("inf"))
    return delays


def mask_overlap(clip: Footage, every: int = 5) -> dict[str, list[float]]:
    """Intersection over union of masks from landmarks and the exact ones, with and without depth."""
    assert clip.mask_THW is not None
    shown = [
        (slot, frame, found[0]) for slot, (frame, found) in enumerate(HandFinder(HandConfig())(clip.frames)) if found
    ][::every]
    result: dict[str, list[float]] = {"colour": [], "colour and depth": []}
    for slot, frame, hand in shown:
        true = clip.mask_THW[slot]
        for name, depth in (("colour", None), ("colour and depth", frame.depth)):
            still = Frame(frame.index, frame.time, frame.image, depth)
            (mask,) = LandmarkMask()(Shot([still], clip.camera), [hand])
            assert mask is not None
            result[name].append(float((mask & true).sum() / max((mask | true).sum(), 1)))
    return result


def speed(path: Path, count: int = 120) -> dict[str, float]:
    """Frames per second of processor time: MediaPipe for two hands in a bare loop, and everything that looking does.

    Both decode the same frames first; decoding is not counted.
    """
    clip = [Frame(*frame) for frame in islice(read_frames(path, 20.0, None), count)]
    bare = _timed(_bare(clip))
    ours = _timed(iter(HandExtractor(HandConfig()).look(clip)))
    return {"bare_fps": count / bare, "look_fps": count / ours}


def _timed(work: Iterator[Any]) -> float:
    next(work)  # building the networks is not counted
    started = time.process_time()
    for _ in work:
        pass
    return time.process_time() - started


def _bare(clip: list[Frame]) -> Iterator[Any]:
    from mediapipe import Image, ImageFormat
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.HandLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=str(hand_bundle())),
        running_mode=vision.RunningMode.VIDEO,
        num_hands=2,
    )
    with vision.HandLandmarker.create_from_options(options) as landmarker:
        for frame in clip:
            image = Image(image_format=ImageFormat.SRGB, data=np.ascontiguousarray(frame.image))
            yield landmarker.detect_for_video(image, round(frame.time * 1000))
