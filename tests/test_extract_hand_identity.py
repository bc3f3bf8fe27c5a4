"""Which detection is which hand: kept through the detector's renumbering, short losses and repeated reports."""

from __future__ import annotations

import numpy as np

from extract.hand.identity import link, palm_centre, without_duplicates
from tests.hand_cases import detection_at

TIMES = np.arange(40) / 25


def test_two_hands_stay_apart_although_the_detector_swaps_their_slots():
    rng = np.random.default_rng(0)
    frames = []
    for t in range(40):
        found = [detection_at(150 + 3 * t, 300, "left"), detection_at(500 - 3 * t, 250, "right")]
        frames.append(found[::-1] if rng.random() < 0.5 else found)
    tracks = link(TIMES, frames, max_gap_s=0.25)
    assert sorted(track.side for track in tracks) == ["left", "right"]
    for track in tracks:
        assert track.slots == list(range(40))
        assert {d.side for d in track.detections} == {track.side}


def test_a_wrong_label_now_and_then_does_not_split_a_hand():
    frames = [[detection_at(200 + 2 * t, 300, "left" if t % 5 == 2 else "right")] for t in range(40)]
    (track,) = link(TIMES, frames, max_gap_s=0.25)
    assert track.side == "right" and len(track.slots) == 40


def test_a_short_loss_keeps_the_hand_and_a_long_one_ends_it():
    def frames(lost: range) -> list:
        return [[] if t in lost else [detection_at(200 + 4 * t, 300)] for t in range(40)]

    assert len(link(TIMES, frames(range(10, 14)), max_gap_s=0.25)) == 1
    assert len(link(TIMES, frames(range(10, 24)), max_gap_s=0.25)) == 2


def test_a_hand_that_appears_elsewhere_is_another_hand():
    frames = [[detection_at(100, 300)] if t < 20 else [detection_at(560, 120)] for t in range(40)]
    assert len(link(TIMES, frames, max_gap_s=0.25)) == 2


def test_one_hand_reported_twice_counts_once():
    sure, doubtful = detection_at(200, 300, score=0.95), detection_at(206, 303, "left", score=0.6)
    assert without_duplicates([doubtful, sure]) == [sure]
    assert len(without_duplicates([sure, detection_at(400, 300, "left")])) == 2
    assert np.linalg.norm(palm_centre(sure) - palm_centre(doubtful)) < 10


def test_a_hand_that_passes_in_front_does_not_take_the_hidden_one_with_it():
    """For six frames only the nearer hand is found, right where the other one was, and at first on the wrong side."""
    frames = []
    for t in range(40):
        near, far = 150 + 9 * t, 500 - 9 * t
        front = detection_at(near, 300, "left" if 18 <= t < 21 else "right", size=150.0)
        frames.append([front] if 17 <= t < 23 else [front, detection_at(far, 290, "left", size=110.0)])
    tracks = link(TIMES, frames, max_gap_s=0.5)
    by_size = {
        len(track.slots): {round(float(np.ptp(d.landmarks_px, axis=0).max())) for d in track.detections}
        for track in tracks
    }
    assert by_size == {40: {150}, 34: {110}}


def test_two_people_of_the_same_side_stay_apart():
    frames = [
        [
            detection_at(200 + 6 * t, 200 + 5 * t, "right", size=100.0),
            detection_at(440 - 6 * t, 270 + 5 * t, "right", size=140.0),
        ][:: 1 if t % 3 else -1]
        for t in range(40)
    ]
    tracks = link(TIMES, frames, max_gap_s=0.25)
    assert len(tracks) == 2
    for track in tracks:
        assert len(track.slots) == 40
        assert len({round(float(np.ptp(d.landmarks_px, axis=0).max())) for d in track.detections}) == 1
