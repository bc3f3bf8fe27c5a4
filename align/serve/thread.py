"""One thread that all requests pass through, with a short queue before it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Busy(Exception):
    """As many requests are waiting as may wait."""


class ModelThread:
    """Runs calls one after another. Requests beyond ``waiting`` are turned away at once: memory does not grow."""

    def __init__(self, waiting: int):
        self._places = threading.Semaphore(waiting + 1)
        self._executor = ThreadPoolExecutor(1, "model")

    async def run(self, call: Callable[[], T]) -> T:
        """What ``call`` returns or raises. Raises Busy at once when there is no place to wait."""
        if not self._places.acquire(blocking=False):
            raise Busy

        def called() -> T:
            try:
                return call()
            finally:
                self._places.release()

        return await asyncio.get_running_loop().run_in_executor(self._executor, called)

    def close(self) -> None:
        """Does not wait for a call that is running."""
        self._executor.shutdown(wait=False, cancel_futures=True)
