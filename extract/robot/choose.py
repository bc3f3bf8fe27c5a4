"""The camera guess that explains most of what moves, and the tracks that ride on the effector as it sees them."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np

from extract.robot.bundle import Priors, Rig, Sights, adjust
from extract.robot.starts import camera_guesses, place_tracks, seed_tracks

JUDGED = 8  # observations per track that a guess is judged by
CANDIDATES = 5
FITS = 0.45  # share of a track's sights that must agree
FAR = 2.4  # times ``size_m`` from the middle: not the effector any more


def best_camera(sights: Sights, travel_K: np.ndarray, priors: Priors) -> Rig:
    """The camera with most support (its offsets are of some tracks only). travel_K: f64, working pixels.

    Guesses are judged by a few sights of each track; the best of them are adjusted and judged by all.
    """
    worth_K = np.minimum(1, travel_K / 12)
    guesses = camera_guesses(sights, seed_tracks(sights, travel_K), priors)
    few = _thinned(sights, JUDGED)
    judged = []
    for guess in guesses:
        riding, agree = riders(few, guess, priors)
        judged.append(float((agree * worth_K)[riding].sum()))
    best, most = guesses[0], -1.0
    for number in np.argsort(-np.array(judged), kind="stable")[:CANDIDATES]:
        rig = guesses[int(number)]
        for _ in range(2):
            riding, _ = riders(sights, rig, priors)
            if riding.sum() < 3:
                break
            chosen = sights.of_tracks(riding)
            rig, _ = adjust(chosen, place_tracks(chosen, rig, priors), priors, rounds=10)
        riding, agree = riders(sights, rig, priors)
        support = float((agree * worth_K)[riding].sum())
        if support > most:
            best, most = rig, support
    return best


def riders(sights: Sights, rig: Rig, priors: Priors) -> tuple[np.ndarray, np.ndarray]:
    """bool [K]: the track moves as if fixed to the effector, near its middle; f64 [K]: how many sights agree."""
    placed = place_tracks(sights, rig, priors)
    return agreeing(sights, placed, priors)


def agreeing(sights: Sights, rig: Rig, priors: Priors) -> tuple[np.ndarray, np.ndarray]:
    """As ``riders``, for a rig whose offsets are those of the tracks."""
    squared = (rig.weighed(sights) ** 2).sum(1) / priors.noise**2
    agree = np.bincount(sights.track_M, 1 / (1 + squared) ** 2, minlength=sights.tracks)
    count = np.bincount(sights.track_M, minlength=sights.tracks)
    apart = np.linalg.norm(rig.offsets_K3 - rig.middle_3, axis=1)
    return (agree > FITS * count) & (apart < FAR * priors.size), agree


def _thinned(sights: Sights, most: int) -> Sights:
    """At most so many sights of every track, evenly."""
    heads = np.searchsorted(sights.track_M, np.arange(sights.tracks + 1))
    kept = np.concatenate(
        [
            np.unique(np.linspace(low, high - 1, min(most, high - low)).round().astype(int))
            for low, high in itertools.pairwise(heads)
        ]
    )
    return replace(sights, pixels_M2=sights.pixels_M2[kept], pose_M=sights.pose_M[kept], track_M=sights.track_M[kept])
