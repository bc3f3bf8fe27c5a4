"""Masks from boxes without any network: what stands out from the background in depth, over time and in colour.

Three kinds of evidence are summed as log odds for every pixel of the box: it is nearer than what is behind it (sensor
depth); it looks unlike the picture without the effector (a camera that stands still sees that picture in other frames);
it is near the box's centre. GrabCut (Rother, Kolmogorov, Blake 2004) then moves the border to where colours change.
Colour alone tells a hand from its arm as little as from a wooden table, so a frame with neither depth nor an empty
picture to compare with (a moving camera without depth) gets no mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import cv2
import numpy as np
from pydantic import Field

from data.episode import Frame
from extract.steps import Detection, Shot
from pipeline.config import Settings

SAMPLES = 15  # frames of a shot that the empty picture is made of
BAND = 64  # rows that are held at once while the empty picture is made
GROWN = 0.3  # ring around a box that may still show the effector and its arm, in boxes
FAR = 0.85  # quantile of a pixel's depths over time that is the scene behind what passes
NEARER = 0.015  # relative difference in depth from which something stands before the background
STILL_GREY = 12.0  # the camera moved when the surroundings differ by more grey levels from the empty picture
ENOUGH = 0.3  # share of a box about which depth or change must say something
CERTAIN = 3.0  # log odds at which GrabCut may not decide otherwise
SPECK = 0.1  # pieces smaller than this share of the largest are dropped


class BoxSettings(Settings):
    """Segmentation of detected boxes by depth, motion and colour."""

    name: Literal["box"] = "box"
    side_px: int = Field(
        default=160, ge=16, description="Longest side of a box with its surroundings that is looked at; more is slower."
    )
    rounds: int = Field(default=2, ge=0, description="Rounds of GrabCut; 0 = depth and motion alone decide.")
    min_mask_px: int = Field(default=30, ge=1, description="Masks with fewer pixels count as not seen.")


@dataclass(frozen=True)
class Plate:
    """The scene without the effector, from other frames. NaN where the effector always was, or depth never known.

    colour_HW3: f32 [H,W,3]. depth_HW: f32 [H,W] metres, or None without sensor depth.
    """

    colour_HW3: np.ndarray
    depth_HW: np.ndarray | None


class Box:
    """A Segmenter that needs no weights."""

    def __init__(self, settings: BoxSettings):
        self.settings = settings

    @property
    def weights_sha256(self) -> dict[str, str]:
        """There are none."""
        return {}

    def __call__(self, shot: Shot, seen: Sequence[Detection | None]) -> list[np.ndarray | None]:
        """bool [H,W] for every frame with a detection, None for the others and where nothing stands out."""
        boxes = [None if detection is None else np.asarray(detection.box_4, float) for detection in seen]
        sides = [float((box[2:] - box[:2]).max()) * (1 + 2 * GROWN) for box in boxes if box is not None]
        if not sides:
            return [None] * len(boxes)
        shrink = min(1.0, self.settings.side_px / max(float(np.median(sides)), 1.0))
        frames = _Shrunk(shot.frames, shrink)
        boxes = [None if box is None else box * shrink for box in boxes]
        plate = empty_plate(frames, boxes)
        masks = []
        for slot, box_4 in enumerate(boxes):
            mask = None if box_4 is None else self._mask(frames[slot], box_4, plate)
            masks.append(self._full(mask, shot.frames[slot].image.shape[:2]))
        return masks

    def _mask(self, frame: Frame, box_4: np.ndarray, plate: Plate | None) -> np.ndarray | None:
        shape = frame.image.shape[:2]
        rows, columns = _grown(box_4, GROWN, shape)
        if rows.stop - rows.start < 4 or columns.stop - columns.start < 4:
            return None
        image = frame.image[rows, columns]
        inside = _inside(shape, box_4)[rows, columns]
        odds = np.zeros(inside.shape)
        if frame.depth is not None:
            behind = None if plate is None or plate.depth_HW is None else plate.depth_HW[rows, columns]
            odds += _depth_odds(frame.depth[rows, columns], behind, inside)
        if plate is not None:
            odds += _change_odds(image, plate.colour_HW3[rows, columns], inside)
        if not inside.any() or (odds[inside] != 0).mean() < ENOUGH:
            return None
        odds += _centre_odds(inside)
        mask = np.zeros(shape, bool)
        mask[rows, columns] = _without_specks(self._cut(image, odds) & inside)
        return mask

    def _cut(self, image_HW3: np.ndarray, odds_HW: np.ndarray) -> np.ndarray:
        """bool [H,W]: GrabCut, started from the log odds and bound by them where they are clear."""
        labels = np.where(odds_HW > 0, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
        labels[odds_HW > CERTAIN], labels[odds_HW < -CERTAIN] = cv2.GC_FGD, cv2.GC_BGD
        foreground = labels % 2 == 1
        if self.settings.rounds == 0 or foreground.sum() < 10 or (~foreground).sum() < 10:
            return odds_HW > 0
        cv2.setRNGSeed(0)  # GrabCut starts its colour clusters at random
        models = np.zeros((1, 65)), np.zeros((1, 65))
        bgr = np.ascontiguousarray(image_HW3[..., ::-1])
        cv2.grabCut(bgr, labels, None, *models, self.settings.rounds, cv2.GC_INIT_WITH_MASK)  # pyright: ignore
        return labels % 2 == 1

    def _full(self, mask_HW: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray | None:
        """The mask at the frame's size, None when it has too few pixels there."""
        if mask_HW is None:
            return None
        if mask_HW.shape != shape:
            mask_HW = cv2.resize(mask_HW.astype(np.float32), (shape[1], shape[0])) > 0.5
        return mask_HW if mask_HW.sum() >= self.settings.min_mask_px else None


