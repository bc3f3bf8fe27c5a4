"""Image tracks and depth to points in space: each point at the depth of its own pixel, held together as a solid's are.

1. Every visible point is unprojected at the depth under it (``sample``: never mixed from two surfaces).
2. In every frame, every point gets the rigid motion that its neighbours share (``rigidity``). It says where points went
   that nothing measured, and takes the noise of single pixels out of those that were measured: these come to lie
   between their neighbours' motion and their own measurement, by how sure both are.
3. A measurement that contradicts its neighbours' motion is not visible.
4. Where depth is as good as a sensor's, the points settle on the measured surface (``settle``).
5. Smoothing over time, as much as the clip's own noise asks for, never by more than one sigma (``calm``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from pydantic import Field

from extract.effector import EffectorTrack
from extract.lift.calm import calmed
from extract.lift.gaps import bridged, off_line
from extract.lift.rigidity import affinity, placed
from extract.lift.sample import depth_under
from extract.lift.settle import Settler
from extract.mask.surface import Surface, measured_surface
from extract.steps import DepthMaps, NoLift, Shot, Tracks
from pipeline.config import Settings
from pipeline.errors import UserError

SCENE_POINTS = 1600
FEWEST = 6  # measured points that a frame needs to be measured
OUTLYING = 4.0  # sigmas between a measurement and its neighbours' motion
# Calibrated on simulated clips that no reported figure uses (tests/benchmarks/extraction_masks.py): what is left of a
# track's error across the ray, of that along it, and of a single depth's error across and along it.
SETTLED, PLACED = (0.34, 0.79, 0.25, 0.65), (0.8, 0.9, 0.0, 1.0)


class UnprojectConfig(Settings):
    """Lifting of image tracks by depth."""

    name: Literal["unproject"] = "unproject"
    give_m: float = Field(
        default=0.001, ge=0, description="How far a point may move against its neighbours' rigid motion, one sigma."
    )
    settle_below: float = Field(
        default=0.01, ge=0, description="Metric depth with a smaller relative error is a surface that points settle on."
    )
    smooth: bool = Field(default=True, description="Smooth over time, by at most one sigma.")


class Unproject:
    """A ``Lifter`` of tracks. Raises NoLift when no frame has both tracks and depth."""

    def __init__(self, config: UnprojectConfig | None = None):
        self.config = config or UnprojectConfig()

    def __call__(
        self, shot: Shot, masks: Sequence[np.ndarray | None], tracks: Tracks | None, depth: DepthMaps
    ) -> EffectorTrack:
        if tracks is None:
            raise UserError("lift: unproject needs tracks; name a tracker, or lift whole surfaces instead.")
        measured_TN3, known_TN = self._measured(shot, masks, tracks, depth)
        measured_T = known_TN.sum(1) >= FEWEST
        if not measured_T.any():
            raise NoLift(
                f"lift: unproject: no frame of {len(masks)} has depth from {depth.source} under {FEWEST} tracked "
                "points. Look at the depth source, and whether masks and depth fit together."
            )
        reference = tracks.query if measured_T[tracks.query] else int(known_TN.sum(1).argmax())
        distance_T = _distance(measured_TN3[..., 2], known_TN, measured_T, shot.times_T)
        pixel_m_T = distance_T / shot.camera.focal_px
        sigma_TN = np.hypot(tracks.error_TN * pixel_m_T[:, None], depth.sigma * distance_T[:, None])
        raw_TN3, visible_TN, residual_m = self._solid(
            shot, masks, depth, measured_TN3, known_TN, measured_T, sigma_TN, reference
        )
        raw_TN3 = bridged(raw_TN3, shot.times_T, measured_T)
        left = SETTLED if self._settles(depth) else PLACED
        sigma_T2 = _sigma(tracks, depth.sigma * distance_T, visible_TN, pixel_m_T, left)
        sigma_T2 = np.hypot(sigma_T2, off_line(shot.times_T, measured_T)[:, None])
        points_TN3 = calmed(raw_TN3, shot.times_T, sigma_T2) if self.config.smooth else raw_TN3
        return EffectorTrack(
            frame_slots=np.arange(len(masks)),
            points=points_TN3.astype(np.float32),
            visible=visible_TN,
            sigma=sigma_T2.astype(np.float32),
            confidence=measured_T.astype(np.float32),
            opening=np.full(len(masks), np.nan, np.float32),
            side=None,
            scale=depth.scale,
            depth_source=depth.source,
            quality={
                "visible": float(visible_TN.mean()),
                "residual_mm": 1000 * residual_m,
                "agreed": float(visible_TN.sum() / max(known_TN.sum(), 1)),
                "measured": float(measured_T.mean()),
            },
            raw_points=raw_TN3.astype(np.float32) if self.config.smooth else None,
        )

    def _settles(self, depth: DepthMaps) -> bool:
        return depth.scale == "metric" and depth.sigma <= self.config.settle_below

    def _measured(
        self, shot: Shot, masks: Sequence[np.ndarray | None], tracks: Tracks, depth: DepthMaps
    ) -> tuple[np.ndarray, np.ndarray]:
        """Unprojected points f64 [T,N,3], and where they are measured, bool [T,N]."""
        measured_TN3 = np.full((*tracks.visible_TN.shape, 3), np.nan)
        for slot, (mask, depth_HW) in enumerate(zip(masks, depth.maps, strict=True)):
            if mask is not None and depth_HW is not None:
                pixels_N2 = tracks.pixels_TN2[slot].astype(np.float64)
                measured_TN3[slot] = shot.camera.unproject(pixels_N2, depth_under(depth_HW, mask, pixels_N2))
        return measured_TN3, tracks.visible_TN & np.isfinite(measured_TN3[..., 2])

    def _solid(
        self,
        shot: Shot,
        masks: Sequence[np.ndarray | None],
        depth: DepthMaps,
        measured_TN3: np.ndarray,
        known_TN: np.ndarray,
        measured_T: np.ndarray,
        sigma_TN: np.ndarray,
        reference: int,
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Points [T,N,3], their visibility [T,N] and how far off measurements typically are, metres."""
        shape_N3, has_shape_N = filled_shape(measured_TN3, known_TN, reference)
        weight_TN = known_TN * has_shape_N
        typical = float(np.median(sigma_TN[known_TN]))
        affinity_NN = affinity(shape_N3, measured_TN3, weight_TN, typical)
        settler = None
        if self._settles(depth):
            settler = Settler(_coloured(shot, masks, shape_N3, reference), affinity_NN)
        depth_m = depth.sigma * float(np.median(shape_N3[:, 2]))
        turned_TN33 = np.zeros((*known_TN.shape, 3, 3))
        points_TN3, visible_TN = np.full(measured_TN3.shape, np.nan), np.zeros(known_TN.shape, bool)
        gaps = []
        for slot in map(int, np.flatnonzero(measured_T)):
            sigma_N = sigma_TN[slot]
            moved_N3, rotation_N33, _ = placed(
                shape_N3, measured_TN3[slot], weight_TN[slot] * (typical / sigma_N) ** 2, affinity_NN, sigma_N
            )
            gap_N3 = np.nan_to_num(measured_TN3[slot] - moved_N3)
            off_N = np.linalg.norm(gap_N3, axis=1)
            visible_TN[slot] = known_TN[slot] & (off_N < OUTLYING * np.hypot(sigma_N, self.config.give_m))
            gaps.append(off_N[visible_TN[slot]])
            if settler is not None:
                frame = replace(shot.frames[slot], mask=masks[slot], depth=depth.maps[slot])
                surface = measured_surface(frame, shot.camera, SCENE_POINTS, 2)
                points_TN3[slot], turned_TN33[slot] = settler(
                    moved_N3, rotation_N33, surface, measured_TN3[slot], 1.0 * visible_TN[slot], sigma_N
                )
                settler.compare(points_TN3[slot], turned_TN33[slot], frame, shot.camera)
                continue
            give_N = visible_TN[slot] * self.config.give_m**2 / (self.config.give_m**2 + sigma_N**2)
            points_TN3[slot] = moved_N3 + give_N[:, None] * gap_N3
        if settler is not None:
            points_TN3 += np.einsum("tnij,nj->tni", turned_TN33, settler.correction(depth_m))
        return points_TN3, visible_TN, float(np.median(np.concatenate(gaps)))


