"""The effector's measured surface in one frame: points with colour, and distances along the surface."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra

from data.episode import Frame
from extract.effector import Camera

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


def measured_surface(frame: Frame, camera: Camera, limit: int) -> Surface:
    """At most ``limit`` masked pixels with depth, lifted. The frame must have a mask and depth."""
    if frame.mask is None or frame.depth is None:
        raise ValueError(f"frame {frame.index}: mask and depth are needed to measure an effector's surface")
    rows, columns = np.nonzero(frame.mask & (frame.depth > 0))
    pixels = np.stack([columns + 0.5, rows + 0.5], -1)
    points = camera.unproject(pixels, frame.depth[rows, columns].astype(np.float64))
    pitch = float(points[:, 2].mean()) / camera.focal_px if len(points) else 1.0
    surface = Surface(points, frame.image[rows, columns] / 255.0, pitch)
    if len(points) > limit:
        surface = surface.take(np.linspace(0, len(points) - 1, limit).astype(int))
    return surface


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
