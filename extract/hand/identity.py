"""Which detection is which hand: detections of consecutive frames, linked into tracks of one hand each.

The detector's order means nothing: when two hands pass each other it may follow the wrong one. A hand is the one that
is where it was expected to be, of the size, in the pose and on the side that it had.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from extract.hand.detection import Detection, change, hand_size, palm_centre, without_duplicates

REACH = 1.0  # a hand is looked for this many hand sizes around its expected place ...
REACH_PER_S = 6.0  # ... and this much further for every second it was not seen
OTHER_SIDE = 0.25  # hand sizes that a change of side costs
OTHER_LOOKS = 2.0  # ... and another pose and size, see detection.change
ABSENT_PER_S = 4.0  # ... and every second it was not seen: of two hands, the one that was in view goes on
FORGOTTEN_S = 0.3  # after so long without the hand, size and pose count half


@dataclass
class HandTrack:
    """One hand's detections: ``slots`` are positions in the frame list, increasing."""

    slots: list[int] = field(default_factory=list)
    detections: list[Detection] = field(default_factory=list)
    last_time: float = 0.0
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(2))

    @property
    def votes(self) -> float:
        """Sum of scores, positive for a right hand."""
        return sum(d.score if d.side == "right" else -d.score for d in self.detections)

    @property
    def side(self) -> str:
        """The side that most of the detector's certainty speaks for."""
        return "right" if self.votes >= 0 else "left"

    def expected_centre(self, time: float) -> np.ndarray:
        """Where the palm would be at constant velocity, pixels. Velocity is trusted for a tenth of a second."""
        return palm_centre(self.detections[-1]) + self.velocity * min(time - self.last_time, 0.1)

    def add(self, slot: int, time: float, detection: Detection) -> None:
        if self.detections and time > self.last_time:
            moved = palm_centre(detection) - palm_centre(self.detections[-1])
            self.velocity = moved / (time - self.last_time)
        self.slots.append(slot)
        self.detections.append(detection)
        self.last_time = time


def link(times: np.ndarray, detections: list[list[Detection]], max_gap_s: float) -> list[HandTrack]:
    """Tracks of single hands, in the order in which they begin. A hand not seen for longer than ``max_gap_s`` ends."""
    step = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    tracks: list[HandTrack] = []
    for slot, (time, found) in enumerate(zip(times, detections, strict=True)):
        found = without_duplicates(found)
        live = [track for track in tracks if time - track.last_time <= max_gap_s + 1.5 * step]
        cost = np.array([[_distance(track, detection, time) for detection in found] for track in live])
        taken = set()
        if cost.size:
            for row, column in zip(*linear_sum_assignment(np.minimum(cost, 1e6)), strict=True):
                if np.isfinite(cost[row, column]):
                    live[row].add(slot, time, found[column])
                    taken.add(column)
        for column, detection in enumerate(found):
            if column not in taken:
                track = HandTrack()
                track.add(slot, time, detection)
                tracks.append(track)
    return tracks


def _distance(track: HandTrack, detection: Detection, time: float) -> float:
    """How unlike the hand a detection is: hand sizes between the expected and the found palm, and what else differs;
    infinite when out of reach."""
    last, gone_s = track.detections[-1], time - track.last_time
    size, last_size = hand_size(detection), hand_size(last)
    distance = float(np.linalg.norm(palm_centre(detection) - track.expected_centre(time))) / max(size, last_size)
    if distance > REACH + REACH_PER_S * gone_s:
        return np.inf
    looks = OTHER_LOOKS * change(last, detection) / (1 + gone_s / FORGOTTEN_S)
    looks += ABSENT_PER_S * gone_s
    return distance + looks + (OTHER_SIDE if detection.side != track.side else 0.0)
