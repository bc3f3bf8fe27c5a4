"""Files in buckets, on the Hugging Face hub and on servers, read as if they were here: whatever fsspec knows by URL.

A ``RemotePath`` is a path. Asking what it is asks the service; opening it brings the file into a folder of copies
(pipeline/cache.py) first. Credentials and endpoints come from the environment, as each service's own tools take them.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PosixPath, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import unquote

from pipeline.cache import FULL, GB, Alive, Cache
from pipeline.errors import KinecloudError, UserError

CACHE_GB = "KINECLOUD_CACHE_GB"
DEFAULT_GB = 20.0
WAITS_S = (0.5, 2.0, 8.0)  # before asking a service again that could not be reached
PATIENCE_S = 120.0  # after which it is not asked again; the packages for services try several times themselves
QUIET_S = 60.0  # a server that sends nothing for so long is not waited for
CHANGES = 3  # of a file while it is being fetched, after which it is given up
# What tells contents apart, the first that a service gives; a checksum where there is one.
TAGS = ("ETag", "etag", "blob_id", "md5Hash", "Content-MD5", "Digest", "generation", "LastModified", "last_modified")
TAGS += ("Last-Modified", "updated", "mtime", "modified", "created")
CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, for public buckets FSSPEC_S3='{\"anon\": true}'",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "hf": "HF_TOKEN",
}
PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs", "hf": "huggingface_hub"}
PACKAGES |= dict.fromkeys(("http", "https"), "aiohttp") | dict.fromkeys(("sftp", "ssh"), "paramiko")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://(.*)", re.DOTALL)
_COLLAPSED = re.compile(r"([a-z][a-z0-9+.\-]*):/")  # what pathlib makes of the beginning of a URL
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")
_PASSWORD, _QUERY = re.compile(r"(?<=://)[^/@\s]*:[^/@\s]*@"), re.compile(r"(://[^\s'\"?]*\?)[^\s'\"]+")
_REFUSED = {401: PermissionError, 403: PermissionError, 404: FileNotFoundError, 410: FileNotFoundError}
_Answer = TypeVar("_Answer")


class Unreachable(KinecloudError):
    """A service that does not answer. What it would have answered is not known, so nothing is rejected for it."""

    exit_code = 2


def place_of(text: str) -> Path:
    """The path that a setting means: a local one, or that of a URL; ``file://`` is a local one.

    Raises ValueError for a URL of an unknown kind, without a place in it, or with a secret in it.
    """
    found = _URL.fullmatch(text)
    if found is None:
        return Path(text)
    scheme, rest = found[1].lower(), found[2]
    if scheme in ("file", "local"):
        if not rest.startswith("/"):
            raise ValueError(f"{scheme}:// needs an absolute path, {scheme}:///folder")
        return Path(unquote(rest))
    if scheme not in _schemes():
        raise ValueError(f"{scheme}:// is not known to fsspec; s3, hf, gs, abfs, https and others are")
    if not rest.strip("/"):
        raise ValueError(f"{scheme}:// names no bucket, repository or server")
    if _PASSWORD.search(text) or (scheme in ("http", "https") and _QUERY.search(text)):
        raise ValueError("a URL with a password or a signature is not used, because it would be written into results")
    return RemotePath(f"{scheme}://{rest}")


def masked(text: str) -> str:
    """A message without the passwords and signatures of URLs in it."""
    return _QUERY.sub(r"\1***", _PASSWORD.sub("***@", text))


def bring(paths: Sequence[Path], alive: Alive) -> None:
    """Has these files at hand, of which those that are remote are copied here, and lets go of what was at hand before.

    alive: called now and then while something comes. Raises OSError, UserError, Unreachable.
    """
    cache().let_go()
    for path in paths:
        if isinstance(path, RemotePath):
            _service(path.scheme).copied(path, alive)


def forget(path: Path) -> None:
    """What is known of a remote folder and all below it is asked anew; else it holds while the process lives."""
    if isinstance(path, RemotePath):
        _service(path.scheme).forget(path)


def cache() -> Cache:
    """Copies are in KINECLOUD_CACHE (else ~/.cache/kinecloud) and take KINECLOUD_CACHE_GB at most. Raises UserError."""
    told = os.environ.get(CACHE_GB) or str(DEFAULT_GB)
    try:
        limit = float(told)
    except ValueError:
        limit = -1.0
    if not 0 < limit < float("inf"):
        raise UserError(f"{CACHE_GB}={told}: must be a positive number of gigabytes.")
    home = Path(os.environ.get("KINECLOUD_CACHE") or Path.home() / ".cache" / "kinecloud")
    return _cache(home / "remote", round(limit * GB))


@lru_cache(1)
def _cache(folder: Path, limit: int) -> Cache:
    return Cache(folder, limit)


class RemotePath(PosixPath):
    """A file or folder elsewhere, by its URL. Folders are where files lie below them. For reading only.

    ``os.fspath`` gives the local copy, so that readers may open it; ``str`` the URL, for people and for the index. What
    touches the service raises OSError where it refuses, Unreachable where it does not answer, UserError where the
    package for it is not installed.
    """

    __slots__ = ()

    @property
    def scheme(self) -> str:
        return self.parts[0].rstrip(":")

    def __str__(self) -> str:
        return _COLLAPSED.sub(r"\1://", super().__str__(), count=1)

    def __fspath__(self) -> str:
        return str(_service(self.scheme).copied(self, None))

    def __reduce__(self) -> tuple[Any, ...]:
        return RemotePath, (str(self),)

    @property
    def sha256(self) -> str | None:
        """Of the content, where the service tells it unasked. Raises OSError."""
        return _service(self.scheme).look(self).sha256

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Kind and size; as time of modification a number that differs where the content does."""
        seen = _service(self.scheme).look(self)
        kind = stat.S_IFDIR | 0o555 if seen.folder else stat.S_IFREG | 0o444
        changed_ns = int(hashlib.sha256(seen.tag.encode()).hexdigest()[:15], 16)
        times = [changed_ns // 10**9] * 3
        return os.stat_result((kind, 0, 0, 1, 0, 0, seen.size, *times), {"st_mtime_ns": changed_ns})

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        return self._kind() is not None

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        return self._kind() == stat.S_IFREG

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return self._kind() == stat.S_IFDIR

    def _kind(self) -> int | None:
        try:
            return stat.S_IFMT(self.stat().st_mode)
        except FileNotFoundError:
            return None

    def is_absolute(self) -> bool:
        return True

    def absolute(self) -> RemotePath:
        return self

    def resolve(self, strict: bool = False) -> RemotePath:
        return self

    def open(self, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if set(mode) & set("wax+"):
            raise OSError(errno.EROFS, "remote files are only read; name a local path", str(self))
        return super().open(mode, *arguments, **options)

    def glob(self, pattern: str, **_: Any) -> Iterator[RemotePath]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Files whose path from here matches, part by part; ``**`` is not known."""
        depth = len(PurePosixPath(pattern).parts)
        return (path for path in self.rglob(pattern) if len(path.relative_to(self).parts) == depth)

    def rglob(self, pattern: str, **_: Any) -> Iterator[RemotePath]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Files below whose path ends with what matches, in order of their names."""
        found = _service(self.scheme).below(self)
        return (path for path in found if path.relative_to(self).match(pattern))


@dataclass(frozen=True)
class Seen:
    """What a service tells. size: bytes; 0 of a folder, and where it is not told. tag: differs where contents do."""

    folder: bool
    size: int = 0
    tag: str = ""
    sha256: str | None = None


@lru_cache
def _service(scheme: str) -> _Service:
    return _Service(scheme)


@lru_cache(1)
def _schemes() -> frozenset[str]:
    import fsspec

    return frozenset(fsspec.available_protocols())


class _Service:
    """One kind of place, as this process has seen it so far."""

    def __init__(self, scheme: str):
        self.scheme, self.fs = scheme, _file_system(scheme)
        self._seen: dict[str, Seen] = {}
        self._listed: dict[str, dict[str, RemotePath]] = {}  # files by URL, by the URL of the folder above them all
        self._folders: dict[str, set[str]] = {}  # of those files, by the same

    def forget(self, folder: RemotePath) -> None:
        self.fs.invalidate_cache()
        for known in (self._seen, self._listed, self._folders):
            for url in [url for url in known if f"{url}/".startswith(f"{folder}/")]:
                del known[url]

    def below(self, folder: RemotePath) -> list[RemotePath]:
        """All files below a folder, in order. One listing serves all that lies below its folder."""
        above = self._listing_above(f"{folder}/")
        if above is None:
            above = str(folder)
            self._list(folder)
        files = self._listed[above].items()
        return [path for url, path in files if url.startswith(f"{folder}/")]

    def _listing_above(self, url: str) -> str | None:
        return next((root for root in self._listed if url.startswith(f"{root}/")), None)

    def _list(self, folder: RemotePath) -> None:
        root = self._root(folder)
        told: dict[str, dict[str, Any]] = self._asked(folder, lambda: self.fs.find(root, detail=True))
        files: dict[str, RemotePath] = {}
        for name, info in told.items():
            if name.startswith(f"{root}/") and not name.endswith("/"):  # which marks a folder
                path = folder / name[len(root) :].lstrip("/")
                files[str(path)] = path
                if info.get("size") is not None and (seen := _seen(info)).tag:
                    self._seen[str(path)] = seen
        self._listed[str(folder)] = dict(sorted(files.items(), key=lambda pair: pair[1]))
        self._folders[str(folder)] = {str(parent) for path in files.values() for parent in path.parents}

    def _root(self, folder: RemotePath) -> str:
        """The folder's name as names of files in listings begin."""
        if self.scheme == "hf":
            return self._asked(folder, lambda: self.fs.resolve_path(str(folder)).unresolve())
        return self.fs._strip_protocol(str(folder)).rstrip("/")

    def look(self, path: RemotePath) -> Seen:
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

    def _ask(self, path: RemotePath) -> Seen:
        def info() -> dict[str, Any]:
            self.fs.invalidate_cache(str(path))
            return self.fs.info(str(path))

        found = self._seen[str(path)] = _seen(self._asked(path, info))
        return found

    def copied(self, path: RemotePath, alive: Alive | None) -> Path:
        """The local copy of what is there now, unless one of what was there before is here still."""
        url, copies = str(path), cache()
        for _ in range(CHANGES):
            fresh = url not in self._seen
            seen = self.look(path)
            if seen.folder:
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), url)
            suffix = _SUFFIX.fullmatch(path.suffix)
            digest = hashlib.sha256(f"{url}\n{seen.size}\n{seen.tag}".encode()).hexdigest()
            name = copies.name(digest[:40], seen.size, suffix[0] if suffix else "")
            if (copy := copies.held(name)) is not None:
                return copy
            if not fresh and self._ask(path) != seen:
                continue
            try:
                copies.make(name, seen.size, lambda part, seen=seen: self._fetch(path, seen, part), alive)
            except _Changed:
                continue
            if (copy := copies.held(name)) is not None:
                return copy
        raise OSError(errno.EBUSY, "changes while it is being fetched", url)

    def _fetch(self, path: RemotePath, seen: Seen, part: Path) -> None:
        def fetch() -> None:
            self.fs.get_file(str(path), str(part))
            size = part.stat().st_size
            if seen.size and size != seen.size and self.fs.info(str(path)).get("size") == seen.size:
                raise ConnectionError(f"{size} of {seen.size} bytes came")

        self._asked(path, fetch)
        if self._ask(path) != seen:
            raise _Changed

    def _asked(self, path: RemotePath, ask: Callable[[], _Answer]) -> _Answer:
        """What a service answers, asked several times where it does not."""
        begun = time.monotonic()
        for wait_s in (*WAITS_S, None):
            try:
                return ask()
            except Exception as error:
                refusal = _refusal(error, path)
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