class _Shrunk(Sequence[Frame]):
    """Frames at a smaller size, made on access. Depth keeps single measured values: mixed ones lie in empty space."""

    def __init__(self, frames: Sequence[Frame], shrink: float):
        self._frames, self._shrink = frames, shrink

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, slot: Any) -> Any:
        frame = self._frames[slot]
        if self._shrink == 1:
            return frame
        height, width = frame.image.shape[:2]
        size = max(1, round(width * self._shrink)), max(1, round(height * self._shrink))
        depth = None if frame.depth is None else cv2.resize(frame.depth, size, interpolation=cv2.INTER_NEAREST)
        return replace(frame, image=cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA), depth=depth)


def empty_plate(frames: Sequence[Frame], boxes: Sequence[np.ndarray | None]) -> Plate | None:
    """The picture behind the effector, from frames that show it elsewhere; None when the camera moves.

    boxes: of the effector in each frame (frames without one are left out: it may be there unseen).
    """
    slots = [slot for slot, box in enumerate(boxes) if box is not None]
    slots = [slots[int(i)] for i in np.linspace(0, len(slots) - 1, min(SAMPLES, len(slots)))] if slots else []
    if len(slots) < 3:
        return None
    sampled = [frames[slot] for slot in slots]
    shape = sampled[0].image.shape[:2]
    rings = [_grown(box, GROWN, shape) for box in boxes if box is not None]  # nothing else is ever looked at
    rows, columns = (slice(min(ring[i].start for ring in rings), max(ring[i].stop for ring in rings)) for i in (0, 1))
    free = np.ones((len(slots), *shape), bool)
    for position, slot in enumerate(slots):
        box = boxes[slot]
        assert box is not None
        free[position][_grown(box, GROWN, shape)] = False
    has_depth = all(frame.depth is not None for frame in sampled)
    colour = np.full((*shape, 3), np.nan, np.float32)
    depth = np.full(shape, np.nan, np.float32)
    off = [np.zeros(0)]
    for top in range(rows.start, rows.stop, BAND):
        band = slice(top, min(top + BAND, rows.stop)), columns
        here = free[:, *band]
        stack = np.stack([frame.image[band] for frame in sampled])
        colour[band] = _quantile(stack, here, 0.5)
        off.append(np.abs(stack[:, ::2, ::2] - colour[band][::2, ::2]).max(-1)[here[:, ::2, ::2]])
        if has_depth:  # an arm may hide a place for most of the clip; the scene is what is farthest, not usual
            depth_FHW = np.stack([np.asarray(frame.depth)[band] for frame in sampled])
            measured = here & (depth_FHW > 0)
            depth[band] = _quantile(depth_FHW[..., None], measured, FAR)[..., 0]
            of_scene = measured & (depth_FHW > depth[band] * (1 - NEARER))
            known = np.isfinite(depth[band])[..., None]
            colour[band] = np.where(known, _quantile(stack, of_scene, 0.5), colour[band])
    differences = np.concatenate(off)
    differences = differences[np.isfinite(differences)]
    if not len(differences) or np.median(differences) > STILL_GREY:
        return None
    return Plate(colour, depth if has_depth else None)


