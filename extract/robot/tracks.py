"""Image tracks of a whole picture: corners followed through a shot, without knowing what they belong to.

Pyramidal Lucas-Kanade (Bouguet, 2000) at one working size, whatever the size of the video: small pictures are enlarged,
because a gripper of twenty pixels has no corners for a window of twenty. Every step is checked forward and backward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from pydantic import Field

from pipeline.config import Settings

WINDOW = (15, 15)  # working pixels
LEVELS = 3
STOP = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 0.01)
MIN_EIGENVALUE = 1e-4  # of the gradient matrix, per pixel and squared grey level / 255: flat patches are dropped
CHANGED = 8  # grey pictures: pixels that differ more between neighbouring frames have changed


class TrackSettings(Settings):
    """Following corners through a shot."""

    work_side: int = Field(default=384, ge=64, description="Longer side at which pictures are tracked, pixels.")
    max_new: int = Field(default=250, ge=10, description="New corners per frame at most; all live in moving regions.")
    spacing: float = Field(default=5.0, gt=0, description="Least distance between corners, working pixels.")
    max_return_error: float = Field(
        default=0.7, gt=0, description="Forward-backward error that ends a track, working pixels."
    )
    min_frames: int = Field(default=5, ge=2, description="Shorter tracks are dropped.")


@dataclass(frozen=True)
class PictureTracks:
    """Image points followed over T frames. pixels_TK2: f32, original pixels (centre of pixel 0 at 0.5), NaN unseen.

    seen_TK: bool. birth_K: int, the frame in which the corner was found. scale: working pixels per original pixel.
    """

    pixels_TK2: np.ndarray
    seen_TK: np.ndarray
    birth_K: np.ndarray
    scale: float

    def take(self, which: np.ndarray) -> PictureTracks:
        """Some of the tracks."""
        return PictureTracks(self.pixels_TK2[:, which], self.seen_TK[:, which], self.birth_K[which], self.scale)

    @property
    def travel_K(self) -> np.ndarray:
        """f64 [K]: diagonal of the box that each track covers, original pixels."""
        if not self.pixels_TK2.shape[1]:
            return np.zeros(0)
        return np.linalg.norm(np.nanmax(self.pixels_TK2, 0) - np.nanmin(self.pixels_TK2, 0), axis=-1).astype(float)


def picture_tracks(images: Sequence[np.ndarray], settings: TrackSettings) -> PictureTracks:
    """Corners of uint8 [H,W,3] images, followed forward from where they are found, then backward from there."""
    height, width = images[0].shape[:2]
    scale = settings.work_side / max(height, width)
    pictures = [working_picture(image, scale) for image in images]
    births: list[int] = []
    count = len(images)
    alive = np.zeros((0, 2), np.float32)
    speed = np.zeros((0, 2), np.float32)
    owner = np.zeros(0, int)
    table: list[list[tuple[int, np.ndarray]]] = []
    for slot in range(count):
        found = _corners(pictures, slot, alive, settings)
        births.extend([slot] * len(found))
        owner = np.concatenate([owner, np.arange(len(table), len(table) + len(found))])
        table.extend([(slot, point)] for point in found)
        alive = np.concatenate([alive, found])
        speed = np.concatenate([speed, np.zeros_like(found)])
        if slot + 1 == count or not len(alive):
            continue
        moved, kept = _step(pictures[slot], pictures[slot + 1], alive, speed, settings.max_return_error)
        speed = (moved - alive)[kept]
        alive, owner = moved[kept], owner[kept]
        for track, point in zip(owner, alive, strict=True):
            table[track].append((slot + 1, point))
    _extend_backward(pictures, table, settings.max_return_error)
    long = [number for number, path in enumerate(table) if len(path) >= settings.min_frames]
    pixels = np.full((count, len(long), 2), np.nan, np.float32)
    for column, number in enumerate(long):
        for slot, point in table[number]:
            pixels[slot, column] = (point + 0.5) / scale
    birth = np.array([births[number] for number in long], int)
    return PictureTracks(pixels, np.isfinite(pixels[..., 0]), birth, scale)


def _extend_backward(pictures: list[np.ndarray], table: list[list[tuple[int, np.ndarray]]], limit: float) -> None:
    """Follow every track from its first frame back in time."""
    alive = np.zeros((0, 2), np.float32)
    speed = np.zeros((0, 2), np.float32)
    owner = np.zeros(0, int)
    born: dict[int, list[int]] = {}
    for number, path in enumerate(table):
        born.setdefault(path[0][0], []).append(number)
    for slot in range(len(pictures) - 1, 0, -1):
        fresh = born.get(slot, [])
        if fresh:
            first = np.array([table[n][0][1] for n in fresh], np.float32)
            ahead = np.array([table[n][1][1] if len(table[n]) > 1 else table[n][0][1] for n in fresh], np.float32)
            alive, speed = np.concatenate([alive, first]), np.concatenate([speed, first - ahead])
            owner = np.concatenate([owner, np.array(fresh, int)])
        if not len(alive):
            continue
        moved, kept = _step(pictures[slot], pictures[slot - 1], alive, speed, limit)
        speed = (moved - alive)[kept]
        alive, owner = moved[kept], owner[kept]
        for track, point in zip(owner, alive, strict=True):
            table[track].insert(0, (slot - 1, point))


def working_picture(image: np.ndarray, scale: float) -> np.ndarray:
    """uint8 [h,w] grey at the working size."""
    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    how = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    return cv2.resize(grey, size, interpolation=how) if size != grey.shape[::-1] else grey


def _corners(pictures: list[np.ndarray], slot: int, alive: np.ndarray, settings: TrackSettings) -> np.ndarray:
    """New corners f32 [k,2] (x, y), away from living ones; after the first frame only where the picture changes."""
    grey = pictures[slot]
    free = np.full(grey.shape, 255, np.uint8)
    if slot > 0:
        other = pictures[slot + 1 if slot + 1 < len(pictures) else slot - 1]
        changed = (cv2.absdiff(grey, other) > CHANGED).astype(np.uint8) * 255
        free = cv2.dilate(cv2.medianBlur(changed, 3), np.ones((9, 9), np.uint8))
    for x, y in alive:
        cv2.circle(free, (round(float(x)), round(float(y))), round(settings.spacing), 0, -1)
    found = cv2.goodFeaturesToTrack(grey, settings.max_new, 0.005, settings.spacing, mask=free, blockSize=5)
    return np.zeros((0, 2), np.float32) if found is None else found.reshape(-1, 2)


def _step(
    here: np.ndarray, there: np.ndarray, points: np.ndarray, speed: np.ndarray, limit: float
) -> tuple[np.ndarray, np.ndarray]:
    """Points one frame on, f32 [k,2], and bool [k]: they also lead back. At constant speed first, from rest second."""
    moved, error = both_ways(here, there, points, points + speed)
    rest, rest_error = both_ways(here, there, points, points)
    better = rest_error < error
    moved, error = np.where(better[:, None], rest, moved), np.minimum(error, rest_error)
    height, width = here.shape
    inside = ((moved >= 1) & (moved < np.array([width - 2, height - 2]))).all(1)
    return moved, inside & (error < limit)


def both_ways(
    here: np.ndarray, there: np.ndarray, points: np.ndarray, guess: np.ndarray, levels: int = LEVELS
) -> tuple[np.ndarray, np.ndarray]:
    """Points of one picture in another, f32 [k,2], and by how much the way back misses; infinite where it is lost."""
    ahead, ok = _flow(here, there, points, guess, levels)
    back, ok_back = _flow(there, here, ahead, points + ahead - guess, levels)
    error = np.linalg.norm(back - points, axis=1)
    return ahead, np.where(ok & ok_back, error, np.inf)


def _flow(
    here: np.ndarray, there: np.ndarray, points: np.ndarray, guess: np.ndarray, levels: int
) -> tuple[np.ndarray, np.ndarray]:
    found, status, _ = cv2.calcOpticalFlowPyrLK(
        here,
        there,
        points.reshape(-1, 1, 2).astype(np.float32),
        guess.reshape(-1, 1, 2).astype(np.float32).copy(),
        winSize=WINDOW,
        maxLevel=levels,
        criteria=STOP,
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
        minEigThreshold=MIN_EIGENVALUE,
    )
    return found.reshape(-1, 2), status.ravel().astype(bool)
