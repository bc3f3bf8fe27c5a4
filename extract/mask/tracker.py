"""Following identified surface points of a moving effector through depth images, one frame at a time.

A template (the surface seen in one reference frame) is registered to the surface seen in every other frame: a rigid
motion by trimmed iterative closest points (Besl and McKay, 1992), then a small smooth deformation for fingers and jaws
(closest-point residuals averaged over neighbours on the template, in the manner of coherent point drift). Every frame
is registered to the reference, starting from its neighbour's result, so errors do not add up over time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from data.episode import Frame
from data.geometry import rigid_fit, transform
from extract.effector import Camera

TEMPLATE_POINTS = 600
SCENE_POINTS = 1500
RIGID_ITERATIONS = 12
BEND_ITERATIONS = 6
NEIGHBOURHOOD_M = 0.012  # reach of the smooth deformation: about a finger's width
REACH_M = 0.03  # closest points further away than this are other surfaces
KEPT_SHARE = 0.8  # trimmed: the worst residuals belong to what is hidden in one of the two frames


@dataclass(frozen=True)
class Pose:
    """Where the template is: rigid camera_from_template [4,4] after a bend [M,3] (metres) in the template frame."""

    camera_from_template: np.ndarray
    bend_M3: np.ndarray
    residual_m: float


def surface_points(frame: Frame, camera: Camera, limit: int = SCENE_POINTS) -> np.ndarray:
    """The effector's measured surface in one frame, float64 [n,3] metres, camera frame; at most ``limit`` points."""
    assert frame.mask is not None and frame.depth is not None
    rows, columns = np.nonzero(frame.mask & (frame.depth > 0))
    if len(rows) > limit:
        keep = np.linspace(0, len(rows) - 1, limit).astype(int)
        rows, columns = rows[keep], columns[keep]
    pixels = np.stack([columns + 0.5, rows + 0.5], -1)
    return camera.unproject(pixels, frame.depth[rows, columns].astype(np.float64))


def spread(points_M3: np.ndarray, count: int) -> np.ndarray:
    """Indices of ``count`` points spread evenly (farthest point sampling); repeats when there are fewer."""
    chosen = [0]
    distance = np.linalg.norm(points_M3 - points_M3[0], axis=1)
    while len(chosen) < min(count, len(points_M3)):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(points_M3 - points_M3[chosen[-1]], axis=1))
    return np.resize(np.asarray(chosen), count)


class SurfaceTracker:
    """Registers one effector's template to frames. The template is what ``reference`` shows."""

    def __init__(self, reference: Frame, camera: Camera, points: int):
        self.camera = camera
        surface = surface_points(reference, camera)
        centre = surface.mean(0)
        template = (surface - centre)[spread(surface, min(TEMPLATE_POINTS, len(surface)))]
        self._template_M3 = template
        self._chosen = spread(template, points)
        self._smoothing = _smoothing(template)
        start = np.eye(4)
        start[:3, 3] = centre
        self.start = Pose(start, np.zeros_like(template), 0.0)

    def follow(self, frame: Frame, near: Pose, before: Pose | None = None) -> Pose:
        """The template's pose in ``frame``.

        near: the pose in the neighbouring frame. before: the pose one frame earlier still, for a guess at constant
        velocity. Both guesses are tried, the better one is refined.
        """
        scene = surface_points(frame, self.camera)
        tree = KDTree(scene)
        guesses = [near.camera_from_template]
        if before is not None:
            step = near.camera_from_template @ np.linalg.inv(before.camera_from_template)
            guesses.append(step @ near.camera_from_template)
        centred = near.camera_from_template.copy()
        centred[:3, 3] += scene.mean(0) - transform(near.camera_from_template, self._template_M3 + near.bend_M3).mean(0)
        guesses.append(centred)
        bend = near.bend_M3
        rigid = min((self._refine(guess, bend, tree, 3) for guess in guesses), key=lambda found: found[1])[0]
        rigid, _ = self._refine(rigid, bend, tree, RIGID_ITERATIONS)
        for _ in range(BEND_ITERATIONS):
            rigid, bend = self._bend(rigid, bend, tree)
        _, residual = self._refine(rigid, bend, tree, 1)
        return Pose(rigid, bend, residual)

    def points(self, pose: Pose) -> np.ndarray:
        """The identified points in the camera frame, float64 [N,3] metres."""
        return transform(pose.camera_from_template, (self._template_M3 + pose.bend_M3)[self._chosen])

    def _refine(
        self, rigid: np.ndarray, bend_M3: np.ndarray, tree: KDTree, iterations: int
    ) -> tuple[np.ndarray, float]:
        """Trimmed closest-point iterations from a first guess; returns the pose and the mean kept residual, metres."""
        bent = self._template_M3 + bend_M3
        residual = np.inf
        for _ in range(iterations):
            placed = transform(rigid, bent)
            distance, nearest = tree.query(placed)
            kept = distance <= min(max(np.quantile(distance, KEPT_SHARE), 1e-4), 10 * REACH_M)
            residual = float(distance[kept].mean()) if kept.any() else np.inf
            if kept.sum() < 8:
                break
            rigid = rigid_fit(bent[kept], np.asarray(tree.data)[nearest[kept]])
        return rigid, residual

    def _bend(self, rigid: np.ndarray, bend_M3: np.ndarray, tree: KDTree) -> tuple[np.ndarray, np.ndarray]:
        """One smooth deformation step towards the scene, then the rigid motion is fitted again."""
        placed = transform(rigid, self._template_M3 + bend_M3)
        distance, nearest = tree.query(placed)
        pull = np.where((distance < REACH_M)[:, None], (tree.data[nearest] - placed) @ rigid[:3, :3], 0.0)
        trust = np.exp(-((distance / REACH_M) ** 2))[:, None]
        moved = self._smoothing @ (trust * pull) / np.maximum(self._smoothing @ trust, 1e-6)
        bend = self._smoothing @ (bend_M3 + moved)
        return self._refine(rigid, bend, tree, 1)[0], bend


def _smoothing(template_M3: np.ndarray) -> np.ndarray:
    """Row-normalised Gaussian weights [M,M] between template points."""
    squared = ((template_M3[:, None] - template_M3[None]) ** 2).sum(-1)
    weights = np.exp(-squared / (2 * NEIGHBOURHOOD_M**2))
    return weights / weights.sum(1, keepdims=True)
