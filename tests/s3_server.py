"""An S3 server in a process of its own, and a wire to it that can be cut: what remote storage is tested against."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import s3fs

BUCKET = "lab"


class Server:
    """moto's server. Its log counts the requests."""

    def __init__(self, log: Path):
        self._log, self._read = log, 0
        self.port = _free_port()
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        with log.open("wb") as out:
            self._process = subprocess.Popen(command, stdout=out, stderr=out)
        until = time.monotonic() + 60
        while time.monotonic() < until and self._process.poll() is None:
            with suppress(OSError):
                urllib.request.urlopen(f"{self.url}/moto-api/").close()
                return
            time.sleep(0.05)
        raise AssertionError(f"the server did not start: {log.read_text()}")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @cached_property
    def client(self) -> Any:
        """Of the tests themselves, to put files there."""
        return s3fs.S3FileSystem(endpoint_url=self.url, key="tester", secret="x", skip_instance_cache=True)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def ask_for_credentials(self, wanted: bool) -> None:
        body = b"0" if wanted else b"inf"
        text = {"Content-Type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/moto-api/reset-auth", body, text)).close()

    def requests(self) -> list[tuple[str, str]]:
        """Method and key of what was asked since the last call; listings have no key."""
        lines = self._log.read_text().splitlines()
        new, self._read = lines[self._read :], len(lines)
        found = (re.search(r'"(?:\x1b\[\d+m)*([A-Z]+) /' + BUCKET + r"(?:/([^ ?]*))?[ ?]", line) for line in new)
        return [(match[1], match[2] or "") for match in found if match]

    def downloads(self) -> list[str]:
        """Keys of the objects that were sent since the last call."""
        return [key for method, key in self.requests() if method == "GET" and key]


class Wire:
    """Passes bytes on to a server. After ``allow`` bytes of answers it is cut, as often as ``cuts`` says, or holds
    them back for good."""

    def __init__(self, port: int, allow: int, cuts: int | None = None):
        self._port, self._left, self._allow, self._cuts = port, allow, allow, cuts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for one in [self._listener, *self._open]:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, far = self._listener.accept()[0], socket.create_connection(("127.0.0.1", self._port))
                self._open += [near, far]
                for one, other, counted in ((near, far, False), (far, near, True)):
                    threading.Thread(target=self._pass, args=(one, other, counted), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket, counted: bool) -> None:
        with suppress(OSError):
            while data := one.recv(4096):
                if counted and self._cuts != 0:
                    data = data[: self._left]
                    self._left -= len(data)
                other.sendall(data)
                if counted and not self._left:
                    if self._cuts is None:
                        return  # both ends stay open
                    self._cuts, self._left = self._cuts - 1, self._allow
                    break
            one.close()
            other.shutdown(socket.SHUT_RDWR)
            other.close()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
