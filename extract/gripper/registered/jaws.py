"""The two jaws of a gripper: the axis along which they part, and where each frame has them.

What is no palm moves with one jaw or the other, by half of the recorded opening.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.spatial import KDTree

from extract.gripper.registered.surface import Surface, View, fixed_surface

DIRECTIONS = 400  # of a hemisphere that are tried as axis
EXTREME = 0.2  # of the range of openings: so near to its ends jaws count as closed, as open
FIXED_SO_FAR = 0.6  # as jaws that are closed alike may still stand off centre
LEAST_SHARED = 20
AXES, APART_DEG = 6, 6.0  # that are tried out, and how far they are apart
OFF_CENTRE_M, STEP_M = 0.012, 0.001  # how far both jaws may stand off the middle together
NEAR_M = 0.003


def jaw_axes(views: Sequence[View]) -> list[np.ndarray]:
    """f64 [3] unit each: directions along which the jaws may part, the likeliest first; none where none are to be seen.

    views: without the palm. What stays together while the jaws are closed must lie, moved by half of the difference in
    opening, on what stays together while they are open: part of it one way, part of it the other. The sign is
    arbitrary but fixed: the largest component is positive.
    """
    opening_T = np.array([view.opening for view in views])
    low, high = opening_T.min(), opening_T.max()
    ends = (opening_T <= low + EXTREME * (high - low), opening_T >= high - EXTREME * (high - low))
    clouds, means = [], []
    for chosen_T in ends:
        chosen = [view for view, chosen in zip(views, chosen_T, strict=True) if chosen]
        surface = fixed_surface(chosen, np.zeros((len(chosen), 3)), fixed=FIXED_SO_FAR)
        clouds.append(surface.points_M3)
        means.append(np.mean([view.opening for view in chosen]))
    if min(map(len, clouds)) < LEAST_SHARED:
        return []
    closed, tree, half = clouds[0], KDTree(clouds[1]), (means[1] - means[0]) / 2
    directions = _hemisphere(DIRECTIONS)
    scores = np.array([_explained(closed, tree, half, axis) for axis in directions])
    axes: list[np.ndarray] = []
    for axis in directions[np.argsort(-scores, kind="stable")]:
        if all(abs(axis @ other) < np.cos(np.deg2rad(APART_DEG)) for other in axes):
            axes.append(axis * np.sign(axis[np.argmax(np.abs(axis))]))
    return axes[:AXES]


def _explained(closed_M3: np.ndarray, open_tree: KDTree, half_m: float, axis_3: np.ndarray) -> float:
    """How well the closed jaws, moved by half the opening and a common shift, lie on the open ones; both must."""
    shifts = np.arange(-2, 3) * OFF_CENTRE_M / 2
    scores = []
    for shift in shifts:
        sides = []
        for sign in (1.0, -1.0):
            apart, _ = open_tree.query(closed_M3 + (shift + sign * half_m) * axis_3)
            sides.append(float(np.exp(-0.5 * (apart / NEAR_M) ** 2).sum()))
        scores.append(np.sqrt(sides[0] * sides[1]))
    return max(scores)


def refined_axis(
    views: Sequence[View], up: Surface, down: Surface, centre_T: np.ndarray, axis_3: np.ndarray
) -> np.ndarray:
    """The axis that best takes the jaws' surfaces to what each view shows of them, in least squares of point to plane.

    views: without the palm. What is constant (surfaces that stand a little off) is left free for either jaw.
    """
    across_23 = np.linalg.svd(axis_3[None])[2][1:]
    lhs, rhs = 1e-9 * np.eye(8), np.zeros(8)
    for view, centre in zip(views, centre_T, strict=True):
        if len(view.cloud_P3) < 20:
            continue
        tree = KDTree(view.cloud_P3)
        for number, (jaw, sign) in enumerate(((up, 1.0), (down, -1.0))):
            along = centre + sign * view.opening / 2
            points = jaw.points_M3 + along * axis_3
            apart, index = tree.query(points, distance_upper_bound=2 * NEAR_M)
            found = np.isfinite(apart)
            normals = jaw.normals_M3[found]
            off = ((view.cloud_P3[np.asarray(index)[found]] - points[found]) * normals).sum(1)
            weight = 1 / (1 + (off / NEAR_M) ** 2)
            rows = np.zeros((len(off), 8))
            rows[:, :2] = along * normals @ across_23.T
            rows[:, 2 + 3 * number : 5 + 3 * number] = normals
            lhs += (rows * weight[:, None]).T @ rows
            rhs += (rows * weight[:, None]).T @ off
    refined = axis_3 + np.linalg.solve(lhs, rhs)[:2] @ across_23
    return refined / np.linalg.norm(refined)


def _hemisphere(count: int) -> np.ndarray:
    """f64 [count,3]: unit vectors evenly over half of a sphere (Fibonacci lattice)."""
    height = (np.arange(count) + 0.5) / count
    angle = np.pi * (1 + 5**0.5) * np.arange(count)
    flat = np.sqrt(1 - height**2)
    return np.stack([flat * np.cos(angle), flat * np.sin(angle), height], -1)


def jaw_surfaces(
    views: Sequence[View], axis_3: np.ndarray, centre_T: np.ndarray, rounds: int = 1
) -> tuple[Surface, Surface, np.ndarray]:
    """The jaw on the positive side, the one on the negative side, and f64 [T] metres: how far off centre both stand.

    views: without the palm's points. centre_T: f64 metres, a first guess of it. Surfaces are as if each inner
    face were at 0 on the axis.
    """
    opening_T = np.array([view.opening for view in views])
    up = down = Surface(*(np.zeros((0, 3)),) * 3)
    for round_ in range(rounds + 1):
        up = fixed_surface(views, (centre_T + opening_T / 2)[:, None] * axis_3)
        down = fixed_surface(views, (centre_T - opening_T / 2)[:, None] * axis_3)
        up, down = _own_side(up, axis_3, 1.0), _own_side(down, axis_3, -1.0)
        if round_ < rounds and len(up.points_M3) and len(down.points_M3):
            centre_T = _centres(views, up, down, axis_3)
    return up, down, centre_T


def _own_side(surface: Surface, axis_3: np.ndarray, sign: float) -> Surface:
    """Without what lies beyond the other jaw's face: there it can only be smeared parts of the other jaw."""
    kept = sign * (surface.points_M3 @ axis_3) > -OFF_CENTRE_M
    return Surface(surface.points_M3[kept], surface.normals_M3[kept], surface.colours_M3[kept])


