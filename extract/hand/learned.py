"""Hands whose distance comes from a depth network: tied to the hand's size, made consistent over the clip."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from data.episode import Frame
from extract.effector import Camera, EffectorTrack, Extraction
from extract.gates import Gate
from extract.hand.config import HandConfig
from extract.hand.extractor import HandExtractor
from extract.hand.lifted import LiftedHand
from extract.hand.observe import sample_surface_depth
from extract.hand.sight import HandSight, Sighting
from extract.hand.skeleton import PALM_SIZE, RADII
from extract.steps import DepthAnchor, DepthMaps, Shot


@dataclass(frozen=True)
class DeepSight:
    """A sight of hands with its frame, which the depth network needs."""

    hand: HandSight
    frame: Frame

    @property
    def time(self) -> float:
        return self.hand.time

    @property
    def found(self) -> bool:
        return self.hand.found

    @property
    def boxes(self) -> np.ndarray:
        return self.hand.boxes


class LearnedDepthHands:
    """A HandExtractor with a depth network in the place of a sensor; where there is a sensor, that is used.

    Hands are placed by their size first; there they anchor the network's depth, and are fitted again to that.
    depth: a DepthSource with ``weights_sha256``.
    """

    nothing = HandExtractor.nothing

    def __init__(self, config: HandConfig, depth: Any, name: str):
        self.hands = HandExtractor(config)
        self.depth = depth
        self.name = f"{self.hands.name}+{name}"
        self.weights_sha256 = {**self.hands.weights_sha256, **depth.weights_sha256}

    @property
    def gates(self) -> Mapping[str, Gate | None]:
        return self.hands.gates

    def look(self, frames: Iterable[Frame], camera: Camera) -> Iterator[DeepSight]:
        """As HandExtractor.look; keeps every frame until its stretch is complete."""
        waiting: deque[Frame] = deque()

        def noted() -> Iterator[Frame]:
            for frame in frames:
                waiting.append(frame)
                yield frame

        for sight in self.hands.look(noted(), camera):
            yield DeepSight(sight, waiting.popleft())

    def lift(self, sights: Sequence[DeepSight], camera: Camera) -> Extraction:
        """As HandExtractor.lift, at the network's distances."""
        plain = [sight.hand for sight in sights]
        placed, rejections = self.hands.hands(Sighting.of(plain), camera)
        if not placed or any(hand.placed.sensed for hand in placed):
            return Extraction([self.hands.track(hand, camera) for hand in placed], rejections)
        anchors = [anchor for hand in placed for anchor in hand_anchors(hand)]
        depth = self.depth(Shot([sight.frame for sight in sights], camera), anchors)
        distance = float(np.median(np.concatenate([hand.joints_T213[..., 2].mean(1) for hand in placed])))
        fitted = self.hands.with_depth_noise(depth.sigma * distance)
        deep = [_with_depth(sight, depth.maps[slot]) for slot, sight in enumerate(plain)]
        hands, rejections = fitted.hands(Sighting.of(deep), camera)
        return Extraction([_learned(fitted.track(hand, camera), hand, depth) for hand in hands], rejections)


def hand_anchors(hand: LiftedHand) -> list[DepthAnchor]:
    """The skin before every joint, in every frame in which the hand was measured: known as well as its size is."""
    radii_21 = RADII * (hand.placed.palm_m / PALM_SIZE)
    anchors = []
    for row in np.flatnonzero(hand.measured_T):
        depth_21 = hand.joints_T213[row, :, 2] - radii_21
        sigma_21 = np.full(len(depth_21), hand.placed.sigma_T2[row, 1] / depth_21.mean())
        anchors.append(DepthAnchor(int(hand.slots[row]), hand.landmarks_T212[row], depth_21, sigma_21, "assumed"))
    return anchors


def _with_depth(sight: HandSight, depth_HW: np.ndarray | None) -> HandSight:
    if depth_HW is None:
        return sight
    return replace(sight, surface_z=[sample_surface_depth(depth_HW, None, d.landmarks_px) for d in sight.detections])


def _learned(track: EffectorTrack, hand: LiftedHand, depth: DepthMaps) -> EffectorTrack:
    """The track says where its depth comes from; what all of its distances have in common widens sigma."""
    if not hand.placed.sensed:
        return track
    distance_T = track.points[..., 2].mean(1)
    along_T = np.hypot(track.sigma[:, 1], depth.sigma * distance_T)
    sigma_T2 = np.stack([track.sigma[:, 0], along_T], -1).astype(np.float32)
    return replace(track, sigma=sigma_T2, scale=depth.scale, depth_source=depth.source)
