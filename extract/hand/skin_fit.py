"""The whole surface of a hand that a depth sensor saw, as terms of the fit: articulated registration.

Every pixel of skin pulls the nearest part of the hand's skin to it; a part that stands where the sensor looks through
to something behind is pulled back to the nearest skin in the picture, which is where fingers end (the terms of
Tagliasacchi et al. 2015, "Robust Articulated-ICP for Real-Time Hand Tracking"). Landmarks of fingers that were searched
in the depth image (fingers.py) count less, those of the palm as before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from extract.effector import Camera
from extract.hand.equations import Equations
from extract.hand.fingers import Found
from extract.hand.patch import HandPatch, nearest_cells
from extract.hand.skeleton import JOINTS, KNUCKLES, RADII
from extract.hand.surface import hand_axes
from extract.hand.touch import PARTS, touch

POINTS = 200  # of skin per frame
SKIN_SIGMA = 0.006  # metres, of one point: neighbours err together
SKIN_REACH = 0.010  # metres from the skin at which a point counts a quarter
THROUGH = 0.015  # metres that the sensor sees behind a part's middle where the part cannot be
OUTLINE_SIGMA = 0.010  # metres
FOUND_SIGMA, HIDDEN_SIGMA = 0.006, 0.015  # metres, of joints that were searched: seen and hidden
WRIST_DOUBT, CMC_DOUBT = 2.0, 4.0
MOST = 8.0
LESS = 8.0  # how much less landmarks of searched fingers count, in sigmas
BEHIND = -0.075  # metres along the hand from the knuckles: what lies behind is forearm
REACH = 0.14  # metres from the knuckles that a hand reaches
USUAL_M = 0.004  # metres from the skin of a fitted hand to what the sensor saw of it, median
ASTRAY = 1.5  # times that: the frame's landmarks are on wrong fingers
ENOUGH = 20  # points that tell
ON_PARTS = np.array([0.5, 1.0])  # places along bones that are held against the outline


@dataclass(frozen=True)
class SkinView:
    """What the sensor saw of one hand in T frames, and where the fit starts.

    joints_T213: metres, camera frame, the start. points_TP3: skin, metres, camera frame; known_TP: bool, the others are
    padding. doubt_T21: by how much sigma of the landmarks grows. places_T213, places_sigma_T21: metres, of joints that
    were searched, NaN = not. patches: per frame, None where there is none.
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


def with_fingers(view: SkinView, joints_T213: np.ndarray, found: Found) -> SkinView:
    """The view of a hand that was fitted to it, ``joints_T213``, with fingers that were found there."""
    searched = np.isfinite(found.joints_T213[..., 0])
    return replace(
        view,
        joints_T213=np.where(searched[..., None], found.joints_T213, joints_T213),
        doubt_T21=view.doubt_T21 * np.where(searched, LESS, 1.0),
        places_T213=found.joints_T213,
        places_sigma_T21=HIDDEN_SIGMA + (FOUND_SIGMA - HIDDEN_SIGMA) * found.seen_T21,
    )


def _disagreement(points_TP3: np.ndarray, known_TP: np.ndarray, joints_T213: np.ndarray, scale: float) -> np.ndarray:
    """f64 [T]: how far the middle one of the points is from the hand's skin, in what is usual; 1 without points."""
    away = np.where(known_TP, np.abs(touch(points_TP3, joints_T213, RADII * scale).away), np.nan)
    enough = known_TP.sum(1) >= ENOUGH
    result = np.ones(len(away))
    result[enough] = np.nanmedian(away[enough], axis=1) / USUAL_M
    return result


