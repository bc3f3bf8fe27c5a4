"""Files in buckets, on the Hugging Face hub and on servers, read as if they were here: whatever fsspec knows by URL.

A ``RemotePath`` is a path. Asking what it is asks the service (pipeline/services.py); opening it brings the file into a
folder of copies (pipeline/cache.py) first.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path, PosixPath, PurePosixPath
from typing import Any
from urllib.parse import unquote

from pipeline.cache import Alive, copies
from pipeline.services import has_secret, schemes, service

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://(.*)", re.DOTALL)
_COLLAPSED = re.compile(r"^([a-z][a-z0-9+.\-]*):/")  # what pathlib makes of the beginning of a URL


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
    if scheme not in schemes():
        raise ValueError(f"{scheme}:// is not known to fsspec; s3, hf, gs, abfs, https and others are")
    if not rest.strip("/"):
        raise ValueError(f"{scheme}:// names no bucket, repository or server")
    if has_secret(text):
        raise ValueError("a URL with a password or a signature is not used, because it would be written into results")
    return RemotePath(f"{scheme}://{rest}")


def bring(paths: Sequence[Path], alive: Alive) -> None:
    """Has these files at hand, of which those that are remote are copied here, and lets go of what was at hand before.

    alive: called now and then while something comes. Raises OSError, UserError, Unreachable.
    """
    copies().let_go()
    for path in paths:
        if isinstance(path, RemotePath):
            service(path.scheme).copied(path, alive)


def forget(path: Path) -> None:
    """What is known of a remote folder and all below it is asked anew; else it holds while the process lives."""
    if isinstance(path, RemotePath):
        service(path.scheme).forget(path)


def folders(root: Path) -> Iterator[Path]:
    """This folder and all below, hidden ones left out, in order."""
    if isinstance(root, RemotePath):
        found = {above for path in root.rglob("*") for above in path.parents if above.is_relative_to(root)}
        yield from sorted(one for one in found if not any(step[0] == "." for step in one.relative_to(root).parts))
        return
    for name, below, _ in os.walk(root):
        below[:] = sorted(step for step in below if not step.startswith("."))
        yield Path(name)


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
        return _COLLAPSED.sub(r"\1://", super().__str__())

    def __fspath__(self) -> str:
        return str(service(self.scheme).copied(self, None))

    def __reduce__(self) -> tuple[Any, ...]:
        return RemotePath, (str(self),)

    @property
    def sha256(self) -> str | None:
        """Of the content, where the service tells it unasked. Raises OSError."""
        return service(self.scheme).look(self).sha256

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Kind and size; as time of modification a number that differs where the content does."""
        seen = service(self.scheme).look(self)
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

    def glob(self, pattern: str, **_: Any) -> Iterator[Path]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Files whose path from here matches, part by part; ``**`` is not known."""
        depth = len(PurePosixPath(pattern).parts)
        return (path for path in self.rglob(pattern) if len(path.relative_to(self).parts) == depth)

    def rglob(self, pattern: str, **_: Any) -> Iterator[Path]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Files below whose path ends with what matches, in order of their names."""
        found = service(self.scheme).below(self)
        return (path for path in found if path.relative_to(self).match(pattern))
