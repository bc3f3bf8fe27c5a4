"""Which parts of a track are manipulation, and which only show an effector at rest."""

from __future__ import annotations

import numpy as np

from extract.effector import EffectorTrack
from extract.stretches import ClipSettings

WITHIN_S = 1.0  # rest is moving less than ``rest_m`` within this time


def without_rest(
    track: EffectorTrack, times_T: np.ndarray, settings: ClipSettings
) -> tuple[list[EffectorTrack], list[tuple[str, str]]]:
    """The moving parts of a track, and a rejection ("at_rest", detail) for each part that was cut out.

    times_T: seconds of the track's frames. Motion is judged across the viewing ray, where it is measured best, and by
    the tenth of the points that move most, so that one moving finger counts.
    """
    if settings.rest_s is None or len(times_T) < 2:
        return [track], []
    keep = np.ones(len(times_T), bool)
    rejections = []
    for start, stop in _runs(~_moving(track.points, times_T, settings.rest_m)):
        # Half a second of rest stays at each side of a motion: starting and stopping are part of it.
        first, last = times_T[start] - WITHIN_S / 2, times_T[stop - 1] + WITHIN_S / 2
        seconds = min(last, times_T[-1]) - max(first, times_T[0])
        if seconds > settings.rest_s:
            keep[start:stop] = False
            rejections.append(("at_rest", f"at rest for {seconds:.1f} s around {times_T[(start + stop) // 2]:.2f} s"))
    return [track.part(slice(start, stop)) for start, stop in _runs(keep) if stop - start > 1], rejections


def _moving(points_TN3: np.ndarray, times_T: np.ndarray, rest_m: float) -> np.ndarray:
    """bool [T]: the effector moves by more than ``rest_m`` within the second around this frame.

    One depth for all frames: errors of depth must not look like motion.
    """
    across_TN2 = points_TN3[..., :2] / points_TN3[..., 2:] * np.median(points_TN3[..., 2])
    slots = np.arange(len(times_T))  # at low frame rates, the next frame at least
    first = np.minimum(np.searchsorted(times_T, times_T - WITHIN_S / 2), np.maximum(slots - 1, 0))
    last = np.searchsorted(times_T, times_T + WITHIN_S / 2, side="right") - 1
    last = np.maximum(last, np.minimum(slots + 1, slots[-1]))
    moved_TN = np.linalg.norm(across_TN2[last] - across_TN2[first], axis=-1)
    # There and back within the second is motion too.
    moved_TN = np.maximum(moved_TN, np.linalg.norm(across_TN2 - across_TN2[first], axis=-1))
    return np.quantile(moved_TN, 0.9, axis=1) > rest_m


def _runs(flags_T: np.ndarray) -> list[tuple[int, int]]:
    """(start, stop) of every run of true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags_T, [False]]).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
