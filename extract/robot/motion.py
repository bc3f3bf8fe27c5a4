"""Finding a robot's effector by its motion alone: no weights, no poses; the camera must stand still.

What differs from the still background and changed lately is moving. In a robot's video that is a chain, the arm, which
enters the picture somewhere and ends in the effector (see ``chain``). Things that lay still before they moved are
pushed or carried and are cut off first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import cv2
import numpy as np
from pydantic import Field

from data.episode import Frame
from extract.effector import Camera
from extract.robot.background import background, stands_out
from extract.robot.chain import CLEAR, Choice, choose, entrances, far_ends
from extract.robot.tracks import PictureTracks, TrackSettings, picture_tracks
from extract.steps import BoxDetection, Detection
from pipeline.config import Settings

LABEL = "moving effector"
SIDE = 192  # pixels: longer side at which shapes are looked at
SAME_PATCH = 12.0  # grey levels: a point whose surroundings differ more at rest was wall that an outline dragged along
CORE = 0.03  # of the longer side: what is that near to a point that rested belongs to the same thing
AROUND = 0.12  # of the longer side: so does what is that near, unless a point of something else is nearer
LATELY_S = 0.2  # what did not move for so long rests
EDGE = 120.0  # Sobel response (grey levels times 8 per pixel step) from which on a background has an edge
STILL = 1.0  # working pixels per frame: slower points rest
RESTED = 0.35  # share of the arm's busy frames in which a thing lay still: it is no part of the arm
SAME = 0.9  # an end that looks less like those of other frames is less sure
LARGE = 0.07  # of the picture: the end of an arm that takes more is probably no end


class MotionSettings(Settings):
    """The far end of the moving chain, in videos of a static camera."""

    name: Literal["motion"] = "motion"
    tracks: TrackSettings = TrackSettings(work_side=256, max_new=120)
    max_frames: int = Field(default=600, ge=10, description="Longest shot, frames; so many are held back at most.")
    min_score: float = Field(default=0.0, ge=0, le=1, description="Boxes below this score are not handed on.")


@dataclass(frozen=True)
class _Shapes:
    """Of one shot, small: images_T uint8, moving_THW bool, changed_THW bool. scale: small pixels per original pixel.

    still: 0..1, does the camera stand still.
    """

    images_T: Sequence[np.ndarray]
    moving_THW: np.ndarray
    changed_THW: np.ndarray
    scale: float
    still: float

    def lately(self, slot: int) -> np.ndarray:
        """bool [H,W]: changed in a frame or a neighbour of it."""
        return np.logical_or.reduce(self.changed_THW[max(0, slot - 1) : slot + 2])


class MotionDetector:
    """The effector's box in every frame in which something moves, with a score that says how clear that is.

    score: 0..1, a product of: the camera stands still; no other end explains the video nearly as well; the end is small
    beside the picture; it moves; it looks as in other frames.
    """

    def __init__(self, settings: MotionSettings):
        self.settings = settings

    def __call__(self, frames: Iterable[Frame], camera: Camera) -> Iterator[tuple[Frame, Sequence[Detection]]]:
        source = iter(frames)
        while held := list(islice(source, self.settings.max_frames)):
            for frame, box in zip(held, self.boxes(held), strict=True):
                yield frame, [box] if box is not None and box.score >= self.settings.min_score else []

    def boxes(self, frames: Sequence[Frame]) -> list[BoxDetection | None]:
        """The box in every frame of one shot; None where nothing moves."""
        if len(frames) < 3:
            return [None] * len(frames)
        images = [frame.image for frame in frames]
        step_s = float(np.median(np.diff([frame.time for frame in frames])))
        tracks = picture_tracks(images, self.settings.tracks)
        shapes = _shapes(images, tracks, max(1, round(LATELY_S / max(step_s, 1e-3))))
        entrance = entrances(shapes.moving_THW)
        ends = [
            far_ends(moving, entrance, shapes.changed_THW[slot], shapes.lately(slot))
            for slot, moving in enumerate(shapes.moving_THW)
        ]
        size = (images[0].shape[1], images[0].shape[0])
        return _boxes(choose(ends, shapes.images_T, SIDE), shapes, size)


def _camera_stands_still(small: Sequence[np.ndarray], foreground_THW: np.ndarray) -> float:
    """0..1: how many edges of the background are where they are in a typical frame; 1 from 60 % on.

    A camera that moves by a pixel displaces all of them, an arm hides some.
    """
    grey = cv2.cvtColor(background(small), cv2.COLOR_RGB2GRAY)
    slope = cv2.magnitude(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    edges = slope > EDGE
    if edges.sum() < 20:
        return 1.0  # a picture without edges: nothing speaks against it
    there = 1 - foreground_THW[:, edges].mean(1)
    return float(np.clip((np.quantile(there, 0.3) - 0.3) / 0.3, 0, 1))


def _shapes(images: Sequence[np.ndarray], tracks: PictureTracks, window: int) -> _Shapes:
    height, width = images[0].shape[:2]
    scale = SIDE / max(height, width)
    size = (round(width * scale), round(height * scale))
    small = [cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in images]
    empty = background(small)
    foreground = np.stack([stands_out(image, empty) for image in small])
    changed = _changed(small, window) & foreground
    foreign = _foreign(tracks, small, scale)
    moving = np.zeros_like(foreground)
    for slot in range(len(small)):
        lately = np.logical_or.reduce(changed[max(0, slot - 1) : slot + 2])
        near = cv2.dilate(lately.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
        shape = (foreground[slot] & near & ~foreign[slot]).astype(np.uint8)
        shape = cv2.morphologyEx(shape, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
        moving[slot] = cv2.medianBlur(shape, 3) > 0
    return _Shapes(small, moving, changed, scale, _camera_stands_still(small, foreground))


def _changed(small: Sequence[np.ndarray], window: int) -> np.ndarray:
    """bool [T,h,w]: differs from both an earlier and a later picture, at most ``window`` frames off.

    Only what is there now does; where something was or will be, one of the two is the same.
    """
    count = len(small)
    changed = np.zeros((count, *small[0].shape[:2]), bool)
    for off in {1, max(1, window // 2), window}:
        if off < count:
            differs = [stands_out(small[slot + off], small[slot]) for slot in range(count - off)]
            for slot in range(count):
                before, after = slot - off, slot
                sides = [differs[k] for k in (before, after) if 0 <= k < len(differs)]
                changed[slot] |= np.logical_and.reduce(sides)
    return changed


def _foreign(tracks: PictureTracks, small: Sequence[np.ndarray], scale: float) -> np.ndarray:
    """bool [T,h,w]: around points that lay still while the arm moved, and moved later."""
    count = len(tracks.seen_TK)
    size = (small[0].shape[1], small[0].shape[0])
    marked = np.zeros((count, size[1], size[0]), bool)
    travel = tracks.travel_K * tracks.scale
    speed = np.full(tracks.seen_TK.shape, np.nan)
    speed[1:] = np.linalg.norm(np.diff(tracks.pixels_TK2, axis=0), axis=-1) * tracks.scale
    movers = travel > 6
    if not movers.any():
        return marked
    fast = np.where(np.isfinite(speed[:, movers]), speed[:, movers], 0)
    busy = np.quantile(fast, 0.95, axis=1) > 2 * STILL
    known = np.isfinite(speed) & busy[:, None]
    rested = ((speed < 0.5 * STILL) & known).sum(0) / np.maximum(known.sum(0), 1)
    things = movers & (rested > RESTED) & (known.sum(0) >= 4)
    others = movers & ~things & (known.sum(0) >= 4)
    for k in np.flatnonzero(things):
        rest, quickest = int(np.argmax((speed[:, k] < 0.5 * STILL) & busy)), int(np.nanargmax(speed[:, k]))
        patches = [_patch(small[slot], tracks.pixels_TK2[slot, k] * scale) for slot in (rest, quickest)]
        things[k] = np.abs(patches[0] - patches[1]).mean() < SAME_PATCH
    for slot in range(count):
        to_thing = _distance(tracks.pixels_TK2[slot, things & tracks.seen_TK[slot]] * scale, size)
        to_other = _distance(tracks.pixels_TK2[slot, others & tracks.seen_TK[slot]] * scale, size)
        marked[slot] = (to_thing <= AROUND * SIDE) & (to_thing < to_other) | (to_thing <= CORE * SIDE)
    return marked


def _patch(image: np.ndarray, point_2: np.ndarray) -> np.ndarray:
    """f32 [7,7,3] around a point."""
    centre = float(point_2[0]) - 0.5, float(point_2[1]) - 0.5
    return cv2.getRectSubPix(image, (7, 7), centre).astype(np.float32)


def _distance(points_K2: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """f32 [h,w]: pixels to the nearest of some points; far away without any."""
    away = np.full((size[1], size[0]), 255, np.uint8)
    if not len(points_K2):
        return np.full(away.shape, np.inf, np.float32)
    column, row = np.clip(points_K2.astype(int), 0, np.array(size) - 1).T
    away[row, column] = 0
    return cv2.distanceTransform(away, cv2.DIST_L2, 5)


def _boxes(ends: Sequence[Choice | None], shapes: _Shapes, size: tuple[int, int]) -> list[BoxDetection | None]:
    boxes: list[BoxDetection | None] = []
    for slot, found in enumerate(ends):
        if found is None:
            boxes.append(None)
            continue
        region = found.end.region_HW
        rows, columns = np.nonzero(region)
        low = np.quantile(np.stack([columns, rows], 1), 0.02, axis=0)
        high = np.quantile(np.stack([columns, rows], 1), 0.98, axis=0) + 1
        box = np.clip(np.concatenate([low, high]) / shapes.scale, 0, np.tile(size, 2))
        clear = 1 - np.exp(-found.lead / CLEAR)
        spread = float(np.prod(box[2:] - box[:2]) / (size[0] * size[1]))
        compact = np.exp(-((spread / LARGE) ** 2))
        lively = min(1.0, 0.2 + 2.5 * float(shapes.lately(slot)[region].mean()))
        same = min(1.0, found.alike / SAME) ** 3
        sure = shapes.still * clear * compact * lively * same
        boxes.append(BoxDetection(LABEL, float(sure), box))
    return boxes
