"""Learned depth after it was made consistent (extract/depth/consistency.py), with made-up errors on simulated scenes.

python -m tests.benchmarks.extraction_depth --json FILE
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data.episode import Frame
from extract.depth.consistency import Corrections, Fit, Kind, consistent_frames, fit_anchors, to_values
from extract.depth.learned import effector_boxes
from extract.steps import DepthAnchor
from tests.benchmarks.extraction_boxes import EFFECTORS
from tests.benchmarks.held_out import main
from tests.benchmarks.mask_cases import Case, cached
from tests.benchmarks.mask_tracking import SETS

KINDS: tuple[Kind, ...] = ("metric", "disparity")
CLIP_SCALE = 0.2  # one sigma of log scale of the clip: what a network is wrong by as a whole
FRAME_SCALE = 0.04  # of log scale from frame to frame
JUMP, JUMP_SHARE = 0.15, 0.05  # single frames that are off by more
FIELD, FLICKER = 0.04, 0.015  # log error that varies slowly over the picture: the same in all frames, and new in each
SHIFT = 0.05  # of disparity networks, per clip and again (a third) per frame, relative to the middle disparity
BLUR_PX = 1.5
HAND_SIZE, HAND_OWN = 0.06, 0.02  # one factor of the clip, and of each frame
SENSOR = 0.01
UNTIED_SIGMA = 0.2
WAYS = ("as the network saw it", "consistent, hand's size", "consistent, sensor in every tenth frame")


@dataclass(frozen=True)
class Network:
    """What a made-up network says about a clip. frames: with the image only."""

    kind: Kind
    values: list[np.ndarray]
    frames: list[Frame]


def made_up(case: Case, kind: Kind, seed: int) -> Network:
    """Exact depth with an error of the clip, of each frame, and of each place; edges blurred."""
    rng = np.random.default_rng([seed, len(case.frames), KINDS.index(kind)])
    height, width = case.geom.shape[1:]
    clip, field = np.exp(rng.normal(0, CLIP_SCALE)), _smooth(rng, FIELD, height, width)
    clip_shift = rng.normal(0, SHIFT)
    values = []
    for frame in case.frames:
        depth = _filled(_measured(frame))
        jump = JUMP * rng.choice([-1, 1]) if rng.random() < JUMP_SHARE else 0.0
        log_error = field + _smooth(rng, FLICKER, height, width) + rng.normal(0, FRAME_SCALE) + jump
        seen = cv2.GaussianBlur(1 / depth, (0, 0), BLUR_PX) / clip / np.exp(log_error)
        if kind == "disparity":
            seen = seen + (clip_shift + rng.normal(0, SHIFT / 3)) * np.median(seen)
        values.append(to_values(1 / seen if kind == "metric" else seen, kind))
    return Network(kind, values, [replace(frame, depth=None, mask=None) for frame in case.frames])


def measure(folder: Path, which: str = "held out") -> dict[str, Any]:
    """{kind: {way: figures}}, grippers and hands together; ``folder`` keeps rendered episodes."""
    tasks, seed = SETS[which]
    rows: dict[Kind, dict[str, list[dict[str, np.ndarray]]]] = {kind: {way: [] for way in WAYS} for kind in KINDS}
    clips = 0
    for effector, make in EFFECTORS.items():
        for index, task in enumerate(tasks):
            case = cached(folder, make, task, index, seed)
            clips += 1
            for kind in KINDS:
                for way, figures in _one(case, kind, 100 * seed + 10 * index + len(effector)).items():
                    rows[kind][way].append(figures)
    return {
        "set": which,
        "clips": clips,
        "kinds": {kind: {way: _summary(found) for way, found in ways.items()} for kind, ways in rows.items()},
    }


def _one(case: Case, kind: Kind, seed: int) -> dict[str, dict[str, np.ndarray]]:
    network, size = made_up(case, kind, seed), case.camera.image_size
    count = len(network.values)
    hand, sensor = _hand_anchors(case, seed), _sensor_anchors(case, seed)
    boxes = effector_boxes(hand, count)
    untouched = Corrections(np.ones(count), np.zeros(count), 0.0, True)
    consistent = consistent_frames(network.values, network.frames, kind, boxes)
    found: dict[str, dict[str, np.ndarray]] = {}
    for way, anchors, corrections in zip(WAYS, (hand, hand, sensor), (untouched, consistent, consistent), strict=True):
        fit = fit_anchors(network.values, corrections, anchors, size, kind, UNTIED_SIGMA)
        found[way] = _errors(case, network, corrections, fit)
    return found


def _errors(case: Case, network: Network, corrections: Corrections, fit: Fit) -> dict[str, np.ndarray]:
    """Relative error at the effector's pixels, and how much the depth of the whole effector moves wrongly per frame."""
    off, steps, last = [], [], None
    for t, frame in enumerate(case.frames):
        depth = fit.depth((network.values[t] - corrections.shift_T[t]) / corrections.scale_T[t])
        core = cv2.erode(np.asarray(frame.mask, np.uint8), np.ones((3, 3), np.uint8)) > 0  # edges are blurred
        truth = _measured(frame)
        core &= (truth > 0) & (depth > 0)
        if core.sum() < 20:
            last = None
            continue
        error = np.log(depth[core] / truth[core])
        off.append(error)
        middle = float(np.median(depth[core] - truth[core]))
        if last is not None:
            steps.append(1000 * abs(middle - last))
        last = middle
    error = np.concatenate(off)
    return {"off": np.abs(error), "step_mm": np.array(steps), "within": np.abs(error) / fit.sigma}


