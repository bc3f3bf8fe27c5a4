"""``python -m tests.benchmarks.hand_lifting --json F [--clips DIR]``: how far lifted hands are from the truth.

Renders simulated close-ups (or reads them from DIR), runs the real detector on them, and compares the whole-clip fit
that extraction uses with simpler estimators. With KINECLOUD_FOOTAGE set, real footage is measured too. Writes F, and
docs/results/hand_lifting.md when the clips are its own.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from extract.hand.config import HandConfig
from extract.hand.extractor import HandExtractor
from extract.hand.fit import fit_hand
from extract.hand.lifted import LiftedHand
from extract.hand.observe import HandObservations, observe
from extract.hand.skeleton import palm_size
from pipeline.atomic import write_bytes, write_json
from tests.benchmarks import hand_estimators as simple
from tests.benchmarks.hand_clips import HandClip, read_clips, render_clips
from tests.benchmarks.hand_real import against_references, against_stereo, tips_from_landmarks
from tests.benchmarks.hand_report import page
from tests.benchmarks.hand_scores import Coverage, Scores, Truth
from tests.footage import footage_folder

DOCUMENT = Path("docs/results/hand_lifting.md")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.hand_lifting", description=__doc__)
    parser.add_argument("--json", type=Path, required=True, help="where to write the figures")
    parser.add_argument("--clips", type=Path, help="folder of simulated close-ups; default: render them")
    parser.add_argument("--count", type=int, default=18, help="clips to render")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.clips
        if folder is None:
            folder = Path(scratch)
            render_clips(folder, arguments.count)
        figures = measure(read_clips(folder))
    if footage := footage_folder():
        config = HandConfig()
        figures["real"] = against_references(footage, HandExtractor(config))
        figures["stereo"] = against_stereo(footage, config)
        figures["tips_mm"] = tips_from_landmarks(footage, config).tolist()
    write_json(arguments.json, figures)
    if arguments.clips is None:
        write_bytes(DOCUMENT, page(figures).encode())
    print(page(figures))


def measure(clips: list[HandClip]) -> dict[str, Any]:
    """All figures of the simulated clips."""
    bench = _Bench({"image": HandConfig(use_sensor_depth=False), "sensor": HandConfig()})
    for clip in clips:
        bench.add(clip)
    return bench.figures()


class _Bench:
    """Runs every estimator on every clip."""

    def __init__(self, configs: dict[str, HandConfig]):
        self.extractors = {name: HandExtractor(config) for name, config in configs.items()}
        self.scores: dict[str, Scores] = {}
        self.coverage = {name: Coverage() for name in configs}
        self.frames = self.detected = self.kept = 0
        self.clips: list[str] = []
        self.true_palms: list[float] = []
        self.seconds = {"detect": 0.0, "lift": 0.0}
        self.opening: dict[str, list[np.ndarray]] = {}

    def add(self, clip: HandClip) -> None:
        self.clips.append(clip.path.stem)
        self.true_palms.append(float(np.median(palm_size(clip.arrays["truth_joints"]))))
        started = time.perf_counter()
        sighting = self.extractors["sensor"].detect(clip.frames(with_depth=True))
        self.seconds["detect"] += time.perf_counter() - started
        self.frames += len(sighting.times)
        self.detected += sum(1 for found in sighting.detections if found)
        for name, extractor in self.extractors.items():
            seen = sighting if name == "sensor" else sighting.without_depth()
            started = time.perf_counter()
            hands = [hand for hand in extractor.hands(seen, clip.camera)[0] if hand.side == clip.side]
            self.seconds["lift"] += time.perf_counter() - started
            for hand in hands:
                if name == "sensor":
                    self.kept += int(hand.measured_T.sum())
                self._score(name, hand, clip, extractor)

    def _score(self, name: str, hand: LiftedHand, clip: HandClip, extractor: HandExtractor) -> None:
        joints = clip.arrays["truth_joints"][hand.slots].astype(float)
        track = extractor.track(hand, clip.camera)
        true_points, _ = extractor.surface.points(joints, hand.side)
        self.coverage[name].add(track.points, true_points, track.sigma, hand.measured_T, track.visible)
        rows = hand.measured_T
        self.opening.setdefault(name, []).append(np.abs(track.opening - clip.arrays["opening"][hand.slots])[rows])
        truth = Truth(hand.time_T[rows], joints[rows], clip.arrays["truth_surface"][hand.slots][rows])
        estimates = {"whole-clip fit": hand.joints_T213[rows]}
        estimates |= _estimates(hand, clip, extractor.config, sensed=name == "sensor")
        for label, estimate in estimates.items():
            scores = self.scores.setdefault(f"{name}: {label}", Scores())
            scores.add(estimate, truth, extractor.surface, hand.side)

    def figures(self) -> dict[str, Any]:
        return {
            "clips": len(self.clips),
            "frames": self.frames,
            "detected_pct": 100 * self.detected / self.frames,
            "kept_pct": 100 * self.kept / self.frames,
            "true_palm_mm": [round(1000 * f(self.true_palms), 1) for f in (min, np.mean, max)],
            "assumed_palm_mm": 1000 * HandConfig().palm_size_m,
            "rows": {name: scores.summary() for name, scores in self.scores.items()},
            "coverage": {name: coverage.summary() for name, coverage in self.coverage.items()},
            "opening_mm": {n: 1000 * float(np.median(np.concatenate(parts))) for n, parts in self.opening.items()},
            "detect_fps": self.frames / self.seconds["detect"],
            "lift_ms_per_frame": 1000 * self.seconds["lift"] / self.frames / len(self.extractors),
        }


def _estimates(hand: LiftedHand, clip: HandClip, config: HandConfig, sensed: bool) -> dict[str, np.ndarray]:
    """Joints of the measured frames by each of the simpler estimators."""
    observed = _measured_only(hand, clip, config)
    palm = config.palm_size_m
    fitted = simple.template_fit(observed, palm)
    if sensed:
        return {"e2": fitted, "e2 + RTS": simple.rts_smoothed(fitted, observed.time_T, sensed=True)}
    landmarks, world = hand.landmarks_T212[hand.measured_T], hand.world_T213[hand.measured_T]
    nearest = simple.least_foreshortened(observed, palm)
    constant_palm = simple.perspective_n_point(landmarks, world, clip.camera, palm)
    median = simple.at_median_depth(fitted, nearest, constant_palm)
    frame_fit = fit_hand(observed, palm, config.sensor_depth_sigma_m, simple.SMOOTH_ONLY).joints_T213
    return {
        "naive palm length": simple.naive(observed, palm),
        "a2": nearest,
        "PnP": simple.perspective_n_point(landmarks, world, clip.camera, None),
        "p0": constant_palm,
        "g4": fitted,
        "m": median,
        "m + RTS": simple.rts_smoothed(median, observed.time_T, sensed=False),
        "whole-clip fit, fixed bones": frame_fit,
    }


def _measured_only(hand: LiftedHand, clip: HandClip, config: HandConfig) -> HandObservations:
    rows = hand.measured_T
    return observe(
        hand.time_T[rows],
        hand.landmarks_T212[rows],
        hand.unmirrored_world_T213[rows],
        hand.surface_z_T21[rows],
        np.ones(int(rows.sum()), bool),
        clip.camera,
        config.palm_size_m,
    )


if __name__ == "__main__":
    main()
