"""One detected hand in one frame, and what can be said about several of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from extract.hand.skeleton import PALM

FLESH = 0.08  # share of a hand's size by which it reaches beyond its landmarks
SAME_HAND = 0.35  # two detections with palms closer than this share of their size are one hand


@dataclass(frozen=True)
class SecondLook:
    """What the detector says about the mirrored picture of the same frame.

    place: mean distance of the landmarks to those of the nearest hand there, hand sizes; infinite where there is none.
    right: the side of that hand, -1 (left) to 1, as certain as its label; 0 where there is none.
    """

    place: float
    right: float


@dataclass(frozen=True)
class Detection:
    """One hand in one frame, as the detector saw it.

    side: ``left`` or ``right``, of the person. score: 0..1, the detector's certainty of the side.
    landmarks_px: f64 [21,2] pixels, in the order of skeleton.py.
    world_m: f64 [21,3] metres, hand-centred, OpenCV axes seen along the ray through the hand; its size is unreliable.
    second_look: None where there was none.
    depth_px: f64 [21], how far each landmark lies behind the wrist, in pixels of the picture, along the ray through the
        hand; a second opinion beside world_m, and free of its size. None where the detector has none.
    """

    side: str
    score: float
    landmarks_px: np.ndarray
    world_m: np.ndarray
    second_look: SecondLook | None = None
    depth_px: np.ndarray | None = None

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


def change(before: Detection, after: Detection) -> float:
    """How much size and pose in the picture differ, hand sizes: the mean over the landmarks, and a factor of e counts
    as half a hand's size. 0.03 from frame to frame is usual, 0.2 is another hand."""
    sizes = hand_size(before), hand_size(after)
    poses = [(hand.landmarks_px - palm_centre(hand)) / size for hand, size in zip((before, after), sizes, strict=True)]
    return float(np.linalg.norm(poses[1] - poses[0], axis=-1).mean() + 0.5 * abs(np.log(sizes[1] / sizes[0])))


def without_duplicates(found: list[Detection], doubts: Sequence[float] | None = None) -> list[Detection]:
    """Drops the more doubtful of two detections of the same hand. doubts: one for each; default: the less certain."""
    order = np.argsort([-hand.score for hand in found] if doubts is None else doubts, kind="stable")
    kept: list[Detection] = []
    for detection in (found[number] for number in order):
        near = SAME_HAND * hand_size(detection)
        if all(np.linalg.norm(palm_centre(detection) - palm_centre(other)) > near for other in kept):
            kept.append(detection)
    return kept


def is_new(hand: Detection, known: Sequence[Detection]) -> bool:
    """Its palm is where no known hand is and no wrist of one: what paint leaves there may look like a hand."""
    x, y = map(float, palm_centre(hand))
    return all(cv2.pointPolygonTest(_outline(other), (x, y), True) < -FLESH * _open_size(other) for other in known)


def _outline(hand: Detection) -> np.ndarray:
    """Hull of the landmarks and of as much of the arm as a palm is long, i32 [K,1,2] pixels."""
    wrist, knuckle = hand.landmarks_px[0], hand.landmarks_px[9]
    return cv2.convexHull(np.rint([*hand.landmarks_px, 2 * wrist - knuckle]).astype(np.int32))


def picture_around(image_HW3: np.ndarray, hand: Detection) -> tuple[np.ndarray, np.ndarray]:
    """The part of the picture around a hand, a view of three hand sizes, and its place [2]: x, y of its corner."""
    height, width = image_HW3.shape[:2]
    x0, y0, x1, y1 = hand.box_4
    reach, x, y = 1.5 * hand_size(hand), (x0 + x1) / 2, (y0 + y1) / 2
    left, top = (int(np.clip(v - reach, 0, side - 32)) for v, side in ((x, width), (y, height)))
    right, bottom = (int(np.clip(v + reach, 32, side)) for v, side in ((x, width), (y, height)))
    return image_HW3[top : max(bottom, top + 32), left : max(right, left + 32)], np.array([left, top])


def _open_size(hand: Detection) -> float:
    """Size that the hand has when it is open, pixels: a fist is as fleshy."""
    palm = hand.landmarks_px[list(PALM)]
    return max(hand_size(hand), 1.9 * float(np.linalg.norm(palm[1:] - palm[0], axis=-1).max()))


def painted_over(image_HW3: np.ndarray, hands: list[Detection]) -> np.ndarray:
    """The picture with its mean colour where the hands are."""
    if not hands:
        return image_HW3
    painted = image_HW3.copy()
    colour = [int(c) for c in image_HW3[::16, ::16].mean((0, 1))]
    for hand in hands:
        outline = _outline(hand)
        cv2.fillConvexPoly(painted, outline, colour)
        cv2.polylines(painted, [outline], True, colour, thickness=max(round(2 * FLESH * _open_size(hand)), 1))
    return painted


def with_second_look(hand: Detection, mirrored: Sequence[Detection], corner_2: np.ndarray, width: int) -> Detection:
    """The hand with a second look at it. mirrored: hands in the mirrored part of the picture that is ``width`` pixels
    wide and begins at ``corner_2``.

    A hand that is there is found there too, at the mirrored place and with the other label. What only looks like a
    hand to a detector that follows it from frame to frame is not, and a label that is a coin's toss comes out again.
    """
    best = SecondLook(np.inf, 0.0)
    for other in mirrored:
        landmarks = other.landmarks_px * [-1, 1] + [width, 0] + corner_2
        place = float(np.linalg.norm(landmarks - hand.landmarks_px, axis=-1).mean()) / hand_size(hand)
        if place < best.place:
            best = SecondLook(place, other.score if other.side == "left" else -other.score)
    return replace(hand, second_look=best)
