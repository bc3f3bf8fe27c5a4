"""Accuracy, calibration and speed of the mask-and-depth tracker on simulated episodes, against the exact motion.

    python -m tests.benchmarks.mask_tracking --json FILE [--tasks N]

Writes docs/results/mask_tracking.md when all tasks are run. About a minute on one core.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one thread, as in an extraction worker
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("LP_NUM_THREADS", "1")

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from extract.effector import extract
from extract.mask.config import MaskConfig
from extract.mask.extractor import MaskExtractor
from extract.mask.surface import effector_pixels, reference_slot
from pipeline.atomic import write_bytes, write_json
from tests.benchmarks.mask_baselines import chained, nearest, online, rigid
from tests.benchmarks.mask_cases import Case, gripper_case, hand_case

TUNING = ("drawer-close-v3", "pick-place-v3", "window-close-v3", "faucet-close-v3", "button-press-v3")
HELD_OUT = (
    "drawer-open-v3",
    "window-open-v3",
    "faucet-open-v3",
    "button-press-topdown-v3",
    "push-v3",
    "door-open-v3",
    "plate-slide-v3",
    "coffee-push-v3",
)
SETS = {"tuning": (TUNING, 100), "held out": (HELD_OUT, 400)}
METHODS = ("tracker", "online, polished", "online", "rigid only", "nearest chaining")
RESULTS = Path(__file__).parents[2] / "docs" / "results" / "mask_tracking.md"


def components(errors_TN3: np.ndarray, truth_TN3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Error components across the viewing ray [T,2,N] and along it [T,N]."""
    ray = truth_TN3 / np.linalg.norm(truth_TN3, axis=-1, keepdims=True)
    first = np.cross(ray, [0.0, 1.0, 0.0])
    first /= np.linalg.norm(first, axis=-1, keepdims=True)
    across = [(errors_TN3 * axis).sum(-1) for axis in (first, np.cross(ray, first))]
    return np.stack(across, 1), (errors_TN3 * ray).sum(-1)


def measure(case: Case) -> dict[str, dict[str, np.ndarray]]:
    """For each method the errors of points and of frame-to-frame displacements, metres, and what else it tells."""
    began = time.process_time()
    track = max(
        extract(MaskExtractor(MaskConfig()), case.frames, case.camera).tracks, key=lambda found: len(found.points)
    )
    seconds = (time.process_time() - began) / len(case.frames)
    slots = track.frame_slots
    pixels = np.array([effector_pixels(frame) for frame in case.frames])
    reference = reference_slot(pixels, [int(slot) for slot in slots])
    first = track.points[reference - slots[0]].astype(np.float64)
    truth = case.follow(first, reference)[slots]
    others = np.arange(len(slots)) != reference - slots[0]  # the reference itself is exact by definition
    across, along = components(track.points - truth, truth)
    found = {
        "tracker": {
            **errors(track.points, truth),
            "across": (np.abs(across) <= track.sigma[:, :1, None])[others],
            "along": (np.abs(along) <= track.sigma[:, 1:])[others],
            "sigma": track.sigma[others],
            "visible": track.visible,
            "ms": np.array([1000 * seconds]),
        }
    }
    for name, step in (("rigid only", rigid), ("nearest chaining", nearest)):
        found[name] = errors(chained(step, case.frames, case.camera, first, reference)[slots], truth)
    for name, polished in (("online, polished", True), ("online", False)):
        points, start = online(case.frames, case.camera, len(first), polished)
        found[name] = errors(points, case.follow(points[start], start))
    return found


def errors(points_TN3: np.ndarray, truth_TN3: np.ndarray) -> dict[str, np.ndarray]:
    """Distances in metres: points [T,N] and their displacements [T-1,N]."""
    wrong = points_TN3 - truth_TN3
    return {
        "point": np.linalg.norm(wrong, axis=-1),
        "step": np.linalg.norm(np.diff(wrong, axis=0), axis=-1),
        "true_step": np.linalg.norm(np.diff(truth_TN3, axis=0), axis=-1),
    }


def summary(measured: list[dict[str, np.ndarray]]) -> dict[str, float]:
    """Medians, 90th percentiles (millimetres) and shares over all points of several episodes."""

    def pooled(name: str) -> np.ndarray:
        return np.concatenate([case[name].ravel() for case in measured])

    millimetres = {name: 1000 * pooled(name) for name in ("point", "step", "true_step")}
    row = {
        "point_median_mm": np.median(millimetres["point"]),
        "point_p90_mm": np.percentile(millimetres["point"], 90),
        "point_over_10mm": (millimetres["point"] > 10).mean(),
        "step_median_mm": np.median(millimetres["step"]),
        "step_p90_mm": np.percentile(millimetres["step"], 90),
        "true_step_median_mm": np.median(millimetres["true_step"]),
    }
    if "sigma" in measured[0]:
        sigma = np.concatenate([1000 * case["sigma"] for case in measured])
        row |= {
            "coverage_across": pooled("across").mean(),
            "coverage_along": pooled("along").mean(),
            "sigma_across_mm": np.median(sigma[:, 0]),
            "sigma_along_mm": np.median(sigma[:, 1]),
            "visible": pooled("visible").mean(),
            "ms_per_frame": pooled("ms").mean(),
        }
    return {name: round(float(value), 4) for name, value in row.items()}