def _coloured(shot: Shot, masks: Sequence[np.ndarray | None], shape_N3: np.ndarray, reference: int) -> Surface:
    frame, mask = shot.frames[reference], masks[reference]
    assert mask is not None
    height, width = mask.shape
    column, row = np.floor(shot.camera.project(shape_N3)).astype(int).T
    colours_N3 = frame.image[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)] / 255.0
    pixel_m = float(np.median(shape_N3[:, 2])) / shot.camera.focal_px
    return Surface(shape_N3, colours_N3, pixel_m * float(np.sqrt(max(mask.sum() / len(shape_N3), 1.0))))


def filled_shape(measured_TN3: np.ndarray, known_TN: np.ndarray, reference: int) -> tuple[np.ndarray, np.ndarray]:
    """The points in the reference frame f64 [N,3], and which of them were measured there, bool [N].

    A point without depth there gets the nearest measured point's place, so that it moves along with it.
    """
    known_N = known_TN[reference]
    shape_N3 = np.where(known_N[:, None], measured_TN3[reference], 0.0)
    if not known_N.all():
        shape_N3[~known_N] = shape_N3[known_N].mean(0)
    return shape_N3, known_N


def _distance(depth_TN: np.ndarray, known_TN: np.ndarray, measured_T: np.ndarray, times_T: np.ndarray) -> np.ndarray:
    """f64 [T] metres: typical depth of the effector."""
    depth_T = [float(np.median(depth_TN[slot, known_TN[slot]])) for slot in np.flatnonzero(measured_T)]
    return np.interp(times_T, times_T[measured_T], depth_T)


def _sigma(
    tracks: Tracks,
    depth_m_T: np.ndarray,
    visible_TN: np.ndarray,
    pixel_m_T: np.ndarray,
    left: tuple[float, float, float, float],
) -> np.ndarray:
    """f64 [T,2] metres, across and along the ray: from the tracks' errors on the effector and the depth's own."""
    pairs = zip(tracks.error_TN, visible_TN, strict=True)
    error_T = np.array([np.median(error_N[seen_N] if seen_N.any() else error_N) for error_N, seen_N in pairs])
    across_T = left[0] * error_T * pixel_m_T
    return np.stack([np.hypot(across_T, left[2] * depth_m_T), np.hypot(left[1] * across_T, left[3] * depth_m_T)], -1)
