"""Worker processes: results arrive, errors stay in their task, hanging and crashing items are named and passed over."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from pipeline.workers import run_tasks


@dataclass(frozen=True)
class Job:
    name: str
    items: tuple[str, ...]


def make_handler() -> Callable[..., Any]:
    def handle(job: Job, skip: dict[str, str], begin: Callable[[str], None]) -> list[str]:
        done = []
        for item in job.items:
            if item in skip:
                done.append(f"{item} skipped ({skip[item].split(':')[0]})")
                continue
            begin(item)
            if item == "hang":
                threading.Event().wait()
            if item == "crash":
                os._exit(7)
            if item == "bug":
                raise RuntimeError("a bug")
            done.append(item)
        return done

    return handle


def broken_handler() -> Callable[..., Any]:
    raise ImportError("no such library")


def collect(
    jobs: list[Job], workers: int, make: Callable[[], Any] = make_handler
) -> tuple[dict[str, Any], dict[str, str]]:
    done: dict[str, Any] = {}
    failed: dict[str, str] = {}
    run_tasks(
        jobs,
        make,
        workers,
        item_timeout_s=1.0,
        on_done=lambda job, result: done.__setitem__(job.name, result),
        on_failed=lambda job, error: failed.__setitem__(job.name, error),
    )
    return done, failed


def test_hang_crash_and_bug_cost_only_what_they_touch() -> None:
    jobs = [
        Job("plain", ("a", "b")),
        Job("mixed", ("c", "hang", "d", "crash", "e")),
        Job("buggy", ("bug",)),
        Job("last", ("f",)),
    ]
    done, failed = collect(jobs, workers=2)
    assert done["plain"] == ["a", "b"]
    assert done["mixed"] == ["c", "hang skipped (timeout)", "d", "crash skipped (crashed)", "e"]
    assert done["last"] == ["f"]
    assert list(failed) == ["buggy"] and "a bug" in failed["buggy"]


def dying_handler() -> Callable[..., Any]:
    def handle(job: Job, skip: dict[str, str], begin: Callable[[str], None]) -> list[str]:
        begin("a")
        threading.Timer(0.05, os._exit, (9,)).start()  # when the result has been sent and nothing is to do
        return ["a"]

    return handle


def test_a_worker_that_dies_with_nothing_to_do_costs_nothing() -> None:
    done: dict[str, Any] = {}
    failed: dict[str, str] = {}

    def keep(job: Job, result: Any) -> None:
        done[job.name] = result
        time.sleep(0.5)  # the other worker is dead by the time it is given the next task

    run_tasks([Job(str(n), ("a",)) for n in range(4)], dying_handler, 1, 5.0, keep, failed.__setitem__)
    assert sorted(done) == ["0", "1", "2", "3"] and not failed


def slow_handler() -> Callable[..., Any]:
    def handle(job: Job, skip: dict[str, str], begin: Callable[[str], None]) -> list[str]:
        begin("slow")
        time.sleep(1.5)
        return [f"{item} skipped" if item in skip else item for item in job.items]

    return handle


def test_items_do_not_time_out_while_everything_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    real, ahead = time.monotonic, [0.0]
    monkeypatch.setattr("pipeline.workers.time.monotonic", lambda: real() + ahead[0])
    threading.Timer(0.8, lambda: ahead.__setitem__(0, 3600.0)).start()  # as after Ctrl-Z and an hour
    done: dict[str, Any] = {}
    run_tasks([Job("one", ("slow",))], slow_handler, -1, 20.0, lambda job, result: done.update({job.name: result}),
              lambda job, error: pytest.fail(error))  # fmt: skip
    assert done == {"one": ["slow"]}


def test_a_worker_that_cannot_start_fails_its_tasks() -> None:
    done, failed = collect([Job("one", ("a",))], workers=1, make=broken_handler)
    assert not done
    assert "no such library" in failed["one"]
