"""A websocket server that speaks the protocol of openpi's client.

    client connects       -> server: one message, the metadata
    client: observation   -> server: one message with ``actions``, or one text frame that says what was wrong

Messages are as in ``codec.py``; GET /healthz answers 200. Everything is bounded: clients, requests that wait, the size
of a message, and the time in which an answer has to be taken.
"""

from __future__ import annotations

import asyncio
import hmac
import http
import logging
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request, Response
from websockets.protocol import State

from align.serve.codec import pack, unpack
from align.serve.metadata import metadata_of
from align.serve.rejected import Rejected, problem
from align.serve.served import Served, Session
from align.serve.thread import Busy, ModelThread
from pipeline.errors import UserError

SEND_S = 10.0  # a client that does not take its answer for so long is cut off
GRACE_S = 10.0  # for the answers that are under way when the server is stopped


@dataclass(frozen=True)
class Terms:
    """How a server serves. port: 0 = any free one. token: None = asked of nobody. waiting: requests that may wait for
    the model. clients: connections at a time. message_bytes: of one message."""

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    waiting: int = 16
    clients: int = 64
    message_bytes: int = 32 * 2**20


def serve_until_stopped(served: Served, terms: Terms) -> None:
    """Serves in the foreground, until SIGTERM or SIGINT. Raises UserError when the address cannot be had."""

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        host = f"[{terms.host}]" if ":" in terms.host else terms.host
        await PolicyServer(served, terms).run(stop, lambda port: _say(f"ws://{host}:{port}"))
        _say("stopped")

    asyncio.run(run())


class PolicyServer:
    """Serves one policy until it is told to stop."""

    def __init__(self, served: Served, terms: Terms):
        self._served, self._terms = served, terms
        self._metadata = pack(metadata_of(served, terms.message_bytes, terms.waiting))
        self._model = ModelThread(terms.waiting)
        self._stopping = False
        self.clients: set[ServerConnection] = set()
        self._listening: set[ServerConnection] = set()  # those whose client is to speak next

    async def run(self, stop: asyncio.Event, ready: Callable[[int], None] = lambda port: None) -> None:
        """Serves until ``stop``; then answers what was asked before, and closes. ready: told the port.

        Raises UserError when the address cannot be had.
        """
        logging.getLogger("websockets.server").setLevel(logging.CRITICAL)  # every stray probe is no news
        terms = self._terms
        try:
            server = await serve(
                self._serve, terms.host, terms.port, compression=None, max_size=terms.message_bytes, max_queue=1,
                origins=[None], process_request=self._let_in, server_header=None,
            )  # fmt: skip
        except (OSError, OverflowError, UnicodeError) as error:
            raise UserError(
                f"serve: {terms.host}:{terms.port} cannot be listened on ({error}); name another --host or --port"
            ) from None
        try:
            ready(next(iter(server.sockets)).getsockname()[1])
            await stop.wait()
        finally:
            self._stopping = True
            server.close(close_connections=False)
            goodbyes = [self._say_goodbye(client) for client in self._listening]
            try:
                async with asyncio.timeout(GRACE_S):
                    await asyncio.gather(*goodbyes)
                    await server.wait_closed()
            except TimeoutError:
                for client in list(self.clients):
                    client.transport.abort()
            self._model.close()

    def _let_in(self, connection: ServerConnection, request: Request) -> Response | None:
        """An HTTP answer to what does not become a connection."""
        if request.path == "/healthz":
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        token, given = self._terms.token, request.headers.get_all("Authorization")
        if token is not None and not (len(given) == 1 and _same(given[0], f"Api-Key {token}")):
            refusal = connection.respond(
                http.HTTPStatus.UNAUTHORIZED, "This server asks for the header `Authorization: Api-Key TOKEN`.\n"
            )
            refusal.headers["WWW-Authenticate"] = "Api-Key"
            return refusal
        if len(self.clients) >= self._terms.clients:
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "All connections are taken; try later.\n")
        return None

    async def _serve(self, client: ServerConnection) -> None:
        """One connection, from the metadata to its end."""
        self.clients.add(client)
        told: Counter[str] = Counter()
        try:
            await self._converse(client, told)
        except ConnectionClosed:
            pass
        except Exception:
            traceback.print_exc()
            await _send(client, "internal error: the server's log tells more. The connection is closed.")
            await client.close(CloseCode.INTERNAL_ERROR)
        finally:
            self.clients.discard(client)
            _say(f"{_name(client)} left: {told['answered']} answered, {told['rejected']} rejected")

    async def _converse(self, client: ServerConnection, told: Counter[str]) -> None:
        session, previous = self._served.begin(), None
        await _send(client, self._metadata)
        while not self._stopping:
            answer, began = await self._next(client, session, previous)
            told["rejected" if isinstance(answer, str) else "answered"] += 1
            await _send(client, answer)
            previous = time.monotonic() - began
        await self._say_goodbye(client)

    async def _next(
        self, client: ServerConnection, session: Session, previous: float | None
    ) -> tuple[str | bytes, float]:
        """The answer to the next message, and when that came. Whatever large it held is gone when this returns."""
        self._listening.add(client)
        try:
            message = await client.recv()
        finally:
            self._listening.discard(client)
        began = time.monotonic()
        try:
            return await self._model.run(partial(_answer, session, message, client, began, previous)), began
        except Rejected as rejected:
            return str(rejected), began
        except Busy:
            return f"busy: {self._terms.waiting} requests are waiting for the model. Try again later.", began

    async def _say_goodbye(self, client: ServerConnection) -> None:
        await client.close(CloseCode.GOING_AWAY, "the server is stopping")


def _answer(
    session: Session, message: str | bytes, client: ServerConnection, asked: float, previous: float | None
) -> bytes:
    """Runs in the model's thread. asked: when, monotonic seconds; previous: seconds that the answer before took."""
    if client.state is not State.OPEN:
        return b""  # nobody is waiting any more
    if isinstance(message, str):
        raise Rejected(
            problem("message", "a text frame", "a binary frame with msgpack", "Send what openpi-client's Packer gives.")
        )
    began = time.monotonic()
    answer: dict[str, Any] = session.answer(unpack(message))
    timing = {"wait_ms": 1000 * (began - asked), "infer_ms": 1000 * (time.monotonic() - began)}
    if previous is not None:
        timing["prev_total_ms"] = 1000 * previous
    return pack({**answer, "server_timing": timing})


async def _send(client: ServerConnection, message: str | bytes) -> None:
    """Cuts a client off that does not take it; the next call on the connection then raises ConnectionClosed."""
    try:
        async with asyncio.timeout(SEND_S):
            await client.send(message)
    except TimeoutError:
        _say(f"{_name(client)} did not take its answer within {SEND_S:g} s and is cut off")
        client.transport.abort()


def _same(given: str, wanted: str) -> bool:
    """Whether two secrets are equal, in a time that does not depend on where they differ."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), wanted.encode())


def _name(client: ServerConnection) -> str:
    return ":".join(str(part) for part in client.remote_address[:2])


def _say(message: str) -> None:
    print(f"[serve] {message}", flush=True)
