"""Robots without weights: the camera and the gripper from recorded poses, and the effector by motion alone. Simulated.

python -m tests.benchmarks.extraction_robots --json FILE [--folder CACHE] [--seed N] [--motion-only]
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one thread, as in an extraction worker
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("LP_NUM_THREADS", "1")

import argparse
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from extract.robot.config import ProprioSettings
from extract.robot.judge import Ridden, Solved
from extract.robot.motion import MotionDetector, MotionSettings
from extract.robot.proprio import ridden_boxes
from extract.robot.solve import solve
from extract.steps import BoxDetection, Shot
from pipeline.atomic import write_json
from tests.benchmarks.robot_cases import RobotCase, robot_case

TASKS = (
    "drawer-open-v3",
    "window-open-v3",
    "faucet-open-v3",
    "button-press-topdown-v3",
    "push-v3",
    "door-open-v3",
    "plate-slide-v3",
    "coffee-push-v3",
)
TUNING_TASKS = ("drawer-close-v3", "pick-place-v3", "window-close-v3", "faucet-close-v3", "button-press-v3")
TUNING_SEEDS = (100, 200, 300)  # constants were chosen on these; the published seed is another
# The motion detector's were chosen on seeds 100 to 195 of 30 tasks, none of them published.
SEED = 7000
SIDES = (128, 256)
TOGETHER = 4
NEAR = 0.03  # of the picture's side: a box is right when its centre is in the gripper's mask grown by so much
SURE = 0.5  # score from which on a motion box is counted as sure


def measure(folder: Path, seed: int = SEED, tasks: Sequence[str] = TASKS, motion_only: bool = False) -> dict[str, Any]:
    """All figures. folder: keeps rendered episodes. Two episodes of every task, each pair seen by four cameras."""
    figures: dict[str, Any] = {"seed": seed, "tasks": len(tasks), "published": seed == SEED, "sides": {}}
    for side in SIDES:
        # Cameras are shared by TOGETHER episodes, so that the same clips serve alone and together.
        plan = [(task, index) for index in range(2) for task in tasks]
        cases = [
            robot_case(folder, task, index, seed, side, camera_seed=10 * seed + number // TOGETHER)
            for number, (task, index) in enumerate(plan)
        ]
        groups = [cases[start : start + TOGETHER] for start in range(0, len(cases), TOGETHER)]
        parts = {} if motion_only else {"alone": [[case] for case in cases], "together": groups}
        if parts and side == SIDES[-1]:
            parts["known focal length"] = [[_given(case)] for case in cases]
        found: dict[str, Any] = {"motion": _motion(cases)}
        for name, wanted in parts.items():
            found[name] = _proprio(wanted)
            print(_proprio_line(str(side), name, found[name]), flush=True)
        figures["sides"][str(side)] = found
    return figures


def _given(case: RobotCase) -> RobotCase:
    """The same case with the true camera given."""
    return replace(case, camera=case.true_camera)


def _proprio(groups: Iterable[Sequence[RobotCase]]) -> list[dict[str, Any]]:
    """One row per episode."""
    rows: list[dict[str, Any]] = []
    for group in groups:
        began = time.process_time()
        solved = solve([Shot(case.frames, case.camera) for case in group], ProprioSettings())
        seconds = (time.process_time() - began) / sum(len(case.frames) for case in group)
        for number, case in enumerate(group):
            row: dict[str, Any] = {"case": case.name, "reason": solved.reason, "ms_per_frame": 1000 * seconds}
            if solved.episodes and len(solved.episodes[number].template_K):
                row |= _score(case, solved, solved.episodes[number])
            rows.append(row)
    return rows


def _score(case: RobotCase, solved: Solved, ridden: Ridden) -> dict[str, Any]:
    assert solved.camera is not None and solved.camera_from_base is not None
    count = len(ridden.template_K)
    truth, on_gripper = case.follow(ridden.pixels_TK2[ridden.template_K, np.arange(count)], ridden.template_K)
    moved = solved.camera_from_base @ ridden.poses
    found = np.einsum("tij,kj->tki", moved[:, :3, :3], ridden.offsets_K3) + moved[:, None, :3, 3]
    error = np.linalg.norm(found - truth, axis=-1)
    ray = truth / np.linalg.norm(truth, axis=-1, keepdims=True)
    along = ((found - truth) * ray).sum(-1)
    across = np.sqrt(np.maximum(error**2 - along**2, 0) / 2)
    boxes = ridden_boxes(solved, ridden)
    hits = _hits(case, boxes)
    row: dict[str, Any] = {
        "points": count,
        "on_gripper": float(on_gripper.mean()),
        "focal_ratio": solved.camera.focal_px / case.true_camera.focal_px,
        "relative_sigma": solved.quality["relative_sigma"],
        "score": solved.score,
        "box_hits": [hit for hit, _ in hits],
    }
    if not on_gripper.any():
        return row
    own = error[:, on_gripper]
    sigma = ridden.sigma_TK2[:, on_gripper]
    return row | {
        "median_mm": 1000 * float(np.median(own)),
        "p90_mm": 1000 * float(np.quantile(own, 0.9)),
        "across_covered": float((across[:, on_gripper] < sigma[..., 0]).mean()),
        "along_covered": float((np.abs(along[:, on_gripper]) < sigma[..., 1]).mean()),
        "sigma_along_mm": 1000 * float(np.median(sigma[..., 1])),
    }


def _motion(cases: Sequence[RobotCase]) -> dict[str, Any]:
    detector, rows, seconds, frames = MotionDetector(MotionSettings()), [], 0.0, 0
    shaken: list[float] = []
    for case in cases:
        began = time.process_time()
        boxes = detector.boxes(case.frames)
        seconds, frames = seconds + time.process_time() - began, frames + len(case.frames)
        rows.append(_hits(case, boxes))
        shaken += [box.score for box in detector.boxes(_shaken(case)) if box is not None]
    hit: np.ndarray = np.array([hit for row in rows for hit, _ in row])
    score: np.ndarray = np.array([score for row in rows for _, score in row])
    return {
        "frames": len(hit),
        "hit": float(hit.mean()),
        "hit_by_clip": [float(np.mean([hit for hit, _ in row])) for row in rows if row],
        "auc": _auc(score[hit], score[~hit]),
        "sure": float((score > SURE).mean()),
        "precision_sure": float(hit[score > SURE].mean()) if (score > SURE).any() else None,
        "shaken_frames": len(shaken),
        "shaken_sure": float((np.array(shaken) > SURE).mean()) if shaken else 0.0,
        "ms_per_frame": 1000 * seconds / frames,
    }


def _shaken(case: RobotCase) -> list[Any]:
    """The clip as a hand-held camera would see it: pushed about by up to 4 % of the picture."""
    rng = np.random.default_rng(len(case.name))
    steps = np.cumsum(rng.normal(0, 0.008, (len(case.frames), 2)), 0) * case.mask.shape[1]
    return [
        replace(frame, image=np.roll(frame.image, tuple(np.rint(step).astype(int)), (0, 1)))
        for frame, step in zip(case.frames, steps, strict=True)
    ]


def _hits(case: RobotCase, boxes: Sequence[BoxDetection | None]) -> list[tuple[bool, float]]:
    """For every frame that shows a moving gripper: is the box's centre on it, and the box's score."""
    side = case.mask.shape[1]
    radius = max(1, round(NEAR * side))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    found: list[tuple[bool, float]] = []
    for slot in np.flatnonzero(case.shown_moving_F).tolist():
        box = boxes[slot]
        if box is None:
            found.append((False, 0.0))
            continue
        grown = cv2.dilate(case.mask[slot].astype(np.uint8), disc)
        x, y = np.clip((box.box_4[:2] + box.box_4[2:]) / 2, 0, side - 1).astype(int)
        found.append((bool(grown[y, x]), box.score))
    return found


def _auc(right: np.ndarray, wrong: np.ndarray) -> float | None:
    """Chance that a right box has the higher score than a wrong one."""
    if not len(right) or not len(wrong):
        return None
    return float((right[:, None] > wrong).mean() + (right[:, None] == wrong).mean() / 2)


def _interval(values: Sequence[float]) -> str:
    """Median over clips with its bootstrapped 95 % interval."""
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(np.array(values), (2000, len(values))), axis=1)
    low, high = np.quantile(medians, (0.025, 0.975))
    return f"{np.median(values):.1f} ({low:.1f} to {high:.1f})"


def section(figures: dict[str, Any]) -> str:
    """The figures in Markdown."""
    clips = 2 * figures["tasks"]
    chosen = "that no constant was chosen on" if figures["published"] else "of tuning"
    lines = [
        "## Robots without weights",
        "",
        f"Simulated: Meta-World's Sawyer, {figures['tasks']} tasks {chosen}, {clips} expert "
        f"episodes of 1 to 2 s at 20 Hz (seed {figures['seed']}), colours after H.264, cameras at both sides of "
        f"the table (not behind the robot, whose arm would hide the gripper), fields of view of 30 to 60 degrees; "
        f"{TOGETHER} episodes share a camera. The recorded pose is "
        "exact and in step with the pictures, the camera still and without distortion; the gripper hardly turns (up to "
        "10 degrees), which is the hardest case. Real arms record with delay and error: these figures are a best case.",
        "",
        "    python -m tests.benchmarks.extraction_robots --json FILE",
        "",
        "### Gripper points from recorded poses (`extract/robot/proprio.py`)",
        "",
        "Distance of identified points from the truth (the material under the point in its template frame, moved with "
        "the simulator's geometry), points on the gripper, all frames: first the median of each accepted episode, then "
        "its median and 95 % interval over episodes. Alone: every episode with unknown focal length; together: "
        f"{TOGETHER} episodes of one camera; known: alone, focal length given (256 pixels only). On gripper: share of "
        "points; the rest ride on the wrist, on what is carried, or beside the outline. Covered: errors below the "
        "stored sigma.",
        "",
        "| pixels | solved | accepted | points, mm: median | 90th percentile of points, mm | within 15 mm | rejected "
        "ones, mm | focal length off, % | on gripper | covered across, along | box on gripper | ms/frame |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for side, found in figures["sides"].items():
        for name in (name for name in ("alone", "together", "known focal length") if name in found):
            lines.append(_proprio_line(side, name, found[name]))
    reasons: dict[str, int] = {}
    for found in figures["sides"].values():
        for row in found.get("alone", []):
            if row["reason"]:
                reasons[row["reason"]] = reasons.get(row["reason"], 0) + 1
    told = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items())) or "none"
    lines += [
        "",
        f"Rejections of episodes solved alone: {told}. Within 15 mm: accepted episodes whose median is. The path of "
        "one short episode is often nearly a plane, from which focal length and distance cannot be told apart; sigma "
        "says so. Jaws that move are not modelled: finger points are wrong by the jaw's travel while it is away from "
        "where it was seen.",
        "",
        "### The effector by motion alone (`extract/robot/motion.py`)",
        "",
        f"Right: the centre of the box is in the gripper's true mask grown by {100 * NEAR:.0f} % of the picture. "
        "Frames that show at least 30 pixels (of 128x128) of a gripper that moves half a pixel. Score: chance that a "
        f"right box has a higher one than a wrong one, and precision above {SURE:g}. Shaken: the same clips seen by a "
        "camera that wanders; what is still sure of itself there.",
        "",
        "| pixels | frames | right | right per clip: median (10th percentile) | score: AUC | sure | right when sure "
        "| sure when shaken | ms/frame |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for side, found in figures["sides"].items():
        row = found["motion"]
        by_clip = np.array(row["hit_by_clip"])
        auc = "-" if row["auc"] is None else f"{row['auc']:.2f}"
        precision = "-" if row["precision_sure"] is None else f"{100 * row['precision_sure']:.0f} %"
        lines.append(
            f"| {side} | {row['frames']} | {100 * row['hit']:.0f} % | {100 * np.median(by_clip):.0f} "
            f"({100 * np.quantile(by_clip, 0.1):.0f}) % | {auc} | {100 * row['sure']:.0f} % | {precision} "
            f"| {100 * row['shaken_sure']:.1f} % | {row['ms_per_frame']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def _proprio_line(side: str, name: str, rows: Sequence[dict[str, Any]]) -> str:
    accepted = [row for row in rows if row["reason"] is None and "median_mm" in row]
    refused = [row["median_mm"] for row in rows if row["reason"] is not None and "median_mm" in row]
    hits = [hit for row in rows for hit in row.get("box_hits", [])]
    speed = np.mean([row["ms_per_frame"] for row in rows])
    wrong = f"{np.median(refused):.0f}" if refused else "-"
    if not accepted:
        return f"| {side} | {name} | 0 of {len(rows)} | - | - | - | {wrong} | - | - | - | - | {speed:.0f} |"
    medians = [row["median_mm"] for row in accepted]
    focal = np.median([abs(row["focal_ratio"] - 1) for row in accepted])
    covered = [np.mean([row[key] for row in accepted]) for key in ("across_covered", "along_covered")]
    return (
        f"| {side} | {name} | {len(accepted)} of {len(rows)} | {_interval(medians)} "
        f"| {np.median([row['p90_mm'] for row in accepted]):.0f} | {100 * np.mean(np.array(medians) < 15):.0f} % "
        f"| {wrong} | {100 * focal:.1f} | {100 * np.mean([row['on_gripper'] for row in accepted]):.0f} % "
        f"| {100 * covered[0]:.0f}, {100 * covered[1]:.0f} % | {100 * np.mean(hits):.0f} % | {speed:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Robots without weights, on simulated episodes.")
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--folder", type=Path, help="keeps rendered episodes; a temporary folder without")
    parser.add_argument("--seed", type=int, default=SEED, help="other seeds are for tuning")
    parser.add_argument("--motion-only", action="store_true", help="leave out what needs recorded poses")
    arguments = parser.parse_args()
    tasks = TASKS if arguments.seed == SEED else TUNING_TASKS
    with tempfile.TemporaryDirectory() as temporary:
        figures = measure(arguments.folder or Path(temporary), arguments.seed, tasks, arguments.motion_only)
    write_json(arguments.json, figures)
    print(section(figures))


if __name__ == "__main__":
    main()
