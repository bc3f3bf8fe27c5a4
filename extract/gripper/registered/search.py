"""Where a gripper may be in a depth picture, when nothing is known: places and rotations scored by the depth there."""

from __future__ import annotations

import cv2
import numpy as np

from extract.effector import Camera
from extract.gripper.registered.model import PALM, GripperModel, State
from extract.gripper.registered.surface import measured_at

GRID = 80  # places along the longer side of the picture
PROBES, ANCHORS = 48, 2
NEAR_M = 0.015  # agreement, at the coarseness of the grid
MARGIN_M = 0.25  # around where the effector was seen in the labelled episodes
ROTATIONS = 6  # at most, evenly from those seen
APART_M = 0.025
KEPT = 24
LATTICE, LATTICE_M = 5, 0.015  # steps to each side, and their length
KEPT_AROUND = 4
DARK = 60.0
SAME_TINT = 0.1
LEAST = 0.2  # agreeing minus looked through, of all probes


def candidates(model: GripperModel, camera: Camera, depth_HW: np.ndarray, image_HW3: np.ndarray) -> list[State]:
    """States worth refining, the best first; empty where nothing looks like the gripper. depth_HW: metres, 0 unknown.

    image_HW3: u8 RGB of the same size.

    A few palm points are put on every place of a grid over the picture, at the depth that is measured there, in every
    rotation seen in the labelled episodes and with the jaws open and closed.
    """
    facing = np.flatnonzero(model.part_M == PALM)
    probes = model.spread(PROBES)
    anchors = facing[_middle_first(model.points_M3[facing], ANCHORS)]
    places = _places(camera, depth_HW)
    nearest_HW = _nearest_around(depth_HW)
    tint_HW3, tint_N3 = tint(image_HW3), tint(model.colours_M3[probes])
    low, high = model.range_23[0] - MARGIN_M, model.range_23[1] + MARGIN_M
    scored: list[tuple[float, State]] = []
    rotations = model.rotations_K33
    chosen = np.unique(np.linspace(0, len(rotations) - 1, min(len(rotations), ROTATIONS)).round().astype(int))
    for rotation in rotations[chosen]:
        offsets = [model.placed(State(rotation, np.zeros(3), jaws), probes) for jaws in model.jaws_22]
        starts = np.concatenate([places - rotation @ model.points_M3[anchor] for anchor in anchors])
        starts = starts[((starts > low) & (starts < high)).all(1)]
        for jaws, offsets_N3 in zip(model.jaws_22, offsets, strict=True):
            scores = _scores(camera, nearest_HW, tint_HW3, starts, offsets_N3, tint_N3)
            best = np.argsort(-scores, kind="stable")[: 8 * KEPT]
            scored += [(float(scores[n]), State(rotation, starts[n], jaws.copy())) for n in best if scores[n] > LEAST]
    scored.sort(key=lambda entry: -entry[0])
    kept: list[State] = []
    for _, state in scored:
        if all(np.linalg.norm(state.translation_3 - other.translation_3) > APART_M for other in kept):
            kept.append(state)
    return kept[:KEPT]


def around(
    model: GripperModel, camera: Camera, depth_HW: np.ndarray, image_HW3: np.ndarray, state: State
) -> list[State]:
    """States near a state, the best first: on a lattice of places, with the same rotation and jaws."""
    probes = model.spread(PROBES)
    offsets_N3 = model.placed(State(state.rotation_33, np.zeros(3), state.jaws_2), probes)
    ticks = np.arange(-LATTICE, LATTICE + 1) * LATTICE_M
    starts = state.translation_3 + np.stack(np.meshgrid(ticks, ticks, ticks, indexing="ij"), -1).reshape(-1, 3)
    scores = _scores(camera, depth_HW, tint(image_HW3), starts, offsets_N3, tint(model.colours_M3[probes]))
    best = np.argsort(-scores, kind="stable")[:KEPT_AROUND]
    return [State(state.rotation_33, starts[n], state.jaws_2) for n in best]


def _places(camera: Camera, depth_HW: np.ndarray) -> np.ndarray:
    """f64 [L,3] metres, camera frame: what is measured on a grid."""
    height, width = depth_HW.shape
    step = max(1, max(height, width) // GRID)
    rows, columns = (axis.ravel() for axis in np.mgrid[step // 2 : height : step, step // 2 : width : step])
    depth = depth_HW[rows, columns].astype(np.float64)
    points = camera.unproject(np.stack([columns, rows], -1) + 0.5, depth)
    return points[depth > 0]


def _nearest_around(depth_HW: np.ndarray) -> np.ndarray:
    """The nearest depth within a grid step: a place of the grid is off by up to half of it, and outlines are sharp."""
    step = max(1, max(depth_HW.shape) // GRID)
    known = np.where(depth_HW > 0, depth_HW, np.inf).astype(np.float32)
    near = cv2.erode(known, np.ones((step | 1, step | 1), np.uint8), borderType=cv2.BORDER_REPLICATE)
    return np.where(np.isfinite(near), near, 0)


def tint(colours_3: np.ndarray) -> np.ndarray:
    """f32 [...,3]: colour without brightness; dark colours fade to black, whose tint is noise."""
    colours = colours_3.astype(np.float32)
    return colours / (colours.sum(-1, keepdims=True) + DARK)


def _scores(
    camera: Camera,
    depth_HW: np.ndarray,
    tint_HW3: np.ndarray,
    starts_L3: np.ndarray,
    offsets_N3: np.ndarray,
    tint_N3: np.ndarray,
) -> np.ndarray:
    """f64 [L]: share of the probes that agree with depth (half) and colour, minus the share that is looked through.

    L may be 0: a frame can show nothing at the distances of the gripper.
    """
    points = starts_L3[:, None] + offsets_N3
    depth, rows, columns = measured_at(depth_HW, camera, points.reshape(-1, 3))
    behind = depth.reshape(points.shape[:2]) - points[..., 2]
    wrong = np.abs(tint_HW3[rows, columns].reshape(points.shape) - tint_N3).max(-1)
    agree = np.abs(behind) < NEAR_M
    return 0.5 * agree.mean(1) + 0.5 * (agree & (wrong < SAME_TINT)).mean(1) - (behind > NEAR_M).mean(1)


def _middle_first(points_M3: np.ndarray, count: int) -> np.ndarray:
    """The point nearest to the middle, and points of the inner half far from it and each other."""
    apart = ((points_M3 - points_M3.mean(0)) ** 2).sum(1)
    taken = [int(apart.argmin())]
    apart = np.where(apart <= np.median(apart), np.inf, 0.0)  # at the rim, half a grid step away is nothing
    while len(taken) < count:
        apart = np.minimum(apart, ((points_M3 - points_M3[taken[-1]]) ** 2).sum(1))
        taken.append(int(apart.argmax()))
    return np.array(taken)
