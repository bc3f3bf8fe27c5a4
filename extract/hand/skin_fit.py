"""The whole surface of a hand that a depth sensor saw, as terms of the fit: articulated registration.

Every point of skin pulls the nearest part of the hand's skin to it; a part that stands where the sensor looks through
to something behind is pulled back to the nearest skin in the picture, which is where fingers end (the terms of
Tagliasacchi et al. 2015, "Robust Articulated-ICP for Real-Time Hand Tracking"). Landmarks of fingers that were searched
in the depth image (fingers.py) count less, and so do all landmarks of a frame whose hand is not where skin is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from extract.effector import Camera
from extract.hand.equations import Equations
from extract.hand.fingers import Found
from extract.hand.patch import HandPatch, nearest_cells
from extract.hand.skeleton import JOINTS, KNUCKLES, RADII, WRIST
from extract.hand.surface import TUBES, hand_axes
from extract.hand.touch import PARTS, touch

POINTS = 200  # of skin per frame
SKIN_SIGMA = 0.006  # metres, of one point
SKIN_REACH = 0.010  # metres from the skin at which a point counts a quarter
THROUGH = 0.015  # metres that the sensor sees behind a part's middle where the part cannot be
OUTLINE_SIGMA = 0.010  # metres
FOUND_SIGMA, HIDDEN_SIGMA = 0.006, 0.015  # metres, of joints that were searched: seen and hidden
HAND_REACH, FOREARM = 0.14, -0.075  # metres from the knuckles that a hand reaches; along it where a forearm begins
ENOUGH = 20  # points that tell where a hand is
USUAL_M = 0.004  # metres from the skin of a fitted hand to what the sensor saw of it, median
NEAR_S = 0.3  # seconds in which a hand stays about where it is
ASTRAY = 1.5  # times that: the landmarks are on wrong fingers
# By how much sigma of landmarks grows: where they are astray, of searched fingers, of the wrist, of the thumb's root.
MOST_DOUBT, SEARCHED_DOUBT, WRIST_DOUBT, THUMB_ROOT_DOUBT = 8.0, 2.5, 2.0, 4.0
THUMB_ROOT = 1
# Places along the bones of thumb and fingers that are held against the outline.
OUTLINE_ENDS = np.repeat(TUBES, 2, axis=0)
OUTLINE_SHARE = np.tile([0.5, 1.0], len(TUBES))


@dataclass(frozen=True)
class SkinView:
    """What the sensor saw of one hand in T frames, and where the fit starts.

    joints_T213: metres, camera frame, the start. points_TP3: skin, metres, camera frame; known_TP: bool, the others are
    padding. doubt_T21: by how much sigma of the landmarks grows. places_T213, places_sigma_T21: metres, of joints that
    were searched, NaN = not. patches: per frame, None where there is none; nearest: their cells' nearest skin.
    """

    joints_T213: np.ndarray
    points_TP3: np.ndarray
    known_TP: np.ndarray
    doubt_T21: np.ndarray
    places_T213: np.ndarray
    places_sigma_T21: np.ndarray
    patches: list[HandPatch | None]
    nearest: list[np.ndarray | None]
    camera: Camera

    def part(self, frames: slice) -> SkinView:
        """The same in a stretch of frames."""
        own = {name: value[frames] for name, value in vars(self).items() if name != "camera"}
        return SkinView(**own, camera=self.camera)

    def with_fingers(self, joints_T213: np.ndarray, found: Found) -> SkinView:
        """The same for a hand that was fitted to it, ``joints_T213``, with fingers that were found there."""
        searched = np.isfinite(found.joints_T213[..., 0])
        return replace(
            self,
            joints_T213=np.where(searched[..., None], found.joints_T213, joints_T213),
            doubt_T21=self.doubt_T21 * np.where(searched, SEARCHED_DOUBT, 1.0),
            places_T213=found.joints_T213,
            places_sigma_T21=HIDDEN_SIGMA + (FOUND_SIGMA - HIDDEN_SIGMA) * found.seen_T21,
        )


def skin_view(
    time_T: np.ndarray,
    joints_T213: np.ndarray,
    patches: list[HandPatch | None],
    side: str,
    scale: float,
    camera: Camera,
) -> SkinView:
    """Gathers the skin around the hands ``joints_T213`` (metres, camera frame). scale: of the hand, 1 = an adult's.

    Frames whose hand is not where skin is start from the frames around them, and their landmarks count less.
    """
    frames = len(joints_T213)
    rotations = hand_axes(joints_T213, side).rotations_T33
    knuckles = joints_T213[:, KNUCKLES].mean(1)
    points, known = np.repeat(knuckles[:, None], POINTS, axis=1), np.zeros((frames, POINTS), bool)
    nearest: list[np.ndarray | None] = [None] * frames
    for row, patch in enumerate(patches):
        if patch is None:
            continue
        skin = patch.skin_HW & (np.abs(patch.depth_HW - knuckles[row, 2]) < HAND_REACH * scale)
        nearest[row] = nearest_cells(skin)
        seen = patch.points(skin, camera)
        place = (seen - knuckles[row]) @ rotations[row].T / scale
        seen = seen[(np.linalg.norm(place, axis=1) < HAND_REACH) & (place[:, 1] > FOREARM)]
        if len(seen) > POINTS:
            seen = seen[np.linspace(0, len(seen) - 1, POINTS).astype(int)]
        points[row, : len(seen)], known[row, : len(seen)] = seen, True
    disagreement = _disagreement(points, known, joints_T213, scale)
    astray = (disagreement >= ASTRAY) & _has_near(time_T, disagreement < ASTRAY)
    doubt = np.repeat(np.where(astray, np.clip(disagreement**2, 1, MOST_DOUBT), 1.0)[:, None], JOINTS, axis=1)
    doubt[:, WRIST] *= WRIST_DOUBT
    doubt[:, THUMB_ROOT] *= THUMB_ROOT_DOUBT
    return SkinView(
        joints_T213=_from_around(time_T, joints_T213, astray),
        points_TP3=points,
        known_TP=known,
        doubt_T21=doubt,
        places_T213=np.full(joints_T213.shape, np.nan),
        places_sigma_T21=np.ones(joints_T213.shape[:2]),
        patches=patches,
        nearest=nearest,
        camera=camera,
    )


def _disagreement(points_TP3: np.ndarray, known_TP: np.ndarray, joints_T213: np.ndarray, scale: float) -> np.ndarray:
    """f64 [T]: how far the middle one of the points is from the hand's skin, in what is usual; 1 without points."""
    away = np.where(known_TP, np.abs(touch(points_TP3, joints_T213, RADII * scale).away), np.nan)
    enough = known_TP.sum(1) >= ENOUGH
    result = np.ones(len(away))
    if enough.any():
        result[enough] = np.nanmedian(away[enough], axis=1) / USUAL_M
    return result


