"""A scheduler that takes the machine away says so with SIGTERM: the step is finished and a checkpoint written."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from pipeline.errors import KinecloudError


class Stopped(KinecloudError):
    """Training was asked to stop and can go on from where it is; exit code 143 as of a process ended by SIGTERM."""

    exit_code = 128 + signal.SIGTERM


class StopRequest:
    """Notes SIGTERM while it is entered; outside the main thread, where Python allows no handlers, it notes nothing."""

    def __init__(self) -> None:
        self.received = False
        self._before: Any = None

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = True
