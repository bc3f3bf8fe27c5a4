"""A generator that works ahead gives what the plain one gives, stops when told and never runs away."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from pipeline.ahead import ahead


def test_order_and_values_are_kept_through_several_stages() -> None:
    doubled = (2 * value for value in ahead(range(100), 3))
    assert list(ahead(doubled, 5)) == [2 * value for value in range(100)]


def test_an_error_comes_where_its_item_would_have_come() -> None:
    def broken() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("frame 3 is broken")

    seen = []
    with pytest.raises(ValueError, match="frame 3 is broken"):
        for value in ahead(broken(), 8):
            seen.append(value)
    assert seen == [1, 2]


def test_it_runs_no_further_ahead_than_allowed() -> None:
    made = []

    def counting() -> Iterator[int]:
        for number in range(50):
            made.append(number)
            yield number

    items = ahead(counting(), 4)
    assert next(items) == 0
    time.sleep(0.2)
    assert len(made) <= 7  # one read, four waiting, one in hand, one being made
    items.close()
    assert len(made) <= 8


def test_closing_ends_the_thread_and_the_source() -> None:
    ended = []

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            ended.append(True)

    before = threading.active_count()
    items = ahead(endless(), 2)
    next(items)
    items.close()
    assert ended == [True]
    assert threading.active_count() == before
