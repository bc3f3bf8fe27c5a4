"""Cutting a detection series into stretches: short losses are bridged, long ones cut, short stretches rejected."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Segment:
    """Consecutive frames. slots: int [T] positions in the frame list. measured: bool [T], false = bridged loss."""

    slots: np.ndarray
    measured: np.ndarray


def split_at_gaps(
    times: np.ndarray, seen: np.ndarray, max_gap_s: float, min_seconds: float
) -> tuple[list[Segment], list[tuple[str, str]]]:
    """Splits frames at losses longer than ``max_gap_s``.

    times: [F] seconds. seen: bool [F]. Returns segments that begin and end with a seen frame, and one rejection
    ("too_short", detail) for each stretch shorter than ``min_seconds`` or of fewer than two frames.
    """
    slots = np.flatnonzero(seen)
    segments: list[Segment] = []
    rejections: list[tuple[str, str]] = []
    cuts = np.flatnonzero(np.diff(times[slots]) > max_gap_s + _typical_step(times)) + 1
    for part in np.split(slots, cuts):
        if len(part) == 0:
            continue
        duration = times[part[-1]] - times[part[0]]
        if len(part) < 2 or duration < min_seconds:
            detail = f"{duration:.2f} s in view from {times[part[0]]:.2f} s on; at least {min_seconds:g} s are needed"
            rejections.append(("too_short", detail))
            continue
        span = np.arange(part[0], part[-1] + 1)
        segments.append(Segment(span, seen[span]))
    return segments, rejections


def _typical_step(times: np.ndarray) -> float:
    return float(np.median(np.diff(times))) if len(times) > 1 else 0.0
