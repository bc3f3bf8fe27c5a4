"""Streams of sights become stretches that are bounded, overlap as told and lose nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest

from extract.stretches import ClipSettings, Stretch, stretches

RATE = 20


@dataclass(frozen=True)
class Seen:
    slot: int
    found: bool

    @property
    def time(self) -> float:
        return self.slot / RATE

    @property
    def boxes(self) -> np.ndarray:
        return np.zeros((0, 4))


def cut(flags: list[bool], **settings: float) -> list[Stretch[Seen]]:
    return list(stretches((Seen(slot, flag) for slot, flag in enumerate(flags)), ClipSettings(**settings)))


def test_a_stretch_begins_and_ends_with_the_effector() -> None:
    (only,) = cut([False] * 30 + [True] * 40 + [False] * 50)
    assert (only.first, len(only.sights), only.known) == (30, 40, 0)


def test_short_losses_stay_inside_and_long_ones_cut() -> None:
    short = cut([True] * 20 + [False] * 10 + [True] * 20)
    assert [(part.first, len(part.sights)) for part in short] == [(0, 50)]
    long = cut([True] * 20 + [False] * 40 + [True] * 20)
    assert [(part.first, len(part.sights)) for part in long] == [(0, 20), (60, 20)]


def test_long_presence_is_cut_with_overlap_and_covers_every_frame() -> None:
    parts = cut([True] * 1000, max_seconds=12, overlap_s=0.7)
    assert all(len(part.sights) == 12 * RATE for part in parts[:-1])
    assert 3 * RATE <= len(parts[-1].sights) <= 15 * RATE
    assert [part.known for part in parts] == [0, 14, 14, 14, 14]
    for before, after in pairwise(parts):
        assert after.first == before.first + len(before.sights) - after.known
    slots = {part.first + number for part in parts for number in range(len(part.sights))}
    assert slots == set(range(1000))
    for part in parts:
        assert [sight.slot for sight in part.sights] == list(range(part.first, part.first + len(part.sights)))


def test_what_is_only_a_repetition_is_not_given_twice() -> None:
    flags = [True] * (14 * RATE) + [False] * 100
    assert len(cut(flags, max_seconds=12, overlap_s=0.7)) == 1


def test_no_more_than_the_limit_and_a_quarter_is_held() -> None:
    pulled = 0

    def endless() -> Iterator[Seen]:
        nonlocal pulled
        while True:
            yield Seen(pulled, True)
            pulled += 1

    for _, part in zip(range(20), stretches(endless(), ClipSettings()), strict=False):
        assert pulled - part.first <= 1.25 * 12 * RATE + 1


def test_no_effector_no_stretch() -> None:
    assert cut([False] * 100) == []


@pytest.mark.parametrize("seed", range(5))
def test_every_frame_with_an_effector_is_in_a_stretch(seed: int) -> None:
    rng = np.random.default_rng(seed)
    flags = np.repeat(rng.random(60) < 0.6, rng.integers(1, 80, 60)).tolist()
    parts = cut(flags, max_seconds=3, overlap_s=0.5)
    covered = {part.first + number for part in parts for number in range(len(part.sights))}
    assert {slot for slot, flag in enumerate(flags) if flag} <= covered
    assert all(part.sights[0].found and part.sights[-1].found for part in parts)


def test_an_overlap_of_more_than_half_a_clip_is_refused() -> None:
    with pytest.raises(ValueError, match="overlap_s 3 is more than half of max_seconds 4"):
        ClipSettings(max_seconds=4, overlap_s=3)
