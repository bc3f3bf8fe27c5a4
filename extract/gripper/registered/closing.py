"""Where the jaws are along their axis, once the palm is known: every place is tried, as thin jaws look alike."""

from __future__ import annotations

import numpy as np

from extract.effector import Camera
from extract.gripper.registered.model import JAW_DOWN, JAW_UP, GripperModel, State
from extract.gripper.registered.search import SAME_TINT, tint
from extract.gripper.registered.surface import measured_at

STEP_M = 0.002
SLACK_M = 0.006  # beyond the openings that the labelled episodes show
OFF_CENTRE_M = 0.012  # how far both jaws may stand off their usual middle
POINTS = 60  # of either jaw
AGREE_M, THROUGH_M = 0.004, 0.008
BETTER = 0.08  # of a jaw's points; less is no reason to leave where the jaws are


def with_best_jaws(
    model: GripperModel, camera: Camera, depth_HW: np.ndarray, image_HW3: np.ndarray, state: State
) -> State:
    """The state with jaws where most of their points agree with depth and colour, and few are looked through.

    The very same state where it is about as good as the best.
    """
    closed, open_ = (float(jaws[0] - jaws[1]) for jaws in model.jaws_22)
    middle = float(model.jaws_22.mean())
    reach = (open_ + SLACK_M) / 2 + OFF_CENTRE_M
    places = middle + np.arange(-reach, reach + STEP_M / 2, STEP_M)
    scores = [
        _scores(model, camera, depth_HW, image_HW3, state, part, np.append(places, now))
        for part, now in zip((JAW_UP, JAW_DOWN), state.jaws_2, strict=True)
    ]
    opening = places[:, None] - places
    centre = (places[:, None] + places) / 2 - middle
    allowed = (opening > closed - SLACK_M) & (opening < open_ + SLACK_M) & (np.abs(centre) < OFF_CENTRE_M)
    both = np.where(allowed, scores[0][:-1, None] + scores[1][:-1], -np.inf)
    up, down = np.unravel_index(int(both.argmax()), both.shape)
    now_opening, now_centre = state.opening, float(state.jaws_2.mean()) - middle
    possible = closed - SLACK_M < now_opening < open_ + SLACK_M and abs(now_centre) < OFF_CENTRE_M
    if possible and scores[0][-1] + scores[1][-1] > both[up, down] - BETTER:
        return state
    return State(state.rotation_33, state.translation_3, np.array([places[up], places[down]]))


def _scores(
    model: GripperModel,
    camera: Camera,
    depth_HW: np.ndarray,
    image_HW3: np.ndarray,
    state: State,
    part: int,
    places_L: np.ndarray,
) -> np.ndarray:
    """f64 [L]: share of a jaw's points that agree at each place along the axis, minus the share looked through."""
    rows = np.flatnonzero(model.part_M == part)
    rows = rows[:: max(1, len(rows) // POINTS)]
    closed = model.placed(State(state.rotation_33, state.translation_3, np.zeros(2)), rows)
    axis = state.rotation_33 @ model.jaw_axis_3
    points = closed[None] + places_L[:, None, None] * axis
    depth, v, u = measured_at(depth_HW, camera, points.reshape(-1, 3))
    behind = depth.reshape(points.shape[:2]) - points[..., 2]
    seen = tint(image_HW3[v, u]).reshape(*points.shape)
    same = np.abs(seen - tint(model.colours_M3[rows])).max(-1) < SAME_TINT
    agree = np.abs(behind) < AGREE_M
    return 0.5 * agree.mean(1) + 0.5 * (agree & same).mean(1) - (behind > THROUGH_M).mean(1)
