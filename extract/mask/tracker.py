"""Following identified surface points of a moving effector through depth images.

A template (the surface seen in one reference frame) is registered to the surface seen in every other frame, by soft
correspondences that sharpen from several pixels to less than one (``correspond``): a rigid motion, and a bend for
fingers and jaws (``bending``). Every frame is registered to the reference, starting from its neighbour's result, so
errors do not add up over time.

Two passes. ``follow`` registers with a free, smooth bend: it catches jaws and fingers, but bends a little in every
frame where nothing bent. ``learn`` finds the few ways in which the effector really bent; ``polish`` registers again
with only those. Online, learn from the poses so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from data.episode import Frame
from data.geometry import rigid_fit, transform
from extract.effector import Camera
from extract.lift.sample import depth_under
from extract.mask.bending import fit_free, fit_learnt, free_modes, learnt_modes, split_rigid
from extract.mask.correspond import COLOUR_SIGMA, Targets, soft_targets
from extract.mask.surface import Surface, distance_along, measured_surface, spread

TEMPLATE_POINTS = 300
SCENE_POINTS = 400
CANDIDATES = 1500  # pixels of the reference frame among which template points are spread
# Blur of the correspondences in sample spacings. What is below half a spacing would lock on to the pixel grid.
FOLLOW_PITCHES = np.geomspace(2.0, 0.6, 10)
POLISH_PITCHES = np.geomspace(1.0, 0.3, 12)
POLISH_FINE, POLISH_SCENE = 2, 1600
POLISH_COLOUR = 0.12
AVERAGE_PRIOR = 1.0  # frames that the template's own depth counts for, beyond its own frame
AVERAGE_PITCHES = 0.15
SAME_SURFACE_M = 0.012  # a measurement further from a placed point shows something else
# Neighbouring residuals err alike (view, occlusion): so many of them count for one. With less caution a hand that
# closes is taken for one that turns and bends, with more a jaw is lost.
CAUTION = 15.0
FOLLOW_OUTLIERS, POLISH_OUTLIERS = 0.02, 0.1
SUPPORTED = 0.3  # template points that explain less than this much of a measured point are taken for hidden


@dataclass(frozen=True)
class Pose:
    """Where the template is: rigid camera_from_template [4,4] after a bend [M,3] (metres) in the template frame.

    residual_m: rms distance from the supported template points to where the measurement wants them.
    hidden: share of template points that nothing measured supports, 0..1.
    """

    camera_from_template: np.ndarray
    bend_M3: np.ndarray
    residual_m: float
    hidden: float = 0.0


class SurfaceTracker:
    """Registers one effector's template to frames. The template is what ``reference`` shows."""

    def __init__(self, reference: Frame, camera: Camera, points: int):
        self.camera = camera
        surface = measured_surface(reference, camera, CANDIDATES)
        surface = surface.take(np.sort(spread(surface.points_N3, min(TEMPLATE_POINTS, len(surface.points_N3)))))
        centre = surface.points_N3.mean(0)
        self._template = replace(surface, points_N3=surface.points_N3 - centre)
        self._chosen = spread(surface.points_N3, points)
        self._free_MK = free_modes(distance_along(surface.points_N3, surface.pitch_m))
        self._learnt_DK = np.zeros((3 * len(surface.points_N3), 0))
        self._blur_offsets: dict[tuple[float, float, float], np.ndarray] = {}
        start = np.eye(4)
        start[:3, 3] = centre
        self.start = Pose(start, np.zeros_like(surface.points_N3), 0.0)

    def points(self, pose: Pose) -> np.ndarray:
        """The identified points in the camera frame, float64 [N,3] metres."""
        return self._placed(pose.camera_from_template, pose.bend_M3)[self._chosen]

    def follow(self, frame: Frame, near: Pose, before: Pose | None = None) -> Pose:
        """The template's pose in ``frame``, freely bent.

        near: the pose in the neighbouring frame. before: the pose one frame earlier still, for a guess at constant
        velocity. The guess that explains the measurement best is refined.
        """
        measured = measured_surface(frame, self.camera, SCENE_POINTS)
        rigid, bend = self._best_guess(measured, near, before), near.bend_M3
        for step, pitches in enumerate(FOLLOW_PITCHES):
            sigma = pitches * self._template.pitch_m
            targets = self._targets(rigid, bend, measured, sigma, FOLLOW_OUTLIERS)
            rigid = self._fit_rigid(rigid, bend, targets)
            if step > 0:
                bend = fit_free(self._free_MK, self._wanted(rigid, targets), targets.mass_M / (CAUTION * sigma**2))
        return self._pose(rigid, bend, targets)

    def learn(self, poses: Sequence[Pose]) -> None:
        """Find out from followed poses how this effector bends; ``polish`` uses it."""
        straight = [split_rigid(self._template.points_N3, pose.camera_from_template, pose.bend_M3) for pose in poses]
        self._learnt_DK = learnt_modes(np.stack([bend for _, bend in straight]), self._template.pitch_m)

    def polish(self, frame: Frame, pose: Pose) -> Pose:
        """A followed pose again, sharper, bent only as learnt (rigid when nothing was learnt)."""
        measured = measured_surface(frame, self.camera, POLISH_SCENE, POLISH_FINE)
        rigid, bend = split_rigid(self._template.points_N3, pose.camera_from_template, pose.bend_M3)
        bend = fit_learnt(self._learnt_DK, bend, np.full(len(bend), 1 / self._template.pitch_m**2))
        for pitches in POLISH_PITCHES:
            sigma = pitches * self._template.pitch_m
            targets = self._targets(rigid, bend, measured, sigma, POLISH_OUTLIERS, POLISH_COLOUR)
            rigid = self._fit_rigid(rigid, bend, targets)
            bend = fit_learnt(self._learnt_DK, self._wanted(rigid, targets), targets.mass_M / (CAUTION * sigma**2))
        return self._pose(rigid, bend, targets)

    def average(self, frames: Sequence[Frame], poses: Sequence[Pose], depth_m: float) -> None:
        """Correct the template's depth by what all frames measured, each at its polished pose.

        A template point lies on the ray of the reference pixel that it was taken from; how far along is known no
        better than that one pixel's depth. Every frame in which it is seen says it once more. depth_m: one sigma of
        single depth values, metres.
        """
        ray_M3 = self._template.points_N3 + self.start.camera_from_template[:3, 3]
        ray_M3 = ray_M3 / np.linalg.norm(ray_M3, axis=1, keepdims=True)
        total_M, seen_M = np.zeros(len(ray_M3)), np.full(len(ray_M3), AVERAGE_PRIOR)
        for frame, pose in zip(frames, poses, strict=True):
            placed_M3 = self._placed(pose.camera_from_template, pose.bend_M3)
            gap_M3 = depth_gap(placed_M3, frame, self.camera)
            seen_M += np.isfinite(gap_M3[:, 0])
            total_M += (np.nan_to_num(gap_M3 @ pose.camera_from_template[:3, :3]) * ray_M3).sum(1)
        deeper_M = averaged(total_M / seen_M, self._template.pitch_m, depth_m)
        shape_M3 = self._template.points_N3 + deeper_M[:, None] * ray_M3
        self._template = replace(self._template, points_N3=shape_M3)
        self._blur_offsets.clear()

    def _best_guess(self, measured: Surface, near: Pose, before: Pose | None) -> np.ndarray:
        rigid = near.camera_from_template
        centred = rigid.copy()
        centred[:3, 3] += measured.points_N3.mean(0) - self._placed(rigid, near.bend_M3).mean(0)
        guesses = [rigid, centred]
        if before is not None:
            guesses.append(rigid @ np.linalg.inv(before.camera_from_template) @ rigid)
        sigma = FOLLOW_PITCHES[0] * self._template.pitch_m
        best, highest = rigid, -np.inf
        for guess in guesses:
            targets = self._targets(guess, near.bend_M3, measured, sigma, FOLLOW_OUTLIERS)
            if targets.support > highest:
                best, highest = self._fit_rigid(guess, near.bend_M3, targets), targets.support
        return best

    def _placed(self, rigid: np.ndarray, bend_M3: np.ndarray) -> np.ndarray:
        return transform(rigid, self._template.points_N3 + bend_M3)

    def _wanted(self, rigid: np.ndarray, targets: Targets) -> np.ndarray:
        """Displacements [M,3] in the template frame that would bring every point to its target."""
        return (targets.points_M3 - rigid[:3, 3]) @ rigid[:3, :3] - self._template.points_N3

    def _targets(
        self,
        rigid: np.ndarray,
        bend_M3: np.ndarray,
        measured: Surface,
        sigma: float,
        outliers: float,
        colour: float = COLOUR_SIGMA,
    ) -> Targets:
        """Soft targets without the pull of blurring: at an edge, all that is near lies inside, even when all fits.

        That pull is what the template exerts on itself; it is subtracted.
        """
        template, key = self._template, (sigma, outliers, colour)
        if key not in self._blur_offsets:
            itself = soft_targets(template.points_N3, template.colours_N3, template, sigma, outliers, colour)
            self._blur_offsets[key] = itself.points_M3 - template.points_N3
        targets = soft_targets(self._placed(rigid, bend_M3), template.colours_N3, measured, sigma, outliers, colour)
        return replace(targets, points_M3=targets.points_M3 - self._blur_offsets[key] @ rigid[:3, :3].T)

    def _fit_rigid(self, rigid: np.ndarray, bend_M3: np.ndarray, targets: Targets) -> np.ndarray:
        if targets.mass_M.sum() < 4:
            return rigid  # nothing measured is near; the frame is left where its neighbour is
        return rigid_fit(self._template.points_N3 + bend_M3, targets.points_M3, targets.mass_M)

    def _pose(self, rigid: np.ndarray, bend_M3: np.ndarray, targets: Targets) -> Pose:
        supported = targets.mass_M > SUPPORTED
        gap = targets.points_M3[supported] - self._placed(rigid, bend_M3)[supported]
        residual = float(np.sqrt((gap**2).sum(1).mean())) if supported.any() else float(self._template.pitch_m)
        return Pose(rigid, bend_M3, residual, float(1 - supported.mean()))


def depth_gap(points_N3: np.ndarray, frame: Frame, camera: Camera) -> np.ndarray:
    """f64 [N,3] metres: from each point along its ray to the measured surface; NaN where that is another one."""
    assert frame.mask is not None and frame.depth is not None
    depth_N = depth_under(frame.depth, frame.mask, camera.project(points_N3))
    gap_N3 = points_N3 * (depth_N / points_N3[:, 2] - 1)[:, None]
    gap_N3[~(np.linalg.norm(gap_N3, axis=1) < SAME_SURFACE_M)] = np.nan
    return gap_N3


def averaged(deeper_M: np.ndarray, pitch_m: float, depth_m: float) -> np.ndarray:
    """Depth corrections as far as they are believed: poses that are off by a share of a pixel make some too."""
    return deeper_M * depth_m**2 / (depth_m**2 + (AVERAGE_PITCHES * pitch_m) ** 2)
