"""What is kept of the frames in which hands were looked for, until they are lifted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from extract.hand.detection import Detection
from extract.hand.identity import HandTrack
from extract.hand.patch import HandPatch
from extract.hand.skeleton import JOINTS
from extract.hand.trust import Seen


@dataclass(frozen=True)
class HandSight:
    """What is kept of one frame. Per detection: surface_z f64 [21] metres or None, sharpness (see signals.py), patch:
    the sensor's depth around the hand or None.

    repeated: the picture is the one before once more.
    """

    time: float
    detections: list[Detection]
    surface_z: list[np.ndarray | None]
    sharpness: list[float]
    patch: list[HandPatch | None]
    repeated: bool

    @property
    def found(self) -> bool:
        return bool(self.detections)

    @property
    def boxes(self) -> np.ndarray:
        """f64 [K,4] x0, y0, x1, y1 pixels."""
        return np.array([detection.box_4 for detection in self.detections]).reshape(-1, 4)


@dataclass(frozen=True)
class Sighting:
    """The sights of consecutive frames, one entry per frame in each field."""

    times: np.ndarray
    detections: list[list[Detection]]
    surface_z: list[list[np.ndarray | None]]
    sharpness: list[list[float]]
    patches: list[list[HandPatch | None]]
    repeated: np.ndarray

    @classmethod
    def of(cls, sights: Sequence[HandSight]) -> Sighting:
        """The same, field by field."""
        return cls(
            np.array([sight.time for sight in sights]),
            [sight.detections for sight in sights],
            [sight.surface_z for sight in sights],
            [sight.sharpness for sight in sights],
            [sight.patch for sight in sights],
            np.array([sight.repeated for sight in sights], bool),
        )

    def number(self, slot: int, detection: Detection) -> int:
        """Which one of the frame's detections it is."""
        return next(i for i, found in enumerate(self.detections[slot]) if found is detection)

    def without_depth(self) -> Sighting:
        """The same, as if there had been no depth sensor."""
        nothing = [[None] * len(found) for found in self.detections]
        return replace(self, surface_z=nothing, patches=nothing)


def seen_of(track: HandTrack, sighting: Sighting) -> Seen:
    """The frames in which a hand was detected, as trust.py takes them."""
    numbered = [(slot, sighting.number(slot, hand)) for slot, hand in zip(track.slots, track.detections, strict=True)]
    looks = [hand.second_look for hand in track.detections]
    return Seen(
        time_K=sighting.times[track.slots],
        landmarks_K212=np.array([hand.landmarks_px for hand in track.detections]),
        world_K213=np.array([hand.world_m for hand in track.detections]),
        right_K=np.array([hand.side == "right" for hand in track.detections]),
        score_K=np.array([hand.score for hand in track.detections]),
        sharpness_K=np.array([sighting.sharpness[slot][number] for slot, number in numbered]),
        repeated_K=sighting.repeated[track.slots],
        place_K=np.array([np.nan if look is None else look.place for look in looks]),
        mirrored_right_K=np.array([np.nan if look is None else look.right for look in looks]),
        surface_z_K21=np.array(
            [
                np.full(JOINTS, np.nan) if (depth := sighting.surface_z[slot][number]) is None else depth
                for slot, number in numbered
            ]
        ),
    )
