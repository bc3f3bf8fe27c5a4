"""Lessons: crops of which it is known where in them the gripper is, made from labelled frames and other scenes.

A gaze near the gripper is drawn, the gripper is cut out of its frame and put before another scene, things cover a part
of it, and light and colours change. Other lessons show no gripper. Symbols: B lessons, K keypoints, S side of a crop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from extract.gripper.learned.gaze import GREY, SIDE, Gaze, Picture, crop_from_image, gaze_at

EMPTY = 0.25  # share of lessons without a gripper
ELSEWHERE = 0.6  # share of those that look past the gripper of a labelled frame
PAST, FURTHER = 0.6, 0.6  # crop widths, logarithm of the distance: so far off, a gaze looks past it
WIDE = 0.5  # share of gazes as after a search; the others are as while following
PLACE, SCALE, ROLL = (0.3, 0.04), (0.3, 0.05), (0.25, 0.08)  # wide: at most; near: one sigma. Crop widths, log, radians
BEFORE_ANOTHER = 0.6  # share of grippers that are put before another scene
SAME_GAZE = 0.5  # share of those that are put where that scene was seen in the same direction
COVERED = 0.4
BESET = 0.5  # share of other scenes with such a thing behind the gripper
LARGEST_COVER, THINNEST = 0.3, 0.1  # half axis, crop widths; share of it
CUT = 0.2  # share of lessons in which the picture ends within the crop
NEAREST_EDGE = 0.15  # crop widths from the middle
GAIN, TINT, GAMMA, NOISE, BLURRED = 0.35, 0.12, 0.25, 6.0, 0.25


@dataclass(frozen=True)
class Shown:
    """A labelled frame. mask_HW: bool, stands out from the background, of the picture's size; None where the gripper

    has rested too long for that. pose_44: camera_from_effector, metres. opening: metres.
    """

    picture: Picture
    mask_HW: np.ndarray | None
    pose_44: np.ndarray
    opening: float


@dataclass(frozen=True)
class Lessons:
    """crops_BSS3: u8. present_B: bool; what follows holds only there. See ``network.Seen``."""

    crops_BSS3: np.ndarray
    present_B: np.ndarray
    places_BK2: np.ndarray
    behind_BK: np.ndarray
    further_B: np.ndarray
    opening_B: np.ndarray


@dataclass(frozen=True)
class Book:
    """Where lessons come from. scenes: empty backgrounds. keypoints_K3, anchor_3: metres, effector frame.

    opening: the widest, metres. width: of a crop, metres. Distances of the anchor that were shown lie in ``range_2``.
    """

    shown: Sequence[Shown]
    scenes: Sequence[Picture]
    keypoints_K3: np.ndarray
    anchor_3: np.ndarray
    opening: float
    width: float
    range_2: tuple[float, float]

    def lessons(self, count: int, random: np.random.Generator) -> Lessons:
        """``count`` new ones."""
        crops, present = [], np.zeros(count, bool)
        keypoints = len(self.keypoints_K3)
        places, behind = np.zeros((count, keypoints, 2)), np.zeros((count, keypoints))
        further, opening = np.zeros(count), np.zeros(count)
        for row in range(count):
            if random.random() < EMPTY:
                crop = self._empty(random)
            else:
                shown = self.shown[int(random.integers(len(self.shown)))]
                gaze = self._gaze(shown, random)
                present[row], opening[row] = True, shown.opening / self.opening
                places[row], behind[row], further[row] = self._target(shown, gaze)
                crop = self._gripper(shown, gaze, random)
            if random.random() < COVERED:
                crop = self._covered(crop, crop, random)
            crop = _in_other_light(crop, random)
            crops.append(_cut(crop, random) if random.random() < CUT else crop)
        return Lessons(np.stack(crops), present, places, behind, further, opening)

    def _gaze(self, shown: Shown, random: np.random.Generator) -> Gaze:
        """Near the gripper: a place off to the side, at another distance, rolled."""
        anchor = _moved(shown.pose_44, self.anchor_3)
        straight = gaze_at(anchor, self.width)
        wide = random.random() < WIDE
        drawn = random.uniform(-1, 1, 4) if wide else random.normal(size=4)
        place_2, scale, roll = (spread[0 if wide else 1] for spread in (PLACE, SCALE, ROLL))
        place_2, scale, roll = place_2 * drawn[:2], scale * drawn[2], roll * drawn[3]
        distance = straight.distance * float(np.exp(scale))
        aside = straight.placed(place_2, np.array(straight.distance))
        return gaze_at(aside / np.linalg.norm(aside) * distance, self.width, float(roll))

    def _target(self, shown: Shown, gaze: Gaze) -> tuple[np.ndarray, np.ndarray, float]:
        places, depth = gaze.seen(_moved(shown.pose_44, self.keypoints_K3))
        anchor = float(gaze.seen(_moved(shown.pose_44, self.anchor_3))[1])
        return places, (depth - anchor) / self.width, float(np.log(anchor / gaze.distance))

    def _gripper(self, shown: Shown, gaze: Gaze, random: np.random.Generator) -> np.ndarray:
        crop = shown.picture.crop(gaze)
        if shown.mask_HW is None or len(self.scenes) < 2 or random.random() > BEFORE_ANOTHER:
            return crop
        alpha = crop_of_mask(shown.mask_HW, shown.picture, gaze)[..., None]
        scene = self.scenes[int(random.integers(len(self.scenes)))]
        if random.random() > SAME_GAZE:
            gaze = self._anywhere(scene, random)
        behind = scene.crop(gaze)
        if random.random() < BESET:
            behind = self._covered(behind, crop, random)
        return (alpha * crop + (1 - alpha) * behind).astype(np.uint8)

    def _empty(self, random: np.random.Generator) -> np.ndarray:
        if random.random() < ELSEWHERE:
            shown = self.shown[int(random.integers(len(self.shown)))]
            for _ in range(10):
                gaze = self._anywhere(shown.picture, random)
                places, _, further = self._target(shown, gaze)
                off = np.abs(gaze.seen(_moved(shown.pose_44, self.anchor_3))[0]).max()
                if off > PAST or not np.isfinite(places).all() or abs(further) > FURTHER:
                    return shown.picture.crop(gaze)
        scene = self.scenes[int(random.integers(len(self.scenes)))]
        return scene.crop(self._anywhere(scene, random))

    def _anywhere(self, picture: Picture, random: np.random.Generator) -> Gaze:
        """Some place in a picture, at about the distances that were shown."""
        height, width = picture.image.shape[:2]
        pixel = random.uniform(0, 1, 2) * (width, height)
        near, far = self.range_2
        ray = picture.camera.unproject(pixel, np.array(1.0))
        distance = np.exp(random.uniform(np.log(near) - SCALE[0], np.log(far) + SCALE[0]))
        return gaze_at(ray / np.linalg.norm(ray) * distance, self.width, ROLL[0] * random.uniform(-1, 1))

    def _covered(self, crop: np.ndarray, alike: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """A part of the crop shows something else: a plain thing, or a piece of another scene.

        alike: u8 [S,S,3], a crop whose colours a thing may have: handles are as white as fingers.
        """
        centre, axes = random.uniform(0, SIDE, 2), SIDE * LARGEST_COVER * random.uniform(THINNEST, 1, 2)
        mask = np.zeros((SIDE, SIDE), np.uint8)
        if random.random() < 0.5:
            box = cv2.boxPoints((tuple(centre), tuple(2 * axes), random.uniform(0, 180)))
            cv2.fillConvexPoly(mask, box.astype(np.int32), 1)
        else:
            cv2.ellipse(mask, (tuple(centre), tuple(2 * axes), random.uniform(0, 180)), 1, -1)
        kind = random.random()
        if kind < 0.3:
            other = np.broadcast_to(random.uniform(0, 255, 3), crop.shape)
        elif kind < 0.6:
            row, column = random.integers(SIDE, size=2)
            other = np.broadcast_to(alike[row, column], crop.shape)
        else:
            scene = self.scenes[int(random.integers(len(self.scenes)))]
            other = scene.crop(self._anywhere(scene, random))
        return np.where(mask[..., None] > 0, other, crop).astype(np.uint8)


def _moved(pose_44: np.ndarray, points_3: np.ndarray) -> np.ndarray:
    return points_3 @ pose_44[:3, :3].T + pose_44[:3, 3]


def crop_of_mask(mask_HW: np.ndarray, picture: Picture, gaze: Gaze) -> np.ndarray:
    """f32 [S,S], 0..1: what of a picture stands out (bool), a pixel wider, its outline soft."""
    warped = cv2.warpPerspective(
        cv2.dilate(mask_HW.astype(np.float32), np.ones((3, 3))),
        crop_from_image(gaze, picture.camera),
        (SIDE, SIDE),
        flags=cv2.INTER_LINEAR,
    )
    return cv2.GaussianBlur(warped, (0, 0), 0.6)


def _cut(crop: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """As at the edge of a picture: nothing is seen beyond a line."""
    angle = np.pi / 2 * random.integers(4) + random.uniform(-0.3, 0.3)
    at = (np.arange(SIDE) + 0.5) / SIDE - 0.5
    beyond = np.cos(angle) * at + np.sin(angle) * at[:, None] > random.uniform(NEAREST_EDGE, 0.5)
    return np.where(beyond[..., None], np.array(GREY, np.uint8), crop)


def _in_other_light(crop: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Another brightness, tint, contrast and noise, and sometimes a blur."""
    values = crop.astype(np.float32) / 255
    if random.random() < BLURRED:
        values = cv2.GaussianBlur(values, (0, 0), random.uniform(0.4, 1.0))
    values = values ** np.float32(np.exp(GAMMA * random.uniform(-1, 1)))
    gain = np.exp(GAIN * random.uniform(-1, 1) + TINT * random.uniform(-1, 1, 3)).astype(np.float32)
    values = values * gain + np.float32(0.1 * random.uniform(-1, 1))
    values = 255 * values + random.normal(size=crop.shape).astype(np.float32) * np.float32(NOISE * random.random())
    return np.clip(values, 0, 255).astype(np.uint8)
