"""``python -m tests.benchmarks.hand_sigma --folder DIR``: the weights in extract/hand/uncertainty.py, fitted anew.

Renders tuning clips into DIR (seeds, viewpoints and sizes that no published figure uses), runs the detector on them
and prints the weights. Errors are those of visible skin points; Student's t with four degrees of freedom, because
errors are heavy-tailed. In every HIDDEN-th clip a bar is painted before part of the hand, for image-only sigma to know
hidden fingers by how landmarks then disagree. At last sigma is scaled so that SHARE of the errors in the other clips
lie within it.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

from extract.hand.config import HandConfig
from extract.hand.extractor import HandExtractor
from extract.hand.lifted import LiftedHand
from extract.hand.observe import HandObservations, observe
from extract.hand.sight import Sighting
from extract.hand.uncertainty import doubts
from tests.benchmarks.extraction_hands import SOURCES, Source, true_points
from tests.benchmarks.hand_clips import HandClip
from tests.benchmarks.hand_scores import along_and_across
from tests.benchmarks.hand_views import FIRST_TUNING_SEED, behind_a_bar, read_views, render_views, with_noisy_depth

FREEDOM = 4.0
SHARE = 0.73  # a little more than a Gaussian's 68 %, so that the heavy tails have at least 90 % within two sigma
RIDGE = 0.002
HIDDEN = 2
CALIBRATED = {"noisy sensor": "WITH_SKIN", "noisy at landmarks": "WITH_SENSOR", "size given": "IMAGE_ONLY"}


def _at_landmarks(sighting: Sighting, clip: HandClip) -> Sighting:
    """Noisy depth that is known at the landmarks alone, as a depth network's is used."""
    noisy = with_noisy_depth(sighting, clip)
    return replace(noisy, patches=[[None] * len(found) for found in noisy.detections])


AT_LANDMARKS = Source("noisy at landmarks", _at_landmarks, lambda clip: HandConfig())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.hand_sigma", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where rendered clips are kept")
    parser.add_argument("--rounds", type=int, default=3, help="times 60 clips")
    arguments = parser.parse_args()
    for number in range(arguments.rounds):
        render_views(arguments.folder, FIRST_TUNING_SEED + 100 * number, tuning=True)
    detector = HandExtractor(HandConfig())
    samples: dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]] = {name: [] for name in CALIBRATED}
    for number, clip in enumerate(read_views(arguments.folder)):
        hidden = number % HIDDEN == 0
        sighting = detector.detect(behind_a_bar(clip) if hidden else clip.frames(with_depth=True))
        for source in (*SOURCES, AT_LANDMARKS):
            if source.name in CALIBRATED and not (hidden and source.name.startswith("noisy")):
                extractor = HandExtractor(source.config(clip))
                for hand in extractor.hands(source.sighting(sighting, clip), clip.camera)[0]:
                    if hand.side == clip.side:
                        sample = _sample(hand, clip, extractor)
                        samples[source.name].append((*sample, np.full(len(sample[0]), hidden)))
    for source, name in CALIBRATED.items():
        columns, across, along, hidden_T = (np.concatenate(parts) for parts in zip(*samples[source], strict=True))
        weights = [fitted(columns, errors, ~hidden_T).round(2).tolist() for errors in (across, along)]
        print(name, "across", weights[0], "along", weights[1])


def _sample(hand: LiftedHand, clip: HandClip, extractor: HandExtractor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Doubts [T,D] and errors [T,E] across (metres) and along the ray (metres, or shares of the distance)."""
    rows = hand.measured_T
    columns = doubts(observed_again(hand, clip, extractor.config), hand.joints_T213, hand.placed.palm_m)[rows]
    track = extractor.track(hand, clip.camera)
    across, along = along_and_across(track.points[rows], true_points(hand, clip, extractor)[rows])
    across, along = (np.where(track.visible[rows], np.abs(errors), np.nan) for errors in (across, along))
    if not hand.placed.sensed:
        along = along / np.linalg.norm(hand.joints_T213[rows].mean(1), axis=-1)[None, :, None]
    return columns, np.concatenate(list(across), 1), np.concatenate(list(along), 1)


def observed_again(hand: LiftedHand, clip: HandClip, config: HandConfig) -> HandObservations:
    """What the hand was fitted to."""
    return observe(
        hand.time_T,
        hand.landmarks_T212,
        hand.unmirrored_world_T213,
        hand.surface_z_T21,
        hand.measured_T,
        clip.camera,
        config.palm_size_m,
        hand.unmirrored_depth_px_T21,
    )


def fitted(columns_TD: np.ndarray, errors_TE: np.ndarray, scaled_by_T: np.ndarray) -> np.ndarray:
    """Weights f64 [1+D] of log sigma, the constant first; NaN errors do not count. scaled_by_T: frames whose errors the
    constant is set by."""
    known = np.isfinite(errors_TE)
    some = known.any(1)
    known, errors = known[some], np.where(known, errors_TE, 0)[some]
    design = np.concatenate([np.ones((some.sum(), 1)), columns_TD[some]], 1)
    total = known.sum()

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        log_sigma = design @ weights
        squared = (errors * np.exp(-log_sigma)[:, None]) ** 2
        terms = log_sigma[:, None] + (FREEDOM + 1) / 2 * np.log1p(squared / FREEDOM)
        slope = (known * (1 - (FREEDOM + 1) * squared / (FREEDOM + squared))).sum(1)
        shrunk = np.append(0, weights[1:])
        return float(
            np.sum(terms * known) / total + RIDGE * shrunk @ shrunk
        ), slope @ design / total + 2 * RIDGE * shrunk

    start = np.append(np.log(np.median(errors[known])), np.zeros(columns_TD.shape[1]))
    weights = np.asarray(minimize(loss, start, jac=True, method="BFGS").x)
    in_sigmas = (errors * np.exp(-design @ weights)[:, None])[known & scaled_by_T[some][:, None]]
    weights[0] += np.log(np.quantile(in_sigmas, SHARE))
    return weights


if __name__ == "__main__":
    main()
