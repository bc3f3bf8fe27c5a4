"""Clouds shared out among threads: each has a stretch of them, and all meet once, at the end.

Torch's own threads meet after every operation. On a processor that others use too (loader workers, say) each meeting
waits for the slowest: with two threads and one other busy process a search by differences took 1.3 to 2 times as long
as with one thread, and now and then a hundred times. Here a thread runs its operations alone. They release the
interpreter lock while they compute.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch


def stretches(count: int, least: int = 1) -> list[slice]:
    """0..count in equal parts: as many as torch may use threads, unless parts would be shorter than ``least``."""
    parts = max(1, min(torch.get_num_threads(), count // max(1, least)))
    return [slice(count * part // parts, count * (part + 1) // parts) for part in range(parts)]


def share_out(work: Callable[[int], None], parts: int) -> None:
    """Calls work(0), ..., work(parts - 1), each in a thread of its own and without gradients.

    What ``work`` raises is raised here.
    """
    if parts == 1:
        with alone():
            work(0)
        return
    for done in [_pool(parts).submit(work, part) for part in range(parts)]:
        done.result()


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Torch uses one thread for what this thread does, and for threads that torch first sees meanwhile."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_num_threads(threads)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads in which torch runs alone."""
    before = torch.get_num_threads()
    ready = threading.Barrier(threads + 1)

    def start() -> None:
        torch.get_num_threads()  # the first call takes over the number of the others, so it has to come first
        torch.set_num_threads(1)
        torch.set_grad_enabled(False)
        ready.wait()

    pool = ThreadPoolExecutor(threads, thread_name_prefix="chamfer", initializer=start)
    for _ in range(threads):
        pool.submit(int)
    ready.wait()
    torch.set_num_threads(before)  # for threads that torch has not seen yet
    return pool


if hasattr(os, "register_at_fork"):  # a forked process, a loader worker say, has none of these threads
    os.register_at_fork(after_in_child=_pool.cache_clear)
