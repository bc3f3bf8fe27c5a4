"""A server that answers what huggingface_hub's file system asks the hub for one data set, over the files of a folder.

Written after that client, so it shows that the client is used well and nothing of the hub itself.
"""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

SET, COMMIT = "team/set", "1" * 40
LARGE = (".mp4", ".parquet")  # what the hub keeps aside, with its SHA-256


class Hub:
    """sent: paths of the files that were downloaded."""

    def __init__(self, folder: Path):
        self.folder, self.sent = folder, []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def told(self, path: Path) -> dict[str, Any]:
        name = path.relative_to(self.folder).as_posix()
        if path.is_dir():
            return {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}
        content = path.read_bytes()
        found = {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
        if path.suffix in LARGE:
            found["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        return found


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_GET(self) -> None:
        parts, api = urlsplit(unquote(self.path)), f"/api/datasets/{SET}"
        if parts.path.startswith(f"{api}/tree/main"):
            top = self.hub.folder / parts.path.removeprefix(f"{api}/tree/main").strip("/")
            deep = parse_qs(parts.query).get("recursive") == ["true"]
            if not top.is_dir():
                return self._say(404, {"error": "no such entry"}, {"X-Error-Code": "EntryNotFound"})
            return self._say(200, [self.hub.told(path) for path in sorted(top.rglob("*") if deep else top.iterdir())])
        if parts.path in (api, f"{api}/revision/main"):
            return self._say(200, {"id": SET, "sha": COMMIT, "private": False, "tags": [], "siblings": []})
        path = self.hub.folder / parts.path.removeprefix(f"/datasets/{SET}/resolve/main/")
        if not parts.path.startswith(f"/datasets/{SET}/resolve/") or not path.is_file():
            return self._say(404, {"error": "not here"}, {"X-Error-Code": "RepoNotFound"})
        if self.command == "GET":
            self.hub.sent.append(path.name)
        self._send(200, path.read_bytes(), {"ETag": f'"{self.hub.told(path)["oid"]}"', "X-Repo-Commit": COMMIT})

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        wanted = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body)["paths"]
        self._say(200, [self.hub.told(self.hub.folder / name) for name in wanted if (self.hub.folder / name).exists()])

    def _say(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(content).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        start, stop = 0, len(content)
        if told := self.headers.get("Range"):
            first, last = told.removeprefix("bytes=").split("-")
            start, stop, status = int(first), min(stop, int(last or stop) + 1), 206
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(stop - start)}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[start:stop])

    def log_message(self, *_: Any) -> None:
        return
