"""Copies of remote files on this machine, in a folder that several processes share and whose size has a limit.

A copy appears whole or not at all. Who makes one holds an exclusive lock (flock) on its beginnings, so that nobody else
makes it, too; who reads one holds a shared lock on it. What is locked is in use and stays; of the rest, what was used
least recently goes first. The kernel takes locks from processes that die.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import UserError

CACHE_GB, DEFAULT_GB = "KINECLOUD_CACHE_GB", 20.0
GB = 1_000_000_000
PART = ".part"  # what is not whole yet
HELD = 8  # files of which a process is sure that they stay, those that it opened last
SPARE = 20  # once files must go, this part of the limit is freed beyond what is needed
POLL_S = 0.1
ALIVE_S = 1.0  # between signs of life, given while a copy grows
REMEDY = "run.cache_gb (or KINECLOUD_CACHE_GB) says how much they may take, KINECLOUD_CACHE names another folder"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
Alive = Callable[[], None]


def copies() -> Cache:
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


class Cache:
    """limit: bytes. Names of copies are made by ``name``, from what tells one content from another."""

    def __init__(self, folder: Path, limit: int):
        self.folder, self.limit = folder, limit
        self._held: OrderedDict[str, BinaryIO] = OrderedDict()
        self._threads = threading.RLock()

    @staticmethod
    def name(digest: str, size: int, suffix: str) -> str:
        """digest: at least two hexadecimal digits. A copy that is being made counts with the size in its name."""
        return f"{digest[:2]}/{digest}-{size}{suffix}"

    def held(self, name: str) -> Path | None:
        """The copy, which stays until this process has opened ``HELD`` others or lets go; None where there is none."""
        path = self.folder / name
        with self._threads:
            try:
                handle = self._held.pop(name, None) or path.open("rb")
                fcntl.flock(handle, fcntl.LOCK_SH)
                os.utime(path)
            except FileNotFoundError:
                return None
            if not _is_at(handle, path):  # removed while it was being locked
                return None
            self._hold(name, handle)
            return path

    def let_go(self, newest: int = 0) -> None:
        """Of all copies that this process holds but the newest."""
        with self._threads:
            while len(self._held) > newest:
                self._held.popitem(last=False)[1].close()

    def make(self, name: str, size: int, fetch: Callable[[Path], None], alive: Alive | None = None) -> None:
        """Has ``fetch`` write the file, unless another process does so first.

        alive: called now and then while the file grows, whoever writes it. What ``fetch`` raises is passed on, and
        nothing is left behind then. Raises UserError where the disk or the limit is too small.
        """
        path = self.folder / name
        part = path.with_name(path.name + PART)
        watch = _Watch(part, alive)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            while (handle := _locked(part, os.O_RDWR | os.O_CREAT)) is None:
                watch.look()
                time.sleep(POLL_S)
        except OSError as error:
            raise self._unusable(error) from None
        with handle:
            try:
                if path.exists():
                    return
                self._reserve(size, part)
                watch.during(fetch)
                if (found := part.stat().st_size) > size:  # the service did not tell how large it is
                    self._reserve(found, part)
                os.fsync(handle.fileno())
                os.replace(part, path)
                fcntl.flock(handle, fcntl.LOCK_SH)
                with self._threads:
                    self._hold(name, os.fdopen(os.dup(handle.fileno()), "rb"))  # the same lock
            except OSError as error:
                raise self._unusable(error) if error.errno in FULL else error from None
            finally:
                part.unlink(missing_ok=True)

    def _unusable(self, error: OSError) -> UserError:
        return UserError(f"{self.folder}: {error.strerror}. Copies of remote files go there; {REMEDY}.")

    def _hold(self, name: str, handle: BinaryIO) -> None:
        self._held[name] = handle
        self.let_go(HELD)

    def _reserve(self, size: int, part: Path) -> None:
        """Makes room. How much is taken is kept in a file, which may say too much after a crash but never too little:
        the folder is only gone through when it seems full."""
        if size > self.limit:
            raise UserError(
                f"{self.folder}: a file of {size / GB:.3g} GB is wanted here, and remote files may take "
                f"{self.limit / GB:.3g} GB; {REMEDY}."
            )
        with (self.folder / "used").open("a+b") as account:
            fcntl.flock(account, fcntl.LOCK_EX)
            account.seek(0)
            told = account.read()
            used = int(told) if told.isdigit() else self.limit
            if used + size > self.limit:
                used = self._swept(self.limit - size, part)
            account.truncate(0)
            account.write(b"%d" % (used + size))

    def _swept(self, room: int, part: Path) -> int:
        """Removes what was used least recently until the rest takes ``room`` bytes; returns what is taken. What other
        processes hold stays, even where that is too much; what this one holds gives way, but for the newest."""
        copies: list[tuple[int, int, Path]] = []
        used = 0
        for path, state in self._files():
            if path.suffix != PART:
                copies.append((state.st_mtime_ns, state.st_size, path))
                used += state.st_size
            elif path != part and not _removed(path):
                used += int(path.name.removesuffix(PART).split("-")[1].split(".")[0])
        for newest, wanted in ((HELD, room - self.limit // SPARE), (1, room)):
            if used <= room:
                break
            self.let_go(newest)
            kept = []
            for copy in sorted(copies):
                if used > max(0, wanted) and _removed(copy[2]):
                    used -= copy[1]
                else:
                    kept.append(copy)
            copies = kept
        return used

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self.folder.glob("??/*"):
            with contextlib.suppress(FileNotFoundError):
                yield path, path.stat()


class _Watch:
    """Tells that a file grows."""

    def __init__(self, part: Path, alive: Alive | None):
        self._part, self._alive = part, alive
        self._seen, self._next = 0, 0.0

    def look(self) -> None:
        if self._alive is None or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + ALIVE_S
        with contextlib.suppress(FileNotFoundError):
            changed = self._part.stat().st_mtime_ns
            if changed != self._seen:
                self._seen = changed
                self._alive()

    def during(self, fetch: Callable[[Path], None]) -> None:
        """Fetches in a thread, so that signs of life come from this one."""
        if self._alive is None:
            fetch(self._part)
            return
        failed: list[BaseException] = []

        def run() -> None:
            try:
                fetch(self._part)
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        while thread.is_alive():
            self.look()
            thread.join(POLL_S)
        if failed:
            raise failed[0]


def _locked(path: Path, flags: int) -> BinaryIO | None:
    """The open file, exclusively locked; None where it is in use, or was removed or finished just now."""
    handle = os.fdopen(os.open(path, flags, 0o644), "rb")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        return None
    if _is_at(handle, path):
        return handle
    handle.close()
    return None


def _removed(path: Path) -> bool:
    """Whether a file is gone now. One that is in use stays."""
    try:
        handle = _locked(path, os.O_RDONLY)
    except FileNotFoundError:
        return True
    if handle is None:
        return False
    with handle:
        path.unlink(missing_ok=True)
    return True


def _is_at(handle: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle.fileno()), path.stat())
    except FileNotFoundError:
        return False
