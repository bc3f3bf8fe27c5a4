"""What was seen of which background point in which frame of one stretch of video, as flat arrays.

Symbols: F frames of the stretch, P points, O observations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(eq=False)
class Row:
    """One frame. ids: int32 [n]. pixels: f32 [n,2] of the full picture, its first pixel's centre at (0.5, 0.5).

    depth: f32 [n] metres, 0 = unknown. drift: f64 [2] pixels, summed median motion of the background since the video's
    begin. bridge: more points, found when the next frame could only be joined by its appearance; set once, then.
    """

    ids: np.ndarray
    pixels: np.ndarray
    depth: np.ndarray
    drift: np.ndarray
    bridge: Row | None = None


@dataclass(frozen=True)
class Observations:
    """frame_O, point_O: int, sorted by frame. pixels_O2: f64. depth_O: f64 metres, 0 = unknown. frames F, points P."""

    frame_O: np.ndarray
    point_O: np.ndarray
    pixels_O2: np.ndarray
    depth_O: np.ndarray
    frames: int
    points: int

    def of(self, frame: int) -> slice:
        """The observations of one frame."""
        first, last = np.searchsorted(self.frame_O, [frame, frame + 1])
        return slice(int(first), int(last))

    def where(self, keep_O: np.ndarray) -> Observations:
        """Some of the observations; frames and points keep their numbers."""
        return Observations(
            self.frame_O[keep_O],
            self.point_O[keep_O],
            self.pixels_O2[keep_O],
            self.depth_O[keep_O],
            self.frames,
            self.points,
        )

    def in_frames(self, chosen_K: np.ndarray) -> Observations:
        """Only the chosen frames (increasing), renumbered 0..K-1."""
        number = np.full(self.frames, -1)
        number[chosen_K] = np.arange(len(chosen_K))
        kept = self.where(number[self.frame_O] >= 0)
        return Observations(
            number[kept.frame_O], kept.point_O, kept.pixels_O2, kept.depth_O, len(chosen_K), self.points
        )

    def common(self, first: int, second: int) -> tuple[np.ndarray, np.ndarray]:
        """Indices into the observations of two frames that show the same points."""
        a, b = self.of(first), self.of(second)
        _, in_a, in_b = np.intersect1d(self.point_O[a], self.point_O[b], assume_unique=True, return_indices=True)
        return in_a + a.start, in_b + b.start


def collect(rows: Sequence[Row]) -> Observations:
    """The observations of consecutive frames; points are renumbered 0..P-1.

    Points that only one of the frames shows are left out: they tell nothing. So what becomes known of the last frame
    after it, when the next one is added, makes no difference.
    """
    parts = [(number, part) for number, row in enumerate(rows) for part in (row, row.bridge) if part is not None]
    _, point, count = np.unique(
        np.concatenate([part.ids for _, part in parts]), return_inverse=True, return_counts=True
    )
    often = count[point] > 1
    _, point_O = np.unique(point[often], return_inverse=True)
    return Observations(
        np.repeat([number for number, _ in parts], [len(part.ids) for _, part in parts])[often],
        point_O,
        np.concatenate([part.pixels for _, part in parts]).astype(np.float64)[often],
        np.concatenate([part.depth for _, part in parts]).astype(np.float64)[often],
        len(rows),
        int(point_O.max(initial=-1)) + 1,
    )


def choose_keyframes(seen: Observations, far_px: float, keep: float = 0.65, most: int = 12) -> np.ndarray:
    """Frames that tell the rest of the path: int [K], the first and last among them.

    A new one is taken when less than ``keep`` of the last one's points are left, when they have moved by ``far_px``
    pixels (median), or after ``most`` frames.
    """
    chosen = [0]
    for frame in range(1, seen.frames):
        first, second = seen.common(chosen[-1], frame)
        had = seen.of(chosen[-1])
        left = len(first) / max(had.stop - had.start, 1)
        moved = np.linalg.norm(seen.pixels_O2[second] - seen.pixels_O2[first], axis=1)
        far = len(moved) == 0 or float(np.median(moved)) > far_px
        if left < keep or far or frame - chosen[-1] >= most:
            # the frame before still shared more; take it unless it is the last keyframe itself
            chosen.append(frame - 1 if frame - 1 > chosen[-1] and left < 0.5 * keep else frame)
    if chosen[-1] != seen.frames - 1:
        chosen.append(seen.frames - 1)
    return np.array(chosen)
