"""Cutting a detection series into stretches."""

from __future__ import annotations

import numpy as np

from extract.segments import split_at_gaps

RATE_HZ = 20.0


def split(seen: str, max_gap_s: float = 0.15, min_seconds: float = 0.2):
    flags = np.array([letter == "x" for letter in seen])
    return split_at_gaps(np.arange(len(seen)) / RATE_HZ, flags, max_gap_s, min_seconds)


def test_a_short_loss_is_bridged_and_marked() -> None:
    segments, rejections = split("xxxxx..xxxxx")
    assert not rejections
    assert [segment.slots.tolist() for segment in segments] == [list(range(12))]
    assert np.flatnonzero(~segments[0].measured).tolist() == [5, 6]


def test_the_longest_bridged_loss_is_the_configured_one() -> None:
    assert len(split("xxxxx...xxxxx")[0]) == 1  # 0.15 s without a frame
    assert len(split("xxxxx....xxxxx")[0]) == 2


def test_stretches_begin_and_end_with_a_seen_frame() -> None:
    segments, _ = split("...xxxxxx.xx.......xxxxxxx..")
    assert [(segment.slots[0], segment.slots[-1]) for segment in segments] == [(3, 11), (19, 25)]
    assert all(segment.measured[[0, -1]].all() for segment in segments)


def test_short_stretches_are_rejected_with_the_time_they_had() -> None:
    segments, rejections = split("xx.........xxxxxxxx")
    assert len(segments) == 1
    assert rejections == [("too_short", "0.05 s in view from 0.00 s on; at least 0.2 s are needed")]


def test_a_single_frame_is_never_a_stretch() -> None:
    assert split("....x....", min_seconds=0.0)[0] == []


def test_every_seen_frame_is_in_exactly_one_stretch_or_rejection() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        seen = rng.random(80) < 0.6
        segments, rejections = split_at_gaps(np.arange(80) / RATE_HZ, seen, 0.1, 0.0)
        slots = [segment.slots for segment in segments]
        used = np.concatenate(slots) if slots else np.array([], int)
        assert len(np.unique(used)) == len(used)
        assert len(np.setdiff1d(np.flatnonzero(seen), used)) == len(rejections)  # single frames


def test_gaps_are_seconds_not_frames() -> None:
    times = np.array([0, 0.05, 0.1, 0.15, 0.6, 0.65, 0.7, 0.75])  # nothing was decoded for half a second
    segments, _ = split_at_gaps(times, np.ones(8, bool), 0.15, 0.1)
    assert [len(segment.slots) for segment in segments] == [4, 4]


def test_nothing_seen_gives_nothing() -> None:
    assert split("........") == ([], [])