def _has_near(time_T: np.ndarray, good_T: np.ndarray) -> np.ndarray:
    """bool [T]: a good frame is so near in time that the hand is where it was."""
    near = np.abs(time_T[:, None] - time_T[good_T]) <= NEAR_S
    return np.any(near, axis=1)


def _from_around(time_T: np.ndarray, joints_T213: np.ndarray, astray_T: np.ndarray) -> np.ndarray:
    """Joints with those of some frames interpolated from the others."""
    if astray_T.all():
        return joints_T213
    flat = joints_T213.reshape(len(joints_T213), -1).copy()
    for column in flat.T:
        column[astray_T] = np.interp(time_T[astray_T], time_T[~astray_T], column[~astray_T])
    return flat.reshape(joints_T213.shape)


def add_skin(equations: Equations, view: SkinView, radii_21: np.ndarray) -> None:
    """Adds the terms of the skin to one step of the fit. radii_21: metres, of the hand as it is now."""
    equations.add_places(view.places_T213, view.places_sigma_T21)
    found = touch(view.points_TP3, equations.joints, radii_21)
    # Geman and McClure: a table that was taken for skin must not count at all.
    weight = view.known_TP / (1 + (found.away / SKIN_REACH) ** 2) ** 2 / SKIN_SIGMA**2
    equations.add_along_bones(PARTS[found.part], found.fraction, -found.normal, found.away, weight)
    _add_outline(equations, view)


def _add_outline(equations: Equations, view: SkinView) -> None:
    """Parts that the sensor looks past are pulled to the nearest skin, across the view."""
    a, b = OUTLINE_ENDS.T
    share = OUTLINE_SHARE[:, None]
    middles = equations.joints[:, a] * (1 - share) + equations.joints[:, b] * share
    pixels = view.camera.project(middles)
    aim, past = np.zeros(pixels.shape), np.zeros(pixels.shape[:2], bool)
    for row, (patch, nearest) in enumerate(zip(view.patches, view.nearest, strict=True)):
        if patch is None or nearest is None:
            continue
        rows, columns, inside = patch.cells(pixels[row])
        past[row] = inside & (patch.depth_HW[rows, columns] > middles[row, :, 2] + THROUGH)
        aim[row] = patch.pixels(*np.moveaxis(nearest[rows, columns], -1, 0))
    aims = view.camera.unproject(aim, middles[..., 2])
    ends = np.broadcast_to(OUTLINE_ENDS, (*past.shape, 2))
    shares = np.broadcast_to(OUTLINE_SHARE, past.shape)
    for axis in range(2):
        slope = np.zeros(middles.shape)
        slope[..., axis] = 1
        error = middles[..., axis] - aims[..., axis]
        equations.add_along_bones(ends, shares, slope, error, past / OUTLINE_SIGMA**2)
