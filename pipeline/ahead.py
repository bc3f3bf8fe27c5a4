"""Working ahead: a generator that runs in a thread of its own, a bounded number of items before its reader.

Chained, decoding, inference and what follows overlap: native code and GPUs work while the interpreter does something
else. Order, values and exceptions are those of the plain generator.
"""

from __future__ import annotations

import atexit
import contextlib
import queue
import threading
from collections.abc import Generator, Iterable
from typing import Any, TypeVar

Item = TypeVar("Item")


def ahead(items: Iterable[Item], size: int) -> Generator[Item, None, None]:
    """Yields ``items``, of which up to ``size`` are made before they are asked for.

    An exception in ``items`` is raised where its item would have come. Closing this generator, or leaving it unread,
    stops the thread after the item that it is making.
    """
    made: queue.Queue[tuple[str, Any]] = queue.Queue(max(size, 1))
    stopped = threading.Event()

    def put(kind: str, value: Any) -> bool:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                made.put((kind, value), timeout=0.1)
                return True
        return False

    def work() -> None:
        source = iter(items)
        try:
            for item in source:
                if not put("item", item):
                    break
            put("end", None)
        except BaseException as error:
            put("error", error)
        finally:
            if isinstance(source, Generator):
                source.close()

    thread = threading.Thread(target=work, daemon=True, name="ahead")

    def stop() -> None:
        stopped.set()
        thread.join()

    thread.start()
    atexit.register(stop)  # native code in a thread that the interpreter's end cuts off aborts the process
    try:
        while True:
            kind, value = made.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
    finally:
        atexit.unregister(stop)
        stop()
