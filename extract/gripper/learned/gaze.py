"""Looking straight at a place: a virtual camera whose picture of a thing there does not depend on where that is.

Turned so that the ray becomes its axis, and with a focal length in proportion to the distance, it shows a thing of the
same pose relative to the ray always at the same size and in the middle. What is left to see is what differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from extract.effector import Camera

SIDE = 64  # pixels of a crop
GREY = (128, 128, 128)  # beyond the picture
HALF_PIXEL = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])


@dataclass(frozen=True)
class Gaze:
    """What is looked at. gaze_from_camera_33: rotation. distance: metres. width: metres, shown at that distance."""

    gaze_from_camera_33: np.ndarray
    distance: float
    width: float

    @property
    def focal_px(self) -> float:
        """Of the virtual camera, pixels of the crop."""
        return SIDE * self.distance / self.width

    def seen(self, points_3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[..., 3] metres in the camera frame -> [..., 2] places in the crop, its middle 0, its sides +-0.5; and

        [...] metres along the axis."""
        turned = points_3 @ self.gaze_from_camera_33.T
        depth = turned[..., 2]
        return turned[..., :2] / depth[..., None] * (self.distance / self.width), depth

    def placed(self, places_2: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """The way back of ``seen``: [..., 3] metres in the camera frame."""
        across = places_2 * (self.width / self.distance) * depth[..., None]
        return np.concatenate([across, depth[..., None]], -1) @ self.gaze_from_camera_33


def gaze_at(place_3: np.ndarray, width: float, roll: float = 0.0) -> Gaze:
    """Straight at a place (metres, camera frame, in front of the camera), turned about the ray by ``roll`` radians.

    The camera is turned the shortest way (Rodrigues), so near gazes are turned nearly alike.
    """
    distance = float(np.linalg.norm(place_3))
    ray = place_3 / distance
    axis = np.array([-ray[1], ray[0], 0.0])  # z x ray
    cross = np.array([[0, 0, axis[1]], [0, 0, -axis[0]], [-axis[1], axis[0], 0]])
    camera_from_straight = np.eye(3) + cross + cross @ cross / (1 + ray[2])
    turn = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    return Gaze(turn @ camera_from_straight.T, distance, width)


class Picture:
    """A picture with smaller copies of itself: crops are taken from the one that has about their resolution."""

    def __init__(self, image_HW3: np.ndarray, camera: Camera):
        """image_HW3: uint8 RGB. camera: of this picture's size, or of another size of the same view."""
        self._levels = [np.ascontiguousarray(image_HW3)]
        self.camera = camera.scaled((image_HW3.shape[1], image_HW3.shape[0]))

    @property
    def image(self) -> np.ndarray:
        """uint8 [H,W,3], the largest copy."""
        return self._levels[0]

    def level(self, gaze: Gaze) -> int:
        """How many times the picture is halved until one of its pixels is nearly one of the crop's."""
        pixels = self.camera.focal_px * gaze.width / gaze.distance / SIDE
        return int(max(0, np.floor(np.log2(max(pixels, 1.0)) + 0.1)))

    def halved(self, times: int) -> np.ndarray:
        """uint8 [h,w,3]."""
        while len(self._levels) <= times and min(self._levels[-1].shape[:2]) > 8:
            height, width = self._levels[-1].shape[:2]
            self._levels.append(cv2.resize(self._levels[-1], (width // 2, height // 2), interpolation=cv2.INTER_AREA))
        return self._levels[min(times, len(self._levels) - 1)]

    def crop(self, gaze: Gaze) -> np.ndarray:
        """uint8 [SIDE,SIDE,3]: what the virtual camera sees; grey beyond the picture."""
        image = self.halved(self.level(gaze))
        return cv2.warpPerspective(
            image,
            crop_from_image(gaze, self.camera.scaled((image.shape[1], image.shape[0]))),
            (SIDE, SIDE),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=GREY,
        )

    def crops(self, gazes: Sequence[Gaze]) -> np.ndarray:
        """uint8 [G,SIDE,SIDE,3]."""
        return np.stack([self.crop(gaze) for gaze in gazes])


def crop_from_image(gaze: Gaze, camera: Camera) -> np.ndarray:
    """f64 [3,3]: the homography between pixels as OpenCV counts them, whose first centre is at 0."""
    focal, middle = gaze.focal_px, SIDE / 2
    virtual = np.array([[focal, 0, middle], [0, focal, middle], [0, 0, 1]])
    turn = virtual @ gaze.gaze_from_camera_33 @ np.linalg.inv(camera.intrinsics_33)
    return np.linalg.inv(HALF_PIXEL) @ turn @ HALF_PIXEL
