"""Which pixels are the hand, from its 21 landmarks: parts around the bones, corrected by colour and depth.

The flesh around every bone is drawn as a tapering capsule, the palm as a hull. What lies deep inside is hand, what lies
far outside is not; colours of both are counted, and the pixels in between go to the likelier one. With depth, what is
nearer or further than the hand there is no hand. No network; about a millisecond a frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
from pydantic import Field

from data.episode import Frame
from extract.hand.detection import Detection as HandDetection
from extract.hand.skeleton import CHORD_LENGTHS, PALM, RADII, chord_lengths
from extract.hand.surface import TUBES
from extract.steps import Detection, Shot
from pipeline.config import Settings

THENAR = (0, 1, 2, 5)  # between thumb and palm
HAND_DEEP_M = 0.12  # nothing of a hand is further away from its middle, along the line of sight
ANGLES = np.linspace(0, 2 * np.pi, 12, endpoint=False)
BINS = 8  # per colour channel


class LandmarkMaskSettings(Settings):
    """Segmentation of hands by their landmarks, colour and depth."""

    name: Literal["landmarks"] = "landmarks"

    side: int = Field(default=112, ge=32, description="The hand is cut out at this size, pixels, and decided on there.")
    core: float = Field(default=0.65, gt=0, description="Up to this share of the usual thickness all is hand.")
    reach: float = Field(default=1.5, gt=1, description="Beyond this multiple of the usual thickness nothing is.")
    use_colour: bool = Field(default=True, description="Decide between both by colour.")
    depth_m: float = Field(
        default=0.05, gt=0, description="What is nearer or further than the hand by more is no hand, metres."
    )


class LandmarkMask:
    """A ``Segmenter`` (extract/steps.py) for detections with hand landmarks; others get no mask."""

    def __init__(self, settings: LandmarkMaskSettings | None = None):
        self.settings = settings or LandmarkMaskSettings()

    @property
    def weights_sha256(self) -> dict[str, str]:
        """There are none."""
        return {}

    def __call__(self, shot: Shot, seen: Sequence[Detection | None]) -> list[np.ndarray | None]:
        """bool [H,W] for every frame with a hand."""
        return [
            self.mask(frame, found.landmarks_px) if isinstance(found, HandDetection) else None
            for frame, found in zip(shot.frames, seen, strict=True)
        ]

    def mask(self, frame: Frame, landmarks_212: np.ndarray) -> np.ndarray:
        """bool [H,W] of one hand."""
        height, width = frame.image.shape[:2]
        mask = np.zeros((height, width), bool)
        flesh_21 = RADII * pixels_per_metre(landmarks_212)
        reach = self.settings.reach * flesh_21.max()
        x0, y0 = np.maximum(np.floor(landmarks_212.min(0) - reach).astype(int), 0)
        x1, y1 = np.minimum(np.ceil(landmarks_212.max(0) + reach).astype(int) + 1, [width, height])
        if x1 - x0 < 2 or y1 - y0 < 2:
            return mask
        scale = min(self.settings.side / max(x1 - x0, y1 - y0), 1.0)
        size = max(round((x1 - x0) * scale), 2), max(round((y1 - y0) * scale), 2)
        landmarks = (landmarks_212 - [x0, y0]) * scale
        part = np.s_[y0:y1, x0:x1]
        settings, flesh = self.settings, flesh_21 * scale
        core = _flesh(landmarks, settings.core * flesh, size)
        if settings.use_colour:
            image = cv2.resize(frame.image[part], size, interpolation=cv2.INTER_AREA)
            small = _by_colour(image, core, _flesh(landmarks, settings.reach * flesh, size))
        else:
            small = _flesh(landmarks, flesh, size)
        if frame.depth is not None:
            depth = cv2.resize(frame.depth[part], size, interpolation=cv2.INTER_NEAREST)
            small = small & _near_in_depth(depth, core, settings.depth_m)
        whole = cv2.resize(small.astype(np.float32), (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR)
        mask[part] = whole > 0.5
        return mask


def pixels_per_metre(landmarks_212: np.ndarray) -> float:
    """How large an adult's hand would be here: by the palm chord that is foreshortened second least."""
    return float(np.sort(chord_lengths(landmarks_212) / CHORD_LENGTHS)[-2])


def _flesh(landmarks_212: np.ndarray, radius_21: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """bool [h,w]: capsules around the bones of thumb and fingers, and the hulls of the palm."""
    drawn = np.zeros((size[1], size[0]), np.uint8)
    circle = np.stack([np.cos(ANGLES), np.sin(ANGLES)], -1)
    rims = landmarks_212[:, None] + radius_21[:, None, None] * circle  # [21,A,2]
    for joints in (*TUBES.tolist(), PALM, THENAR):
        hull = cv2.convexHull(rims[list(joints)].reshape(-1, 2).astype(np.float32))
        cv2.fillConvexPoly(drawn, np.rint(hull * 8).astype(np.int32), 1, shift=3)
    return drawn > 0


def _by_colour(image_hw3: np.ndarray, core: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Pixels between core and reach by whether their colour is more frequent inside the core or outside the reach."""
    colours = cv2.cvtColor(image_hw3, cv2.COLOR_RGB2LAB)
    step = 256 // BINS
    code = (colours // step).astype(np.int32) @ np.array([BINS * BINS, BINS, 1])
    inside = np.bincount(code[core], minlength=BINS**3) / max(int(core.sum()), 1)
    outside = np.bincount(code[~reach], minlength=BINS**3) / max(int((~reach).sum()), 1)
    skin = (inside > outside)[code]
    return core | (reach & skin)


def _near_in_depth(depth_hw: np.ndarray, core: np.ndarray, limit_m: float) -> np.ndarray:
    """bool [h,w]: as far away as the core of the hand around it, or not known."""
    known = (depth_hw > 0) & core
    if not known.any():
        return np.ones_like(core)
    # Between the fingers the core may show what is behind the hand.
    known &= np.abs(depth_hw - np.median(depth_hw[known])) < HAND_DEEP_M
    if not known.any():
        return np.ones_like(core)
    weight = cv2.GaussianBlur(known.astype(np.float32), (0, 0), 5)
    around = cv2.GaussianBlur(np.where(known, depth_hw, 0).astype(np.float32), (0, 0), 5) / np.maximum(weight, 1e-6)
    return (depth_hw <= 0) | (np.abs(depth_hw - around) < limit_m)
