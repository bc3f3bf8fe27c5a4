"""Masks from boxes without a network (extract/segment/box.py) against exact masks. Simulated.

python -m tests.benchmarks.extraction_boxes --json FILE
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from extract.segment.box import Box, BoxSettings
from extract.steps import BoxDetection, Shot
from tests.benchmarks.held_out import main
from tests.benchmarks.mask_cases import Case, cached, gripper_case, hand_case, noisy
from tests.benchmarks.mask_tracking import SETS

JITTER = 0.05  # one sigma of each side of a box, relative to its size: what a detector is off by
DEPTH_NOISE_M = 0.002
MIN_PX = 60  # smaller masks are no test
EFFECTORS: dict[str, Callable[[str, int, int], Case]] = {"gripper": gripper_case, "hand": hand_case}
WAYS = {
    "colour, still camera": "no depth; the empty picture from other frames",
    "colour and depth, still camera": "exact depth and the empty picture",
    "colour and noisy depth, still camera": f"the same with {1000 * DEPTH_NOISE_M:.0f} mm of noise in depth",
    "colour and depth, moving camera": "each frame alone: no empty picture, the plane behind the box only",
    "the box itself": "baseline",
}


def measure(folder: Path, which: str = "held out") -> dict[str, Any]:
    """{effector: {way: figures}}; ``folder`` keeps rendered episodes. which: the set of tasks and seeds."""
    tasks, seed = SETS[which]
    found: dict[str, Any] = {}
    for effector, make in EFFECTORS.items():
        clips: dict[str, list[dict[str, np.ndarray]]] = {way: [] for way in WAYS}
        for index, task in enumerate(tasks):
            case = cached(folder, make, task, index, seed)
            for way, figures in _one(case, index).items():
                clips[way].append(figures)
        found[effector] = {way: _summary(values) for way, values in clips.items()}
    return {"set": which, "tasks": len(tasks), "jitter": JITTER, "effectors": found}


def _one(case: Case, index: int) -> dict[str, dict[str, np.ndarray]]:
    """Intersection over union in every frame that shows enough, for each way; 0 where no mask came."""
    rng = np.random.default_rng([7, index])
    truths = [np.asarray(frame.mask, bool) for frame in case.frames]
    size = np.array(truths[0].shape[::-1] * 2)
    boxes = [np.clip(_box(mask) + rng.normal(0, JITTER, 4) * np.tile(_sides(mask), 2), 0, size) for mask in truths]
    seen = [
        BoxDetection("effector", 1.0, box) if mask.sum() >= MIN_PX else None
        for mask, box in zip(truths, boxes, strict=True)
    ]
    bare = [replace(frame, mask=None) for frame in case.frames]
    colour = [replace(frame, depth=None) for frame in bare]
    noise = [replace(frame, mask=None) for frame in noisy(case, DEPTH_NOISE_M, index).frames]
    segment = Box(BoxSettings())
    result: dict[str, dict[str, np.ndarray]] = {}
    for way, frames in zip(WAYS, (colour, bare, noise, bare, None), strict=True):
        began = time.perf_counter()
        if frames is None:
            masks = [_filled(mask.shape, box) for mask, box in zip(truths, boxes, strict=True)]
        elif "moving" in way:
            masks = [segment(Shot([frame], case.camera), [found])[0] for frame, found in zip(frames, seen, strict=True)]
        else:
            masks = segment(Shot(frames, case.camera), seen)
        shares = [
            _share(truth, mask) for truth, mask, found in zip(truths, masks, seen, strict=True) if found is not None
        ]
        result[way] = {"iou": np.array(shares), "ms": np.array([1000 * (time.perf_counter() - began) / len(truths)])}
    return result


def _summary(clips: list[dict[str, np.ndarray]]) -> dict[str, float]:
    iou = np.concatenate([clip["iou"] for clip in clips])
    rng, medians = np.random.default_rng(0), np.array([np.median(clip["iou"]) for clip in clips])
    drawn = np.median(medians[rng.integers(0, len(medians), (1000, len(medians)))], 1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    values = {
        "iou_p50": np.median(iou),
        "iou_p10": np.percentile(iou, 10),
        "clip_median_low": low,
        "clip_median_high": high,
        "no_mask": (iou == 0).mean(),
        "frames": len(iou),
        "ms_per_frame": np.median([clip["ms"] for clip in clips]),
    }
    return {name: round(float(value), 4) for name, value in values.items()}


def _box(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], float) if len(rows) else np.zeros(4)


def _sides(mask: np.ndarray) -> np.ndarray:
    box = _box(mask)
    return box[2:] - box[:2]


def _filled(shape: tuple[int, ...], box: np.ndarray) -> np.ndarray:
    mask = np.zeros(shape, bool)
    x0, y0, x1, y1 = np.round(box).astype(int)
    mask[y0:y1, x0:x1] = True
    return mask


def _share(truth: np.ndarray, mask: np.ndarray | None) -> float:
    return 0.0 if mask is None else float((truth & mask).sum() / (truth | mask).sum())


def section(figures: dict[str, Any]) -> str:
    """The figures as a section of docs/results/extraction.md."""
    lines = [
        "## Masks from boxes without a network",
        "",
        f"**Simulated.** Robot grippers and their human-hand twins in {figures['tasks']} Meta-World tasks, one episode",
        "of each, 128 x 128 pixels, exact masks. The box of the true mask, each side moved at random (sigma",
        f"{100 * figures['jitter']:.0f} % of its length), stands for a detection in every frame. Figure: intersection",
        "over union with the exact mask, over all frames; in brackets the 95 % interval of the clips' median",
        "(bootstrap).",
        "",
        "| effector | evidence | median | worst tenth below | no mask | ms a frame |",
        "|---|---|---|---|---|---|",
    ]
    for effector, ways in figures["effectors"].items():
        for way, row in ways.items():
            interval = f"({row['clip_median_low']:.2f} to {row['clip_median_high']:.2f})"
            lines.append(
                f"| {effector}, {row['frames']:.0f} frames | {way} | {row['iou_p50']:.2f} {interval} "
                f"| {row['iou_p10']:.2f} | {100 * row['no_mask']:.0f} % | {row['ms_per_frame']:.1f} |"
            )
    lines += ["", *(f"- {way}: {meaning}." for way, meaning in WAYS.items()), ""]
    lines += [
        "Limits: a box that cuts through an arm keeps the piece of arm in it, and a thing that is pushed moves too.",
        "Without depth and with a moving camera there is nothing to go by, and no mask is given.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main(__doc__, measure, section)
