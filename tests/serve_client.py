"""A client of the policy server, written from the description of openpi's protocol alone, and a server to talk to."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgpack
import numpy as np
from websockets.sync.client import connect

from align.serve.served import Served
from align.serve.server import PolicyServer, Terms


class Refusal(Exception):
    """The text that came in the place of an answer."""


class Client:
    """One connection."""

    def __init__(self, port: int, token: str | None = None):
        headers = {"Authorization": f"Api-Key {token}"} if token else None
        url = f"ws://127.0.0.1:{port}"
        # as openpi's client connects; `legacy` only keeps websockets from warning of it
        self.socket = connect(url, compression=None, max_size=None, additional_headers=headers, proxy=None, legacy=True)
        self.metadata = unpacked(self.socket.recv(timeout=30))

    def ask(self, **observation: Any) -> dict[str, Any]:
        """The answer to an observation. Raises Refusal."""
        return self.say(packed(observation))

    def say(self, message: str | bytes) -> dict[str, Any]:
        """The answer to any message. Raises Refusal."""
        self.socket.send(message)
        return unpacked(self.socket.recv(timeout=30))

    def refusal(self, **observation: Any) -> str:
        """What the server says against an observation."""
        try:
            answer = self.ask(**observation)
        except Refusal as refusal:
            return str(refusal)
        raise AssertionError(f"it was answered: {sorted(answer)}")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def packed(document: Any) -> bytes:
    """msgpack with arrays as maps."""

    def convert(value: Any) -> dict[bytes, Any]:
        if isinstance(value, np.generic):
            return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
        return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}

    return msgpack.Packer(default=convert).pack(document)


def unpacked(message: str | bytes) -> dict[str, Any]:
    """Inverse of ``packed``. Raises Refusal for a text."""
    if isinstance(message, str):
        raise Refusal(message)

    def convert(value: dict[Any, Any]) -> Any:
        if b"__ndarray__" not in value:
            return value
        return np.frombuffer(value[b"data"], value[b"dtype"]).reshape(value[b"shape"])

    return msgpack.unpackb(message, object_hook=convert)


@contextmanager
def running(served: Served, terms: Terms = Terms(port=0)) -> Iterator[tuple[int, PolicyServer]]:  # noqa: B008
    """A server in a thread of this process: its port, and itself."""
    server, started, port = PolicyServer(served, terms), threading.Event(), 0
    loop, stop = asyncio.new_event_loop(), asyncio.Event()

    def ready(found: int) -> None:
        nonlocal port
        port = found
        started.set()

    thread = threading.Thread(target=lambda: loop.run_until_complete(server.run(stop, ready)))
    thread.start()
    try:
        assert started.wait(30)
        yield port, server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        assert not thread.is_alive()
        loop.close()


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Returns as soon as the condition holds; fails when it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        threading.Event().wait(0.005)