ABSENT = "there is no such file or folder"


class _Changed(Exception):
    """A file is another one than when its fetching began."""


def _seen(info: dict[str, Any]) -> Seen:
    if info.get("type") == "directory" or info.get("mimetype") == "text/html":  # servers tell folders as pages
        return Seen(folder=True)
    tag = next((str(info[name]) for name in TAGS if info.get(name)), "")
    large = info.get("lfs")  # of the hub
    return Seen(False, int(info.get("size") or 0), tag, getattr(large, "sha256", None))


def _refusal(error: Exception, path: RemotePath) -> Exception | None:
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
        remedy = CREDENTIALS.get(path.scheme, "what fsspec reads for it")
        told = f"access refused ({masked(str(error))[:200]}); credentials come from the environment: {remedy}"
        return PermissionError(errno.EACCES, told, str(path))
    return None


def _file_system(scheme: str) -> Any:
    import fsspec

    options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    try:
        if scheme in ("http", "https"):
            import aiohttp  # pyright: ignore[reportMissingImports]

            options["client_kwargs"] = {"timeout": aiohttp.ClientTimeout(total=None, sock_read=QUIET_S)}
        return fsspec.filesystem(scheme, **options)
    except ImportError as error:
        raise UserError(f"{scheme}://: {error} (pip install {PACKAGES.get(scheme, scheme)}).") from None