def skin_view(
    time_T: np.ndarray,
    joints_T213: np.ndarray,
    patches: list[HandPatch | None],
    side: str,
    scale: float,
    camera: Camera,
) -> SkinView:
    """Gathers the skin around the hands ``joints_T213`` (metres, camera frame).

    Landmarks count less in frames whose hand is not where skin is; these start from the frames around them.
    """
    frames = len(joints_T213)
    rotations = hand_axes(joints_T213, side).rotations_T33
    knuckles = joints_T213[:, KNUCKLES].mean(1)
    points, known = np.zeros((frames, POINTS, 3)), np.zeros((frames, POINTS), bool)
    nearest: list[np.ndarray | None] = [None] * frames
    for row, patch in enumerate(patches):
        if patch is None:
            points[row] = knuckles[row]
            continue
        cells = patch.skin_HW & (np.abs(patch.depth_HW - knuckles[row, 2]) < REACH * scale)
        nearest[row] = nearest_cells(cells)
        seen = patch.points(cells, camera)
        place = (seen - knuckles[row]) @ rotations[row].T / scale
        seen = seen[(np.linalg.norm(place, axis=1) < REACH) & (place[:, 1] > BEHIND)]
        if len(seen) > POINTS:
            seen = seen[np.linspace(0, len(seen) - 1, POINTS).astype(int)]
        points[row, : len(seen)], known[row, : len(seen)] = seen, True
        points[row, len(seen) :] = knuckles[row]
    disagreement = _disagreement(points, known, joints_T213, scale)
    good = disagreement < ASTRAY
    if good.any():
        joints_T213 = joints_T213.copy()
        flat = joints_T213.reshape(frames, -1)
        for column in range(flat.shape[1]):
            flat[~good, column] = np.interp(time_T[~good], time_T[good], flat[good, column])
    return SkinView(
        joints_T213=joints_T213,
        points_TP3=points,
        known_TP=known,
        doubt_T21=np.clip(disagreement**2, 1, MOST)[:, None] * np.where(np.arange(JOINTS) == 0, WRIST_DOUBT, np.where(np.arange(JOINTS)==1, CMC_DOUBT, 1.0)),
        places_T213=np.full(joints_T213.shape, np.nan),
        places_sigma_T21=np.ones(joints_T213.shape[:2]),
        patches=patches,
        nearest=nearest,
        camera=camera,
    )


def add_skin(equations: Equations, view: SkinView, radii_21: np.ndarray) -> None:
    """Adds the terms of the skin to one step of the fit."""
    joints = equations.joints
    equations.add_places(view.places_T213, view.places_sigma_T21)
    found = touch(view.points_TP3, joints, radii_21)
    weight = view.known_TP / (1 + (found.away / SKIN_REACH) ** 2) ** 2 / SKIN_SIGMA**2
    equations.add_along_bones(PARTS[found.part], found.fraction, -found.normal, found.away, weight)
    _add_outline(equations, view)


def _add_outline(equations: Equations, view: SkinView) -> None:
    """Parts that the sensor looks past are pulled to the nearest skin, across the view."""
    joints = equations.joints
    frames = len(joints)
    a, b = PARTS[:15].T
    share = np.tile(ON_PARTS, len(a))
    ends = np.stack([np.repeat(a, len(ON_PARTS)), np.repeat(b, len(ON_PARTS))], 1)
    middles = joints[:, ends[:, 0]] * (1 - share)[:, None] + joints[:, ends[:, 1]] * share[:, None]
    pixels = view.camera.project(middles)
    target, past = np.zeros(pixels.shape), np.zeros(pixels.shape[:2], bool)
    for row, (patch, nearest) in enumerate(zip(view.patches, view.nearest, strict=True)):
        if patch is None or nearest is None:
            continue
        rows, columns, inside = patch.cells(pixels[row])
        depth = patch.depth_HW[rows, columns]
        past[row] = inside & (depth > middles[row, :, 2] + THROUGH)
        to = nearest[rows, columns]
        target[row] = to[:, ::-1] * patch.step + np.array(patch.corner_2)
    if not past.any():
        return
    z = middles[..., 2]
    ends_TP2, share_TP = np.broadcast_to(ends, (frames, *ends.shape)), np.broadcast_to(share, (frames, len(share)))
    aim = view.camera.unproject(target, z)
    weight = past / OUTLINE_SIGMA**2
    for axis in range(2):
        slope = np.zeros((*z.shape, 3))
        slope[..., axis] = 1
        equations.add_along_bones(ends_TP2, share_TP, slope, middles[..., axis] - aim[..., axis], weight)
