"""What buckets, hubs and servers answer about their files: what is there, what it is, and the files themselves.

fsspec speaks to them. Credentials and endpoints come from the environment, as each service's own tools take them.
"""

from __future__ import annotations

import errno
import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from pipeline.cache import FULL, Alive, copies
from pipeline.errors import KinecloudError, UserError

WAITS_S = (0.5, 2.0, 8.0)  # before asking a service again that could not be reached
PATIENCE_S = 120.0  # after which it is not asked again; the packages for services try several times themselves
QUIET_S = 60.0  # a server that sends nothing for so long is not waited for
CHANGES = 3  # of a file while it is being fetched, after which it is given up
ABSENT = "there is no such file or folder"
# What tells contents apart, the first that a service gives: a checksum where there is one, else a time.
CHECKSUMS = ("ETag", "etag", "blob_id", "xet_hash", "md5Hash", "Content-MD5", "Digest", "generation")
TIMES = ("LastModified", "last_modified", "Last-Modified", "updated", "mtime", "modified", "created")
CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, for public buckets FSSPEC_S3='{\"anon\": true}'",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "hf": "HF_TOKEN",
}
PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs", "hf": "huggingface_hub"}
PACKAGES |= dict.fromkeys(("http", "https"), "aiohttp") | dict.fromkeys(("sftp", "ssh"), "paramiko")
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")
_PASSWORD = re.compile(r"(?<=://)[^/@\s]*:[^/@\s]*@|(?<=https://)[^/@\s]+@|(?<=http://)[^/@\s]+@")  # a token, too
_QUERY = re.compile(r"(://[^\s'\"?]*\?)[^\s'\"]+")
_REFUSED = {401: PermissionError, 403: PermissionError, 404: FileNotFoundError, 410: FileNotFoundError}
_Answer = TypeVar("_Answer")


class Unreachable(KinecloudError):
    """A service that does not answer. What it would have answered is not known, so nothing is rejected for it."""

    exit_code = 2


class RemoteFolder(UserError, IsADirectoryError):
    """A folder elsewhere, where all of it would have to be here."""


def has_secret(url: str) -> bool:
    """Whether a password or a signature is part of it."""
    return bool(_PASSWORD.search(url) or (url.lower().startswith("http") and _QUERY.search(url)))


def masked(text: str) -> str:
    """A message without the passwords and signatures of URLs in it."""
    return _QUERY.sub(r"\1***", _PASSWORD.sub("***@", text))


@dataclass(frozen=True)
class Seen:
    """What a service tells. size: bytes; 0 of a folder, and where it is not told. tag: differs where contents do."""

    folder: bool
    size: int = 0
    tag: str = ""
    sha256: str | None = None


@lru_cache
def service(scheme: str) -> Service:
    return Service(scheme)


@lru_cache(1)
def schemes() -> frozenset[str]:
    import fsspec

    return frozenset(fsspec.available_protocols())


