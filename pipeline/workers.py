"""Worker processes that survive what native decoders do: hang, crash and leak.

Tasks go to spawned children over pipes. A child announces each item before it starts it; when an item outlasts the
limit, or the child dies on it, the child is replaced and the task is given out again with that item to be skipped.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LP_NUM_THREADS")
POLL_S = 0.2
STOPPED_S = 5.0  # what is longer away has been stopped: no turn of the loop takes so long
TASKS_PER_CHILD = 64  # a child is replaced after this many tasks, so that leaks of native libraries stay bounded


class Task(Protocol):
    """Anything picklable with a name and a list of items."""

    @property
    def name(self) -> str: ...


Handler = Callable[[Any, dict[str, str], Callable[[str], None]], Any]
"""handler(task, skip, begin) -> result. ``skip`` maps items to the reason why they must not be tried again;
``begin(item)`` is called before each item."""


@dataclass
class _Child:
    process: Any
    pipe: Connection
    item: str | None = None
    item_started: float = 0.0
    tasks_done: int = 0


@dataclass
class _Job:
    task: Any
    skip: dict[str, str] = field(default_factory=dict)


def run_tasks(
    tasks: Sequence[Any],
    make_handler: Callable[[], Handler],
    workers: int,
    item_timeout_s: float,
    on_done: Callable[[Any, Any], None],
    on_failed: Callable[[Any, str], None],
) -> None:
    """Runs every task in one of ``workers`` spawned processes.

    make_handler: picklable, called once per child. on_done(task, result) and on_failed(task, traceback text) are called
    in this process as results arrive, in no fixed order.
    """
    workers = max(workers, 1)
    queue = deque(_Job(task) for task in tasks)
    children: list[_Child] = []
    running: dict[int, _Job] = {}
    turned = time.monotonic()
    try:
        while queue or running:
            while queue and len(running) < workers:
                child = _idle(children, running) or _start(children, make_handler)
                child.item, child.item_started = None, time.monotonic()
                running[id(child)] = job = queue.popleft()
                with contextlib.suppress(OSError):  # it has just died, as its end of the pipe will say
                    child.pipe.send((job.task, job.skip))
            busy = [child for child in children if id(child) in running]
            ready = wait([child.pipe for child in busy], timeout=POLL_S)
            before, turned = turned, time.monotonic()
            if turned - before > STOPPED_S:  # this process was stopped, and the children with it
                for child in busy:
                    child.item_started += turned - before
            for child in busy:
                if child.pipe in ready:
                    _receive(child, children, running, queue, on_done, on_failed)
                elif child.item is not None and time.monotonic() - child.item_started > item_timeout_s:
                    _give_up_on_item(
                        child, children, running, queue, f"timeout: longer than {item_timeout_s:g} s", on_failed
                    )
    finally:
        for child in children:
            _stop(child)


def _idle(children: list[_Child], running: dict[int, _Job]) -> _Child | None:
    for child in list(children):
        if id(child) in running:
            continue
        if child.tasks_done < TASKS_PER_CHILD and child.process.is_alive():
            return child
        children.remove(child)
        _stop(child)
    return None


def _start(children: list[_Child], make_handler: Callable[[], Handler]) -> _Child:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, make_handler, os.getpid()), daemon=True)
    with _single_threaded_libraries():
        process.start()
    theirs.close()
    child = _Child(process, ours)
    children.append(child)
    return child


@contextlib.contextmanager
def _single_threaded_libraries() -> Iterator[None]:
    """Children started inside use one thread per numerical library: here parallelism comes from processes."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _receive(
    child: _Child,
    children: list[_Child],
    running: dict[int, _Job],
    queue: deque[_Job],
    on_done: Callable[[Any, Any], None],
    on_failed: Callable[[Any, str], None],
) -> None:
    try:
        kind, content = child.pipe.recv()
    except (EOFError, OSError):
        child.process.join(5)
        reason = f"crashed: the process handling it ended with exit code {child.process.exitcode}"
        _give_up_on_item(child, children, running, queue, reason, on_failed)
        return
    if kind == "begin":
        child.item, child.item_started = content, time.monotonic()
        return
    job = running.pop(id(child))
    child.tasks_done += 1
    child.item = None
    if kind == "done":
        on_done(job.task, content)
    else:
        on_failed(job.task, content)


def _give_up_on_item(
    child: _Child,
    children: list[_Child],
    running: dict[int, _Job],
    queue: deque[_Job],
    reason: str,
    on_failed: Callable[[Any, str], None],
) -> None:
    job = running.pop(id(child))
    children.remove(child)
    _stop(child)
    if child.item is None:
        on_failed(job.task, f"{reason}, before its first item")
    else:
        queue.appendleft(_Job(job.task, {**job.skip, child.item: reason}))


def _stop(child: _Child) -> None:
    child.pipe.close()
    if child.process.is_alive():
        child.process.kill()
    child.process.join()


def _serve(pipe: Connection, make_handler: Callable[[], Handler], parent: int) -> None:
    """The child's loop."""
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    try:
        handler = make_handler()
    except Exception:
        handler = None
        broken = traceback.format_exc()
    while True:
        try:
            task, skip = pipe.recv()
        except (EOFError, OSError):
            return
        if handler is None:
            pipe.send(("failed", broken))
            continue
        try:
            pipe.send(("done", handler(task, skip, lambda item: pipe.send(("begin", item)))))
        except Exception:
            pipe.send(("failed", traceback.format_exc()))


def _die_with(parent: int) -> None:
    """Ends this process when its parent is gone, even while native code runs."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