def _centres(views: Sequence[View], up: Surface, down: Surface, axis_3: np.ndarray) -> np.ndarray:
    """f64 [T] metres: the common shift of both jaws that puts most of their points on the view's surface."""
    steps = np.arange(-OFF_CENTRE_M, OFF_CENTRE_M + STEP_M / 2, STEP_M)
    centres = np.zeros(len(views))
    for number, view in enumerate(views):
        if len(view.cloud_P3) < 20:
            continue
        tree = KDTree(view.cloud_P3)
        jaws = np.concatenate([up.points_M3 + view.opening / 2 * axis_3, down.points_M3 - view.opening / 2 * axis_3])
        shifted = jaws[None] + steps[:, None, None] * axis_3
        apart, _ = tree.query(shifted, distance_upper_bound=2 * NEAR_M)
        agree = np.exp(-0.5 * (np.minimum(apart, 1.0) / NEAR_M) ** 2).sum(1)
        top = int(agree.argmax())
        left, middle, right = agree[max(top - 1, 0)], agree[top], agree[min(top + 1, len(steps) - 1)]
        bend = left - 2 * middle + right
        centres[number] = steps[top] + (STEP_M * 0.5 * (left - right) / bend if bend < 0 else 0.0)
    return centres - np.median(centres)


def without(view: View, surface: Surface, margin_m: float) -> View:
    """The view without its points on (near) a surface in the effector frame."""
    apart, _ = KDTree(surface.points_M3).query(view.cloud_P3, distance_upper_bound=margin_m)
    kept = np.isinf(apart)
    return replace(view, cloud_P3=view.cloud_P3[kept], colour_P3=view.colour_P3[kept])