class Service:
    """One kind of place, as this process has seen it so far."""

    def __init__(self, scheme: str):
        self.scheme, self.fs = scheme, _file_system(scheme)
        self._seen: dict[str, Seen] = {}
        self._listed: dict[str, dict[str, Path]] = {}  # files by URL, by the URL of the folder above them all
        self._folders: dict[str, set[str]] = {}  # of those files, by the same

    def forget(self, folder: Path) -> None:
        for known in (self._seen, self._listed, self._folders):
            for url in [url for url in known if f"{url}/".startswith(f"{folder}/")]:
                del known[url]

    def below(self, folder: Path) -> list[Path]:
        """All files below a folder, in order. One listing serves all that lies below its folder."""
        above = self._listing_above(f"{folder}/")
        if above is None:
            above = str(folder)
            self._list(folder)
        files = self._listed[above].items()
        return [path for url, path in files if url.startswith(f"{folder}/")]

    def _listing_above(self, url: str) -> str | None:
        return next((root for root in self._listed if url.startswith(f"{root}/")), None)

    def _list(self, folder: Path) -> None:
        root = self._root(folder)

        def find() -> dict[str, dict[str, Any]]:
            self.fs.invalidate_cache()
            return self.fs.find(root, detail=True)

        files: dict[str, Path] = {}
        for name, info in self._asked(folder, find).items():
            if name.startswith(f"{root}/") and not name.endswith("/"):  # which marks a folder
                path = folder / name[len(root) :].lstrip("/")
                files[str(path)] = path
                if info.get("size") is not None and (seen := _seen(info)).tag:
                    self._seen[str(path)] = seen
        self._listed[str(folder)] = dict(sorted(files.items(), key=lambda pair: pair[1]))
        self._folders[str(folder)] = {str(parent) for path in files.values() for parent in path.parents}

    def _root(self, folder: Path) -> str:
        """The folder's name as names of files in listings begin."""
        if self.scheme == "hf":
            return self._asked(folder, lambda: self.fs.resolve_path(str(folder)).unresolve())
        return self.fs._strip_protocol(str(folder)).rstrip("/")

    def look(self, path: Path) -> Seen:
        """What a file or folder is, as far as known without asking."""
        url = str(path)
        if url not in self._seen:
            root = self._listing_above(url)
            if root is not None and url not in self._listed[root]:
                if url not in self._folders[root]:
                    raise FileNotFoundError(errno.ENOENT, ABSENT, url)
                return Seen(folder=True)
            self._ask(path)
        return self._seen[url]

    def _ask(self, path: Path) -> Seen:
        def info() -> dict[str, Any]:
            self.fs.invalidate_cache(str(path))
            return self.fs.info(str(path))

        found = self._seen[str(path)] = _seen(self._asked(path, info))
        return found

    def copied(self, path: Path, alive: Alive | None) -> Path:
        """The local copy of what is there now, unless one of what was there before is here still."""
        url, kept = str(path), copies()
        for _ in range(CHANGES):
            fresh = url not in self._seen
            seen = self.look(path)
            if seen.folder:
                raise RemoteFolder(
                    errno.EISDIR, "is a folder elsewhere, single files are read there; name a local one", url
                )
            suffix = _SUFFIX.fullmatch(path.suffix)
            digest = hashlib.sha256(f"{url}\n{seen.size}\n{seen.tag}".encode()).hexdigest()
            name = kept.name(digest[:40], seen.size, suffix[0] if suffix else "")
            if (copy := kept.held(name)) is not None:
                return copy
            if not fresh and self._ask(path) != seen:
                continue
            try:
                kept.make(name, seen.size, lambda part, seen=seen: self._fetch(path, seen, part), alive)
            except _Changed:
                continue
            if (copy := kept.held(name)) is not None:
                return copy
        raise OSError(errno.EBUSY, "changes while it is being fetched", url)

    def _fetch(self, path: Path, seen: Seen, part: Path) -> None:
        def fetch() -> None:
            self.fs.get_file(str(path), str(part))
            size = part.stat().st_size
            if seen.size and size != seen.size and self.fs.info(str(path)).get("size") == seen.size:
                raise ConnectionError(f"{size} of {seen.size} bytes came")

        self._asked(path, fetch)
        if self._ask(path) != seen:
            raise _Changed

    def _asked(self, path: Path, ask: Callable[[], _Answer]) -> _Answer:
        """What a service answers, asked several times where it does not."""
        begun = time.monotonic()
        for wait_s in (*WAITS_S, None):
            try:
                return ask()
            except Exception as error:
                refusal = _refusal(error, path, self.scheme)
                if refusal is not None:
                    raise refusal from None
                if wait_s is None or time.monotonic() - begun > PATIENCE_S:
                    reason = masked(" ".join(f"{type(error).__name__}: {error}".split())[:300])
                    raise Unreachable(
                        f"{path}: not to be reached ({reason}). Look at the network, and at what the environment says "
                        "of the service; then run the same command again."
                    ) from None
                time.sleep(wait_s)
        raise AssertionError


class _Changed(Exception):
    """A file is another one than when its fetching began."""


def _seen(info: dict[str, Any]) -> Seen:
    if info.get("type") == "directory" or info.get("mimetype") == "text/html":  # servers tell folders as pages
        return Seen(folder=True)
    tag = next((str(info[name]) for name in (*CHECKSUMS, *TIMES) if info.get(name)), "")
    large = info.get("lfs")  # of the hub
    return Seen(False, int(info.get("size") or 0), tag, getattr(large, "sha256", None))


def _refusal(error: Exception, path: Path, scheme: str) -> Exception | None:
    """What an answer that is final becomes; None where asking again may help."""
    if isinstance(error, KinecloudError):
        return error
    if isinstance(error, OSError) and error.errno in FULL:
        return error
    status = getattr(error, "status", None) or getattr(getattr(error, "response", None), "status_code", None)
    kind = _REFUSED.get(status) if isinstance(status, int) else None
    if isinstance(error, FileNotFoundError) or kind is FileNotFoundError:
        told = masked(str(error))
        return FileNotFoundError(errno.ENOENT, told if "bucket" in told.lower() else ABSENT, str(path))
    if isinstance(error, PermissionError) or kind or type(error).__name__ in ("NoCredentialsError", "ProfileNotFound"):
        remedy = CREDENTIALS.get(scheme, "what fsspec reads for it")
        told = f"access refused ({masked(str(error))[:200]}); credentials come from the environment: {remedy}"
        return PermissionError(errno.EACCES, told, str(path))
    return None


@lru_cache
def _file_system(scheme: str) -> Any:
    import fsspec

    options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    try:
        if scheme in ("http", "https"):
            import aiohttp

            options["client_kwargs"] = {"timeout": aiohttp.ClientTimeout(total=None, sock_read=QUIET_S)}
        return fsspec.filesystem(scheme, **options)
    except ImportError as error:
        raise UserError(f"{scheme}://: {error} (pip install {PACKAGES.get(scheme, scheme)}).") from None
