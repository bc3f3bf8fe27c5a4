"""Large batches shared out among threads; small ones alone in the calling one.

Torch's own threads meet after every operation of 32,768 elements or more. On a processor that others use too (loader
workers, say) each meeting waits for the slowest: with two threads and one other busy process a search by differences
took 1.3 to 2 times as long as with one thread, and with both cores busy a single meeting took up to 120 ms. So torch
runs alone here, and only what takes many milliseconds is shared out, in parts of which a thread takes one after the
other. The calling thread waits for nobody: what others have begun and not finished when it is through, it does itself.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

Result = TypeVar("Result")


def share_out(work: Callable[[int, int], Result], parts: int, threads: int) -> list[Result]:
    """work(part, thread) for all parts, by this thread (0) and others (1 to threads - 1), without gradients.

    A part may be done twice, so ``work`` returns its result and writes to nothing but what belongs to its thread. What
    it raises is raised here.
    """
    results: dict[int, Result] = {}
    parts_left = itertools.count()  # next() is atomic

    def take(thread: int) -> None:
        while (part := next(parts_left)) < parts:
            results[part] = work(part, thread)

    for thread in range(1, min(threads, parts)):
        _pool(threads).submit(take, thread)
    with alone():
        take(0)
        return [results[part] if part in results else work(part, 0) for part in range(parts)]


@contextlib.contextmanager
def alone(device: torch.device | None = None) -> Iterator[None]:
    """Torch uses one thread for what this thread does, and for threads that it first sees meanwhile; no gradients.

    device: where the tensors are; nothing is to be done where it is not the CPU.
    """
    threads = torch.get_num_threads()
    if threads > 1 and (device is None or device.type == "cpu"):
        torch.set_num_threads(1)
    try:
        with torch.no_grad():
            yield
    finally:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """All threads but the calling one; torch runs alone in each."""
    before = torch.get_num_threads()
    ready = threading.Barrier(threads)

    def start() -> None:
        torch.get_num_threads()  # the first call takes over the number of the others, so it has to come first
        torch.set_num_threads(1)
        torch.set_grad_enabled(False)
        ready.wait()

    pool = ThreadPoolExecutor(threads - 1, thread_name_prefix="chamfer", initializer=start)
    for _ in range(threads - 1):
        pool.submit(int)
    ready.wait()
    torch.set_num_threads(before)  # for threads that torch has not seen yet
    return pool


if hasattr(os, "register_at_fork"):  # a forked process, a loader worker say, has none of these threads
    os.register_at_fork(after_in_child=_pool.cache_clear)