def _quantile(values_FHWC: np.ndarray, which_FHW: np.ndarray, share: float) -> np.ndarray:
    """f32 [H,W,C]: per pixel a quantile of the values that count; NaN with fewer than two."""
    ordered = np.sort(np.where(which_FHW[..., None], values_FHWC, np.inf).astype(np.float32), 0)
    count_HW = which_FHW.sum(0)
    place = (np.maximum(count_HW - 1, 0) * share).astype(int)
    chosen = np.take_along_axis(ordered, place[None, ..., None], 0)[0]
    return np.where(count_HW[..., None] >= 2, chosen, np.nan).astype(np.float32)


def _centre_odds(inside_HW: np.ndarray) -> np.ndarray:
    """A weak wish: +0.5 at the box's centre, -0.5 at the middle of its sides, -2.5 outside of it."""
    rows, columns = np.flatnonzero(inside_HW.any(1)), np.flatnonzero(inside_HW.any(0))
    y = (np.arange(inside_HW.shape[0]) - rows.mean()) / (len(rows) / 2)
    x = (np.arange(inside_HW.shape[1]) - columns.mean()) / (len(columns) / 2)
    return np.where(inside_HW, 0.5 - np.minimum(x[None] ** 2 + y[:, None] ** 2, 2), -2.5)


def _depth_odds(depth_HW: np.ndarray, behind_HW: np.ndarray | None, inside_HW: np.ndarray) -> np.ndarray:
    """+-6 for what is clearly before the background or level with it; 0 where that is not known.

    Background: the plate, else a plane through the surroundings (linear in 1/z, as planes are in a picture).
    """
    known = depth_HW > 0
    behind = np.full(depth_HW.shape, np.nan) if behind_HW is None else behind_HW.astype(float)
    plane = _plane(depth_HW, known & ~inside_HW)
    if plane is not None:
        behind = np.where(np.isfinite(behind), behind, plane)
    before = 1 - np.where(known, depth_HW, np.nan) / behind
    return np.nan_to_num(np.clip((before - NEARER) / NEARER * 6, -6, 6), nan=0.0)


def _plane(depth_HW: np.ndarray, which_HW: np.ndarray) -> np.ndarray | None:
    """Depth of the plane that most of the chosen pixels lie on or before (things stand on it); None without enough."""
    rows, columns = np.nonzero(which_HW)
    if len(rows) < 40:
        return None
    inverse = 1 / depth_HW[rows, columns].astype(float)
    terms = np.stack([rows, columns, np.ones(len(rows))], 1)
    weight = np.ones(len(rows))
    for _ in range(8):  # asymmetric: what is nearer than the plane is no part of it
        solution = np.linalg.lstsq(terms * weight[:, None], inverse * weight, rcond=None)[0]
        off = inverse / (terms @ solution).clip(1e-6) - 1
        weight = np.where(off > NEARER / 2, 0.05, 1.0) / (1 + (off / NEARER) ** 2)
    y, x = np.mgrid[: depth_HW.shape[0], : depth_HW.shape[1]]
    plane = solution[0] * y + solution[1] * x + solution[2]
    return np.where(plane > 1e-6, 1 / np.maximum(plane, 1e-6), np.nan)


def _change_odds(image_HW3: np.ndarray, empty_HW3: np.ndarray, inside_HW: np.ndarray) -> np.ndarray:
    """Up to +3 for colours unlike the empty picture; down to -2 for the same ones (which may be chance)."""
    off = np.abs(image_HW3 - empty_HW3).max(-1)
    around = off[~inside_HW & np.isfinite(off)]
    noise = 3 + float(np.median(around)) if len(around) else 8.0
    return np.nan_to_num(np.clip(off / noise - 3, -2, 3), nan=0.0)


def _grown(box_4: np.ndarray, share: float, shape: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of a box with a ring of ``share`` of its sides, within the picture."""
    pad = share * (box_4[2:] - box_4[:2]) + 2
    x0, y0 = np.clip(np.floor(box_4[:2] - pad), 0, [shape[1], shape[0]]).astype(int)
    x1, y1 = np.clip(np.ceil(box_4[2:] + pad), 0, [shape[1], shape[0]]).astype(int)
    return slice(int(y0), int(y1)), slice(int(x0), int(x1))


def _inside(shape: tuple[int, int], box_4: np.ndarray) -> np.ndarray:
    rows, columns = np.arange(shape[0])[:, None] + 0.5, np.arange(shape[1])[None] + 0.5
    return (columns >= box_4[0]) & (columns <= box_4[2]) & (rows >= box_4[1]) & (rows <= box_4[3])


def _without_specks(mask_HW: np.ndarray) -> np.ndarray:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask_HW.astype(np.uint8), connectivity=8)
    if count <= 2:
        return mask_HW
    areas = stats[1:, cv2.CC_STAT_AREA]
    return np.isin(labels, 1 + np.flatnonzero(areas >= SPECK * areas.max()))