def _summary(clips: list[dict[str, np.ndarray]]) -> dict[str, float]:
    off, steps = (np.concatenate([clip[name] for clip in clips]) for name in ("off", "step_mm"))
    rng, medians = np.random.default_rng(0), np.array([np.median(clip["off"]) for clip in clips])
    low, high = np.percentile(np.median(medians[rng.integers(0, len(medians), (1000, len(medians)))], 1), [2.5, 97.5])
    values = {
        "depth_pct_p50": 100 * np.median(off),
        "depth_pct_p90": 100 * np.percentile(off, 90),
        "depth_pct_low": 100 * low,
        "depth_pct_high": 100 * high,
        "step_mm_p50": np.median(steps),
        "step_mm_p90": np.percentile(steps, 90),
        "within_1": np.mean([np.mean(clip["within"] < 1) for clip in clips]),
        "within_2": np.mean([np.mean(clip["within"] < 2) for clip in clips]),
        "frames": len(steps),
    }
    return {name: round(float(value), 3) for name, value in values.items()}


def _hand_anchors(case: Case, seed: int) -> list[DepthAnchor]:
    """21 points on the effector in every frame, as a hand's size gives them."""
    rng, anchors = np.random.default_rng([seed, 1]), []
    factor = np.exp(rng.normal(0, HAND_SIZE))
    for t, frame in enumerate(case.frames):
        truth = _measured(frame)
        rows, columns = np.nonzero(np.asarray(frame.mask, bool) & (truth > 0))
        if len(rows) < 60:
            continue
        chosen = rng.choice(len(rows), 21, replace=False)
        depth = truth[rows[chosen], columns[chosen]] * factor * np.exp(rng.normal(0, HAND_OWN))
        pixels = np.stack([columns[chosen], rows[chosen]], 1) + 0.5
        anchors.append(DepthAnchor(t, pixels, depth, np.full(21, HAND_SIZE), "assumed"))
    return anchors


def _sensor_anchors(case: Case, seed: int) -> list[DepthAnchor]:
    """400 places of every tenth frame, as a depth camera gives them."""
    rng, anchors = np.random.default_rng([seed, 2]), []
    for t in range(0, len(case.frames), 10):
        depth = _measured(case.frames[t])
        rows, columns = np.nonzero(depth > 0)
        chosen = rng.choice(len(rows), 400, replace=False)
        noisy = depth[rows[chosen], columns[chosen]] * np.exp(rng.normal(0, SENSOR, 400))
        pixels = np.stack([columns[chosen], rows[chosen]], 1) + 0.5
        anchors.append(DepthAnchor(t, pixels, noisy, np.full(400, SENSOR), "metric"))
    return anchors


def _smooth(rng: np.random.Generator, sigma: float, height: int, width: int) -> np.ndarray:
    """A random field with the given spread that changes over about a quarter of the picture."""
    field = cv2.resize(rng.normal(0, 1, (6, 6)), (width, height), interpolation=cv2.INTER_CUBIC)
    return sigma * field / field.std()


def _measured(frame: Frame) -> np.ndarray:
    assert frame.depth is not None
    return frame.depth


def _filled(depth_HW: np.ndarray) -> np.ndarray:
    """Depth without holes: a network has none. Unknown depth (far walls) counts as the farthest."""
    return np.where(depth_HW > 0, depth_HW, depth_HW.max()).astype(np.float64)


def section(figures: dict[str, Any]) -> str:
    """The figures as a section of docs/results/extraction.md."""
    lines = [
        "## Learned depth, made consistent",
        "",
        "**Simulated, and with made-up errors: no network for depth was run.** Exact depth of",
        f"{figures['clips']} episodes (gripper and human-hand twin, one of each task, still camera) times errors as",
        f"networks have them, one sigma each: scale of the clip {100 * CLIP_SCALE:.0f} %, of each frame",
        f"{100 * FRAME_SCALE:.0f} %, {100 * JUMP_SHARE:.0f} % of the frames off by {100 * JUMP:.0f} % more, slow",
        f"error over the picture {100 * FIELD:.0f} % that stays and {100 * FLICKER:.1f} % that flickers, blurred",
        f"edges; for disparity a shift of {100 * SHIFT:.0f} % too. Depth: error at the effector without its edge.",
        "Step: how far the effector's middle depth moves wrongly from one frame to the next. Hand's size: wrong by one",
        "factor per clip",
        f"({100 * HAND_SIZE:.0f} %, one sigma), {100 * HAND_OWN:.0f} % per frame. In brackets the 95 % interval of the",
        "clips' median (bootstrap).",
        "",
        "| network | scale from | depth, median | p90 | step, median | p90 | in 1 sigma | in 2 sigma |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind, ways in figures["kinds"].items():
        for way, row in ways.items():
            lines.append(
                f"| {kind} | {way} | {row['depth_pct_p50']:.1f} % ({row['depth_pct_low']:.1f} to "
                f"{row['depth_pct_high']:.1f}) | {row['depth_pct_p90']:.1f} % | {row['step_mm_p50']:.1f} mm "
                f"| {row['step_mm_p90']:.1f} mm | {100 * row['within_1']:.0f} % | {100 * row['within_2']:.0f} % |"
            )
    lines += [
        "",
        "As the network saw it: fitted to the hand's size too, but without tying the frames to each other. Limits: how",
        "large a real network's errors are is not known from this; what is shown is that jumps go and anchors are met.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main(__doc__, measure, section)
