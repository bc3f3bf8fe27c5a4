"""A stage as a process of its own that does not outlive the runner, and what it took."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import psutil

from pipeline.errors import UserError

PR_SET_PDEATHSIG = 1  # prctl(2)
_LIBC = ctypes.CDLL(None)


@dataclass(frozen=True)
class Outcome:
    """started: seconds since 1970."""

    exit_code: int
    seconds: float
    peak_memory_mb: float
    started: float


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[BinaryIO]:
    """Yields a lock that nobody else has while this process, or a child that is handed it, lives.

    Raises UserError when another has it. File systems without locks give none, and nobody is kept out.
    """
    with (folder / ".lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{folder}: another run is at work in this folder. Wait for it, stop it, or write elsewhere "
                "(--set run.out=...)."
            ) from None
        except OSError:
            pass
        yield lock


@contextlib.contextmanager
def one_at_a_time(folder: Path) -> Iterator[int]:
    """Waits until nobody else is in ``folder``, be it a thread or a process; yields the descriptor that holds it, for a
    child that is to hold it, too. File systems without locks make nobody wait."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def run_process(command: Sequence[str], lock: BinaryIO) -> Outcome:
    """Runs a command to its end. Whoever stops this process (SIGTERM, Ctrl-C, kill) stops the command, too, which
    keeps the ``lock`` until it has ended."""
    started = time.time()
    with _raising_on_sigterm():
        process = subprocess.Popen(command, preexec_fn=end_with_parent, pass_fds=[lock.fileno()])
        peak = _PeakMemory(process.pid)
        try:
            exit_code = process.wait()
        except KeyboardInterrupt:  # the command has had it, too
            process.wait()
            raise
        except _Terminated:
            process.terminate()
            process.wait()
            raise
        finally:
            peak.stop()
    return Outcome(exit_code, time.time() - started, peak.megabytes, started)


def end_with_parent() -> None:
    """Has the kernel send SIGTERM to this process, a child that is about to run its command, when its parent ends."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class _Terminated(SystemExit):
    """SIGTERM, as an exception."""


@contextlib.contextmanager
def _raising_on_sigterm() -> Iterator[None]:
    def end(number: int, frame: object) -> None:
        raise _Terminated(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _PeakMemory:
    """Largest memory of a process and all its descendants, sampled a few times per second."""

    def __init__(self, pid: int):
        self.megabytes = 0.0
        self._pid = pid
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.megabytes = max(self.megabytes, _memory_mb(self._pid))
            if self._stopped.wait(0.2):
                return


def _memory_mb(pid: int) -> float:
    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.Error:
        return 0.0
    total = 0
    for process in family:
        try:
            memory = process.memory_full_info()
            total += getattr(memory, "pss", memory.rss)  # shared pages count once where the system can tell
        except psutil.Error:
            continue
    return total / 2**20
