"""The effector's measured surface in one frame: points with colour, and distances along the surface."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra

from data.episode import Frame
from extract.effector import Camera
from extract.lift.sample import depth_under

DEPTH_TOLERANCE_M = 0.008  # a projected point further behind the measured surface is hidden
LINK_PITCHES = 2.5  # points closer than this many sample spacings are joined: adjacent pixels, also on steep surfaces


@dataclass(frozen=True)
class Surface:
    """points_N3: f64 metres, camera frame. colours_N3: f64, RGB in 0..1. pitch_m: spacing of the samples, metres."""

    points_N3: np.ndarray
    colours_N3: np.ndarray
    pitch_m: float

    def take(self, chosen: np.ndarray) -> Surface:
        """Some of the points; the spacing grows as the share shrinks."""
        coarser = np.sqrt(len(self.points_N3) / len(chosen))
        return Surface(self.points_N3[chosen], self.colours_N3[chosen], self.pitch_m * coarser)


def measured_surface(frame: Frame, camera: Camera, limit: int, fine: int = 1) -> Surface:
    """At most ``limit`` masked pixels with depth, lifted. The frame must have a mask and depth.

    fine: samples per side of a pixel. With more than one, depth is interpolated within each surface, and the samples
    fill the pixels' squares: a registration then no longer snaps to the grid of their centres.
    """
    if frame.mask is None or frame.depth is None:
        raise ValueError(f"frame {frame.index}: mask and depth are needed to measure an effector's surface")
    rows, columns = np.nonzero(frame.mask & (frame.depth > 0))
    if len(rows) * fine**2 > limit:
        kept = np.linspace(0, len(rows) - 1, max(limit // fine**2, 1)).astype(int)
        thinned = np.sqrt(len(rows) / len(kept))
        rows, columns = rows[kept], columns[kept]
    else:
        thinned = 1.0
    offset = (np.arange(fine) + 0.5) / fine
    down, along = (part.ravel() for part in np.meshgrid(offset, offset, indexing="ij"))
    pixels = np.stack([(columns[:, None] + along).ravel(), (rows[:, None] + down).ravel()], -1)
    own = frame.depth[rows, columns].astype(np.float64)
    depth = own if fine == 1 else depth_under(frame.depth, frame.mask, pixels)
    points = camera.unproject(pixels, depth)
    pitch = float(points[:, 2].mean()) / camera.focal_px * thinned / fine if len(points) else 1.0
    return Surface(points, (frame.image[rows, columns] / 255.0).repeat(fine**2, axis=0), pitch)


def spread(points_M3: np.ndarray, count: int) -> np.ndarray:
    """Indices of ``count`` points spread evenly (farthest point sampling); repeats when there are fewer."""
    chosen = [0]
    distance = np.linalg.norm(points_M3 - points_M3[0], axis=1)
    while len(chosen) < min(count, len(points_M3)):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(points_M3 - points_M3[chosen[-1]], axis=1))
    return np.resize(np.asarray(chosen), count)


def distance_along(points_M3: np.ndarray, pitch_m: float) -> np.ndarray:
    """f64 [M,M]: shortest way over neighbouring points, metres, so that two jaws are far apart though they touch.

    Pieces that nothing joins (a hidden part between them) count as half as far again as the straight line.
    """
    straight = np.linalg.norm(points_M3[:, None] - points_M3[None], axis=-1)
    first, second = np.nonzero(straight < LINK_PITCHES * pitch_m)
    # A stored zero would be read as "no edge"; a nanometre keeps coincident points joined.
    graph = coo_matrix((straight[first, second] + 1e-9, (first, second)), straight.shape).tocsr()
    along = dijkstra(graph, directed=False)
    return np.where(np.isfinite(along), along, 1.5 * straight)


def visible_points(points_N3: np.ndarray, frame: Frame, camera: Camera) -> np.ndarray:
    """bool [N]: the point projects into the effector's mask and lies on the measured surface there."""
    assert frame.mask is not None and frame.depth is not None
    height, width = frame.mask.shape
    column, row = np.floor(camera.project(points_N3)).astype(int).T
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height) & (points_N3[:, 2] > 0)
    row, column = np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)
    on_surface = np.abs(points_N3[:, 2] - frame.depth[row, column]) < DEPTH_TOLERANCE_M
    return inside & frame.mask[row, column] & on_surface


def effector_pixels(frame: Frame) -> int:
    """Pixels that belong to the effector and have depth."""
    if frame.mask is None or frame.depth is None:
        return 0
    return int((frame.mask & (frame.depth > 0)).sum())


def reference_slot(pixels: np.ndarray, slots: Sequence[int]) -> int:
    """The frame to take the template from: the one that shows most, the first of equals."""
    return max(slots, key=lambda slot: (pixels[slot], -slot))