def run(tasks: int | None) -> dict[str, Any]:
    """All figures: {set: {effector: {"methods": {...}, "episodes": {...}}}}."""
    makers: dict[str, Callable[[str, int, int], Case]] = {"gripper": gripper_case, "hand": hand_case}
    report: dict[str, Any] = {}
    for name, (listed, seed) in SETS.items():
        for effector, make in makers.items():
            episodes: dict[str, dict[str, dict[str, np.ndarray]]] = {}
            for index, task in enumerate(listed[:tasks]):
                episodes[task] = measure(make(task, index, seed))
                row = summary([episodes[task]["tracker"]])
                print(f"{name}, {effector}, {task}: {row['point_median_mm']:.2f} mm", flush=True)
            report.setdefault(name, {})[effector] = {
                "methods": {m: summary([found[m] for found in episodes.values()]) for m in METHODS},
                "episodes": {task: summary([found["tracker"]]) for task, found in episodes.items()},
            }
    return report


def page(report: dict[str, Any]) -> str:
    """The figures as docs/results/mask_tracking.md."""
    lines = [
        "# Following a masked effector in depth images",
        "",
        "Simulated: Meta-World's gripper and the human-hand twin of its motions at 128x128, where one pixel is 5.5 mm",
        "wide on the effector and the effector has 130 to 600 pixels. Colours went through H.264; depth is exact to",
        "0.1 mm. Truth: the material point under each followed point, moved with the simulator's own geometry. 200",
        "points per episode, every frame counts. Tuning: 5 tasks on which constants were chosen and sigma was",
        "calibrated. Held out: 8 other tasks, other seeds, looks and hands. Two earlier seeds of the held-out tasks",
        "were looked at during development; with one of them two of eight hands were lost (over 15 mm), which led to",
        "a stiffer first pass, chosen on tuning tasks. The seed shown here was first run after that. The finer second",
        "pass was chosen on the tuning tasks too, with two of their seeds, while the held-out tasks were left alone.",
        "",
        "    python -m tests.benchmarks.mask_tracking --json FILE",
    ]
    for name, (listed, _) in SETS.items():
        for effector in ("gripper", "hand"):
            found = report[name][effector]
            lines += [
                "",
                f"## {effector.capitalize()}, {name} tasks",
                "",
                *_methods(found),
                "",
                *_episodes(found, listed),
            ]
    lines += [
        "",
        "`tracker` is what extraction stores (both directions in time, two passes). `online, polished` learns only",
        "from the frames so far; `online` is the first pass alone. Both start at the first frame, not the best one.",
        "Sigma across pools both components; a calibrated sigma covers 68 % of them. Steps are frame-to-frame",
        "displacements at 20 Hz.",
    ]
    return "\n".join(lines) + "\n"


def _methods(found: dict[str, Any]) -> list[str]:
    lines = [
        "| method | points, mm: median / p90 | over 10 mm | step error, mm: median / p90 | true step, mm |",
        "|---|---|---|---|---|",
    ]
    for name in METHODS:
        row = found["methods"][name]
        point = f"{row['point_median_mm']:.2f} / {row['point_p90_mm']:.2f}"
        step = f"{row['step_median_mm']:.2f} / {row['step_p90_mm']:.2f}"
        over = f"{100 * row['point_over_10mm']:.1f} %"
        lines.append(f"| {name} | {point} | {over} | {step} | {row['true_step_median_mm']:.1f} |")
    return lines


def _episodes(found: dict[str, Any], tasks: tuple[str, ...]) -> list[str]:
    lines = [
        "| tracker | points, mm | steps, mm | visible | covered across, along | sigma across, along, mm | ms/frame |",
        "|---|---|---|---|---|---|---|",
    ]
    rows = [(task, found["episodes"][task]) for task in tasks]
    for task, row in [*rows, ("all", found["methods"]["tracker"])]:
        lines.append(
            f"| {task} | {row['point_median_mm']:.2f} / {row['point_p90_mm']:.2f} "
            f"| {row['step_median_mm']:.2f} / {row['step_p90_mm']:.2f} | {row['visible']:.2f} "
            f"| {row['coverage_across']:.2f}, {row['coverage_along']:.2f} "
            f"| {row['sigma_across_mm']:.2f}, {row['sigma_along_mm']:.2f} | {row['ms_per_frame']:.1f} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description="Scores the mask-and-depth tracker on simulated episodes.")
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--tasks", type=int, help="only so many tasks of each set; the page is then left alone")
    arguments = parser.parse_args()
    report = run(arguments.tasks)
    write_json(arguments.json, report)
    if arguments.tasks is None:
        write_bytes(RESULTS, page(report).encode())


if __name__ == "__main__":
    main()
