"""Which box is which effector: boxes of consecutive frames, linked by overlap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from extract.steps import Detection

LEAST_IOU = 0.1  # between one sight of an effector and the next, after both are grown by what it may have moved
GROWTH_PER_S = 2.0  # box sizes per second


def linked(
    times_T: np.ndarray, found: Sequence[Sequence[Detection]], count: int, max_gap_s: float
) -> list[list[Detection | None]]:
    """The ``count`` effectors that were seen best, in the order in which they appear.

    Returns for each its detection in every frame, None where it was not found. Labels are kept apart. Effectors
    are ranked by the sum of their scores.
    """
    rows: list[dict[int, Detection]] = []
    for slot, detections in enumerate(found):
        last = [max(row) for row in rows]
        live = [n for n, seen in enumerate(last) if times_T[slot] - times_T[seen] <= max_gap_s]
        gain = np.array(
            [[_likeness(rows[n][last[n]], d, times_T[slot] - times_T[last[n]]) for d in detections] for n in live]
        )
        taken = set()
        if gain.size:
            for i, j in zip(*linear_sum_assignment(-gain), strict=True):
                if gain[i, j] >= LEAST_IOU:
                    rows[live[i]][slot] = detections[j]
                    taken.add(j)
        rows += [{slot: detection} for j, detection in enumerate(detections) if j not in taken]
    best = sorted(rows, key=lambda row: -sum(detection.score for detection in row.values()))[:count]
    return [[row.get(slot) for slot in range(len(found))] for row in sorted(best, key=min)]


def _likeness(before: Detection, now: Detection, elapsed_s: float) -> float:
    """Intersection over union of the boxes, the earlier one grown by what it may have moved; 0 for other labels."""
    if before.label != now.label:
        return 0.0
    size = before.box_4[2:] - before.box_4[:2]
    margin = 0.5 * GROWTH_PER_S * elapsed_s * size
    return iou(np.concatenate([before.box_4[:2] - margin, before.box_4[2:] + margin]), now.box_4)


def iou(a_4: np.ndarray, b_4: np.ndarray) -> float:
    """Intersection over union of two boxes x0, y0, x1, y1."""
    sides = np.minimum(a_4[2:], b_4[2:]) - np.maximum(a_4[:2], b_4[:2])
    shared = float(np.prod(np.clip(sides, 0, None)))
    union = float(np.prod(a_4[2:] - a_4[:2]) + np.prod(b_4[2:] - b_4[:2])) - shared
    return shared / union if union > 0 else 0.0
