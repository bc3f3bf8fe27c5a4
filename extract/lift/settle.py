"""Placed points settle on the measured surface: tracks slide along it when the view changes, its shape does not.

The correspondences are the soft ones of the mask tracker (``extract/mask/correspond.py``), sharpening from about a
sample spacing to a third of it; the motion is the local one of ``rigidity``, so that jaws and fingers keep their own.
Tracks keep a small say: they hold what a surface leaves open, such as a turn about a finger's axis.
"""

from __future__ import annotations

import numpy as np

from data.episode import Frame
from extract.effector import Camera
from extract.lift.rigidity import local_motions
from extract.mask.correspond import soft_targets
from extract.mask.surface import Surface
from extract.mask.tracker import AVERAGE_PRIOR, averaged, depth_gap

PITCHES = np.geomspace(1.0, 0.3, 12)
OUTLIERS = 0.1
COLOUR_SIGMA = 0.12
TRACKS = 0.05  # one track counts for that much of what its own sigma says: neighbours' tracks err alike
FEWEST_MASS = 4.0


class Settler:
    """Registers one shape [N,3] (metres, camera frame of the reference, RGB colours in 0..1) to measured surfaces."""

    def __init__(self, shape: Surface, affinity_NN: np.ndarray):
        self.shape, self.affinity_NN = shape, affinity_NN
        self._offsets = [self._pull(pitches * shape.pitch_m) for pitches in PITCHES]
        self._rays_N3 = shape.points_N3 / np.linalg.norm(shape.points_N3, axis=1, keepdims=True)
        self._deeper_N, self._seen_N = np.zeros(len(shape.points_N3)), np.full(len(shape.points_N3), AVERAGE_PRIOR)

    def _pull(self, sigma_m: float) -> np.ndarray:
        """What blurring alone moves the points by, even where all fits: subtracted everywhere."""
        shape = self.shape
        itself = soft_targets(shape.points_N3, shape.colours_N3, shape, sigma_m, OUTLIERS, COLOUR_SIGMA)
        return itself.points_M3 - shape.points_N3

    def __call__(
        self,
        points_N3: np.ndarray,
        rotation_N33: np.ndarray,
        measured: Surface,
        tracked_N3: np.ndarray,
        weight_N: np.ndarray,
        sigma_N: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The points placed by tracks, settled, f64 [N,3], and the rotation of each point's part, f64 [N,3,3].

        tracked_N3, weight_N (0: not tracked), sigma_N: the tracks' own measurement, metres.
        """
        tracked_N3 = np.nan_to_num(tracked_N3)
        held_N = TRACKS * weight_N / sigma_N**2
        for pitches, offset_N3 in zip(PITCHES, self._offsets, strict=True):
            sigma = pitches * self.shape.pitch_m
            targets = soft_targets(points_N3, self.shape.colours_N3, measured, sigma, OUTLIERS, COLOUR_SIGMA)
            if targets.mass_M.sum() < FEWEST_MASS:
                return points_N3, rotation_N33
            surface_N3 = targets.points_M3 - np.einsum("nij,nj->ni", rotation_N33, offset_N3)
            pulled_N = targets.mass_M / sigma**2
            total_N = pulled_N + held_N + 1e-9
            goal_N3 = (pulled_N[:, None] * surface_N3 + held_N[:, None] * tracked_N3) / total_N[:, None]
            rotation_N33, shift_N3 = local_motions(self.shape.points_N3, goal_N3, total_N, self.affinity_NN)
            points_N3 = np.einsum("nij,nj->ni", rotation_N33, self.shape.points_N3) + shift_N3
        return points_N3, rotation_N33

    def compare(self, points_N3: np.ndarray, rotation_N33: np.ndarray, frame: Frame, camera: Camera) -> None:
        """Take note of how far along its ray each settled point is from the surface that ``frame`` measured."""
        gap_N3 = depth_gap(points_N3, frame, camera)
        self._seen_N += np.isfinite(gap_N3[:, 0])
        self._deeper_N += (np.nan_to_num(np.einsum("nji,nj->ni", rotation_N33, gap_N3)) * self._rays_N3).sum(1)

    def correction(self, depth_m: float) -> np.ndarray:
        """f64 [N,3] metres, in the reference frame: where all frames together see the shape's points along their rays.

        The reference knows a point's distance no better than one pixel's depth; every other frame says it once more.
        depth_m: one sigma of single depth values, metres.
        """
        return averaged(self._deeper_N / self._seen_N, self.shape.pitch_m, depth_m)[:, None] * self._rays_N3
