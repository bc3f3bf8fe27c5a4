"""What the depth sensor sees around one hand: a coarse grid of depth, and which of its pixels look like skin.

The colour of skin is that of the same hand's palm in the same picture: hue where the light falls is no matter, so
brightness counts little. A mask of the hand's pixels, where there is one, says it better than any colour.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from extract.effector import Camera
from extract.hand.skeleton import PALM

AROUND = 0.5  # of the landmarks' extent, kept on each side of their box
SIDE = 112  # cells along the longer side of a patch, at most
INNER = 0.75  # share of the palm, about its middle, whose colour is taken for skin
HUE_FLOOR = 4.0  # least standard deviation of skin colour, units of CIELAB's a and b
BRIGHTER, DARKER = 60.0, 60.0  # than the palm's median by which skin may be, of 255
SKIN = 4.0  # standard deviations of colour
ALIKE = 0.1  # share of the surroundings that looks like skin from which on colour does not tell
NEAR = 0.12  # hand sizes around the landmarks within which something may be hand
BLOCK = 4  # pixels; the scene is remembered that coarsely
CLEARLY = 0.015  # metres before the scene
LEAST_PALM = 30  # pixels of palm without which nothing is known of skin


@dataclass(frozen=True)
class HandPatch:
    """depth_HW: f32 metres at cell centres, 0 = not measured. skin_HW: bool, looks like this hand's skin.

    Cell (row, column) is the pixel at corner_2 + step * (column, row); corner_2 is x, y of a pixel centre.
    """

    depth_HW: np.ndarray
    skin_HW: np.ndarray
    corner_2: tuple[float, float]
    step: int

    def cells(self, pixels_K2: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Row, column (clipped to the patch) and whether they lie within it, [K] each, of image points in pixels."""
        place = np.rint((pixels_K2 - np.array(self.corner_2)) / self.step)
        height, width = self.depth_HW.shape
        inside = np.all((place >= 0) & (place < (width, height)), axis=-1)
        place = np.clip(np.nan_to_num(place), 0, (width - 1, height - 1)).astype(int)
        return place[..., 1], place[..., 0], np.asarray(inside)

    def places(self) -> np.ndarray:
        """Column and row of every cell in the whole picture, int [H,W,2] pixels."""
        cells = np.indices(self.depth_HW.shape)
        return self.pixels(cells[0], cells[1]).astype(int)

    def points(self, cells_HW: np.ndarray, camera: Camera) -> np.ndarray:
        """The surface at the chosen cells (bool [H,W]), f64 [P,3] metres, camera frame."""
        rows, columns = np.nonzero(cells_HW)
        return camera.unproject(self.pixels(rows, columns), self.depth_HW[rows, columns].astype(float))

    def pixels(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Image points of cells, f64 [...,2] pixels."""
        return np.stack([columns, rows], -1) * self.step + np.array(self.corner_2)


def hand_patch(
    image_HW3: np.ndarray, depth_HW: np.ndarray, mask_HW: np.ndarray | None, landmarks_212: np.ndarray
) -> HandPatch:
    """The surroundings of a detected hand in one frame.

    image_HW3: uint8 RGB. depth_HW: metres, 0 = not measured. mask_HW: the hand's pixels where they are known.
    landmarks_212: pixels.
    """
    height, width = depth_HW.shape
    low, high = landmarks_212.min(0), landmarks_212.max(0)
    around = AROUND * float((high - low).max())
    x0, y0 = np.clip(np.floor(low - around), 0, (width - 1, height - 1)).astype(int)
    x1, y1 = np.clip(np.ceil(high + around), (x0 + 1, y0 + 1), (width, height)).astype(int)
    step = max(1, int(np.ceil(max(x1 - x0, y1 - y0) / SIDE)))
    depth = np.ascontiguousarray(depth_HW[y0:y1:step, x0:x1:step], np.float32)
    if mask_HW is not None:
        skin = mask_HW[y0:y1:step, x0:x1:step].astype(bool)
    else:
        colours = np.ascontiguousarray(image_HW3[y0:y1:step, x0:x1:step])
        skin = _like_the_palm(colours, (landmarks_212 - (x0, y0)) / step)
    return HandPatch(depth, skin, (x0 + 0.5, y0 + 0.5), step)


def nearest_cells(cells_HW: np.ndarray) -> np.ndarray | None:
    """Row and column of the nearest chosen cell, int [H,W,2]; None where there is none."""
    if not cells_HW.any():
        return None
    _, labels = cv2.distanceTransformWithLabels(
        (~cells_HW).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    labels = np.asarray(labels, np.int64)
    rows, columns = np.nonzero(cells_HW)
    place = np.zeros((int(labels.max()) + 1, 2), np.int64)
    place[labels[rows, columns]] = np.stack([rows, columns], 1)
    return place[labels]


def _like_the_palm(image_HW3: np.ndarray, landmarks_212: np.ndarray) -> np.ndarray:
    lab = cv2.cvtColor(image_HW3, cv2.COLOR_RGB2LAB).astype(np.float32)
    corners = landmarks_212[list(PALM)]
    corners = corners.mean(0) + INNER * (corners - corners.mean(0))
    palm = np.zeros(lab.shape[:2], np.uint8)
    cv2.fillConvexPoly(palm, cv2.convexHull(corners.astype(np.float32)).round().astype(np.int32), 1)
    colours = lab[palm > 0]
    if len(colours) < LEAST_PALM:
        return np.zeros(lab.shape[:2], bool)
    middle = np.median(colours, axis=0)
    spread = np.maximum(1.4826 * np.median(np.abs(colours[:, 1:] - middle[1:]), axis=0), HUE_FLOOR)
    off = (((lab[..., 1:] - middle[1:]) / spread) ** 2).sum(-1)
    light = lab[..., 0] - middle[0]
    return (off < SKIN**2) & (light < BRIGHTER) & (light > -DARKER)


def before_the_scene(patches: list[HandPatch | None], landmarks_T212: np.ndarray) -> list[HandPatch | None]:
    """The same patches without skin where the scene itself was seen: where colour does not tell a table from a hand.

    The scene is the furthest that was seen of a place in frames whose landmarks are not around it; the camera stands
    still, or nothing agrees with it. Patches whose surroundings do not look like skin are left alone.
    """
    known = [row for row, patch in enumerate(patches) if patch is not None]
    some = [patch for patch in patches if patch is not None]
    if not some:
        return patches
    outside = [~_around(patch, landmarks_T212[row]) for row, patch in zip(known, some, strict=True)]
    alike = [(patch.skin_HW & out).sum() / max(out.sum(), 1) for patch, out in zip(some, outside, strict=True)]
    if np.median(alike) < ALIKE:
        return patches
    blocks = [patch.places() // BLOCK for patch in some]
    scene = np.zeros(np.max([block.reshape(-1, 2).max(0) for block in blocks], axis=0) + 1)
    for patch, out, block in zip(some, outside, blocks, strict=True):
        np.maximum.at(scene, (block[out, 0], block[out, 1]), patch.depth_HW[out])
    result: list[HandPatch | None] = [None] * len(patches)
    for row, patch, block in zip(known, some, blocks, strict=True):
        behind = scene[block[..., 0], block[..., 1]]
        before = (behind == 0) | (patch.depth_HW < behind - CLEARLY)
        result[row] = replace(patch, skin_HW=patch.skin_HW & before)
    return result


def _around(patch: HandPatch, landmarks_212: np.ndarray) -> np.ndarray:
    """bool [H,W]: cells within the landmarks' hull and near it."""
    hull = np.zeros(patch.depth_HW.shape, np.uint8)
    corners = (landmarks_212 - np.array(patch.corner_2)) / patch.step
    cv2.fillConvexPoly(hull, cv2.convexHull(corners.astype(np.float32)).round().astype(np.int32), 1)
    near = max(1, round(NEAR * float(np.ptp(corners, axis=0).max())))
    return cv2.dilate(hull, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * near + 1, 2 * near + 1))) > 0
