"""``python -m tests.benchmarks.extraction_hands --json F [--folder DIR]``: hands from 20 viewpoints in 3 sizes.

What a user of motion clips gets: errors of identified skin points in the camera frame and of their displacement, for
every source of depth, and how often they lie within the stored uncertainty. Rendered clips are kept in DIR.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from extract.effector import EffectorTrack
from extract.hand.config import HandConfig
from extract.hand.extractor import HandExtractor
from extract.hand.lifted import LiftedHand
from extract.hand.sight import Sighting
from extract.hand.skeleton import PALM_SIZE, palm_size
from pipeline.atomic import write_json
from tests.benchmarks.hand_clips import HandClip
from tests.benchmarks.hand_real import against_stereo
from tests.benchmarks.hand_report import views_section
from tests.benchmarks.hand_scores import Coverage, Scores, Truth, point_errors, point_step_errors
from tests.benchmarks.hand_views import SIZES, VIEWS, read_views, render_views, with_noisy_depth
from tests.footage import footage_folder


@dataclass(frozen=True)
class Source:
    """One source of depth: how the sighting of a clip is changed for it, and the settings it is lifted with."""

    name: str
    sighting: Callable[[Sighting, HandClip], Sighting]
    config: Callable[[HandClip], HandConfig]


def true_palm(clip: HandClip) -> float:
    """Palm size of the simulated hand, metres."""
    return float(np.median(palm_size(clip.arrays["truth_joints"])))


def true_points(hand: LiftedHand, clip: HandClip, extractor: HandExtractor) -> np.ndarray:
    """The track's skin points on the true joints of a hand of the true size, f64 [T,N,3] metres."""
    surface = replace(extractor.surface, scale=true_palm(clip) / PALM_SIZE)
    return surface.points(clip.arrays["truth_joints"][hand.slots].astype(float), hand.side)[0]


SOURCES = (
    Source("sensor", lambda sighting, clip: sighting, lambda clip: HandConfig()),
    Source("noisy sensor", with_noisy_depth, lambda clip: HandConfig()),
    Source("adult assumed", lambda sighting, clip: sighting.without_depth(), lambda clip: HandConfig()),
    Source(
        "size given",
        lambda sighting, clip: sighting.without_depth(),
        lambda clip: HandConfig(palm_size_m=true_palm(clip), palm_size_sigma=0.02),
    ),
)


def measure(folder: Path, clips: Callable[[Path], Iterator[HandClip]] = read_views) -> dict[str, Any]:
    """All figures; renders what is missing in ``folder`` first. With KINECLOUD_FOOTAGE set, real stills are measured
    too."""
    folder.mkdir(parents=True, exist_ok=True)
    render_views(folder)
    bench = ViewBench()
    for clip in clips(folder):
        bench.add(clip)
    figures = bench.figures()
    if footage := footage_folder():
        figures["stereo"] = against_stereo(footage, HandConfig())
    return figures


class ViewBench:
    """Runs the hand extractor on clips, once per source of depth, and keeps the errors."""

    def __init__(self) -> None:
        self.detector = HandExtractor(HandConfig())
        self.scores: dict[str, Scores] = {}
        self.coverage: dict[str, Coverage] = {}
        self.clips: list[str] = []
        self.frames = self.detected = 0
        self.kept = dict.fromkeys((source.name for source in SOURCES), 0)
        self.lift_s = self.lifted = 0.0

    def add(self, clip: HandClip) -> None:
        """Scores one clip."""
        self.clips.append(clip.path.stem)
        self.add_sighting(clip, self.detector.detect(clip.frames(with_depth=True)))

    def add_sighting(self, clip: HandClip, sighting: Sighting) -> None:
        """Scores one clip whose frames were looked at already."""
        self.frames += len(sighting.times)
        self.detected += sum(1 for found in sighting.detections if found)
        for source in SOURCES:
            extractor = HandExtractor(source.config(clip))
            seen = source.sighting(sighting, clip)
            started = time.perf_counter()
            hands = [hand for hand in extractor.hands(seen, clip.camera)[0] if hand.side == clip.side]
            tracks = [extractor.track(hand, clip.camera) for hand in hands]
            self.lift_s += time.perf_counter() - started
            for hand, track in zip(hands, tracks, strict=True):
                self.lifted += len(hand.slots)
                self.kept[source.name] += int(hand.measured_T.sum())
                self._score(source.name, hand, track, clip, extractor)

    def _score(
        self, source: str, hand: LiftedHand, track: EffectorTrack, clip: HandClip, extractor: HandExtractor
    ) -> None:
        joints = clip.arrays["truth_joints"][hand.slots].astype(float)
        true = true_points(hand, clip, extractor)
        coverage = self.coverage.setdefault(source, Coverage())
        coverage.add(track.points, true, track.sigma, hand.measured_T, track.visible)
        rows = hand.measured_T
        truth = Truth(hand.time_T[rows], joints[rows], clip.arrays["truth_surface"][hand.slots][rows])
        size = SIZES[int(np.argmin([abs(true_palm(clip) / HandConfig().palm_size_m - size) for size in SIZES]))]
        for name in (source, f"{source}, size {size:g}"):
            scores = self.scores.setdefault(name, Scores())
            cloud = (track.points[rows].astype(float), track.visible[rows])
            scores.add(hand.joints_T213[rows], truth, extractor.surface, hand.side, cloud)
            scores.append("points_mm", point_errors(track.points[rows], true[rows]))
            scores.append("point_step_mm", point_step_errors(track.points[rows], true[rows], truth))

    def figures(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "clips": len(self.clips),
            "views": len(VIEWS),
            "sizes": list(SIZES),
            "frames": self.frames,
            "detected_pct": 100 * self.detected / self.frames,
            "kept_pct": {name: 100 * kept / self.frames for name, kept in self.kept.items()},
            "rows": {name: scores.summary(intervals=True) for name, scores in self.scores.items()},
            "coverage": {name: coverage.summary() for name, coverage in self.coverage.items()},
            "lift_ms_per_frame": 1000 * self.lift_s / self.lifted,
        }


def section(figures: dict[str, Any]) -> str:
    """The section on hands of docs/results/extraction.md."""
    return views_section(figures)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.extraction_hands", description=__doc__)
    parser.add_argument("--json", type=Path, required=True, help="where to write the figures")
    parser.add_argument("--folder", type=Path, help="where rendered clips are kept; default: a temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        figures = measure(arguments.folder or Path(scratch))
    write_json(arguments.json, figures)
    print(section(figures))


if __name__ == "__main__":
    main()
