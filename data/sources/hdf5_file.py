"""An HDF5 file that a stranger wrote: no links, no objects, no plugins, and no sizes beyond what is sane.

libhdf5 is native code: a file made to crash it may. Read strangers' files in a worker process (pipeline/workers.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from data.sources.recording import MAX_FRAMES
from data.video import Unreadable

MAX_BYTES = 1 << 30  # of an array that is read at once
MAX_CHUNK_BYTES = 256 << 20  # a chunk is unpacked as a whole
MAX_RATIO = 2000  # of declared to stored bytes; gzip reaches 1000 on zeros, beyond are rows that were never written
MAX_TEXT_BYTES = 1 << 20
_FILTERS = frozenset((1, 2, 3, 4, 5, 6, 32000))  # those of libhdf5 itself and lzf; others load code from a folder


@contextmanager
def open_file(path: Path) -> Iterator[File]:
    """Raises Unreadable (missing, unreadable) for the file and for whatever libhdf5 stumbles over inside the block."""
    try:
        with h5py.File(path, "r") as handle:
            yield File(path, handle)
    except FileNotFoundError:
        raise Unreadable("missing", f"{path} does not exist") from None
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, UnicodeDecodeError) as error:
        raise Unreadable("unreadable", f"{path}: not readable as HDF5 ({error})") from None


class File:
    """Access by names from a group on; names that begin with ``/`` count from the root."""

    def __init__(self, path: Path, handle: h5py.File):
        self.path = path
        self._root = handle

    @property
    def root(self) -> h5py.Group:
        return self._root

    def find(self, group: h5py.Group, place: str) -> h5py.Group | h5py.Dataset | None:
        """What is stored under a name, or None. Raises Unreadable (link_refused) for anything but a plain entry."""
        node: Any = self._root if place.startswith("/") else group
        for step in (part for part in place.split("/") if part not in ("", ".")):
            if not isinstance(node, h5py.Group):
                return None
            link = node.get(step, getlink=True)
            if link is None:
                return None
            if not isinstance(link, h5py.HardLink):
                kind = type(link).__name__
                raise Unreadable(
                    "link_refused", f"{self.path}: {node.name}/{step} is a {kind}; only plain data is read"
                )
            node = node[step]
        return node if isinstance(node, h5py.Group | h5py.Dataset) else None

    def groups(self, pattern: str) -> list[h5py.Group]:
        """Groups of a pattern ``name/*``, in the order of the numbers in their names; ``.`` is the root."""
        if pattern == ".":
            return [self._root]
        parent = self.find(self._root, pattern.rsplit("/", 1)[0])
        if not isinstance(parent, h5py.Group):
            return []
        found = (self.find(parent, name) for name in sorted(parent, key=_by_number))
        return [group for group in found if isinstance(group, h5py.Group)]

    def demand(self, group: h5py.Group, place: str) -> h5py.Dataset:
        """A data set of plain numbers, of a sane size. Raises Unreadable naming what it is instead."""
        found = self.find(group, place)
        if not isinstance(found, h5py.Dataset):
            there = ", ".join(self.listing(group)) or "nothing"
            raise Unreadable("missing", f"{self.path}: {group.name}: no data set '{place}'; there are {there}")
        where = f"{self.path}: {found.name}"
        if found.dtype.kind not in "biuf":
            raise Unreadable(
                "bad_dtype", f"{where}: holds {found.dtype}, expected plain numbers; objects are never read"
            )
        self._bounded(found, where)
        return found

    def _bounded(self, dataset: h5py.Dataset, where: str) -> None:
        if dataset.is_virtual or dataset.external:
            raise Unreadable("link_refused", f"{where}: its data are in other files; copy them into this one")
        chunk = int(np.prod(dataset.chunks or (1,), dtype=np.float64)) * dataset.dtype.itemsize
        if chunk > MAX_CHUNK_BYTES:
            raise Unreadable("too_large", f"{where}: chunks of {chunk} bytes, at most {MAX_CHUNK_BYTES} are unpacked")
        if dataset.shape and dataset.shape[0] > MAX_FRAMES:
            raise Unreadable("too_large", f"{where}: {dataset.shape[0]} rows, at most {MAX_FRAMES}")
        stored = dataset.id.get_storage_size()
        if dataset.nbytes > MAX_RATIO * max(stored, 1) and dataset.nbytes > MAX_TEXT_BYTES:
            raise Unreadable("too_large", f"{where}: declares {dataset.nbytes} bytes and stores {stored}")
        plist = dataset.id.get_create_plist()
        filters = {plist.get_filter(number)[0] for number in range(plist.get_nfilters())}
        if unknown := filters - _FILTERS:
            detail = f"is packed with filter {min(unknown)}, which needs a plugin; repack it with gzip"
            raise Unreadable("unsupported_format", f"{where}: {detail}")

    def array(self, group: h5py.Group, place: str) -> np.ndarray:
        """A whole data set. Raises Unreadable (missing, bad_dtype, too_large, link_refused)."""
        found = self.demand(group, place)
        if found.nbytes > MAX_BYTES:
            where = f"{self.path}: {found.name}"
            raise Unreadable("too_large", f"{where}: {found.nbytes} bytes, at most {MAX_BYTES} are read at once")
        return found[()]

    def attribute(self, node: h5py.Group | h5py.Dataset, name: str) -> Any:
        """A text or number, or None where there is none. Raises Unreadable (bad_dtype, too_large)."""
        if name not in node.attrs:
            return None
        kept, where = node.attrs.get_id(name), f"{self.path}: {node.name}: attribute {name}"
        if kept.get_storage_size() > MAX_TEXT_BYTES:
            raise Unreadable("too_large", f"{where}: {kept.get_storage_size()} bytes, at most {MAX_TEXT_BYTES}")
        if kept.dtype.kind not in "biufSU" and h5py.check_string_dtype(kept.dtype) is None:
            raise Unreadable("bad_dtype", f"{where}: holds {kept.dtype}, expected text or a number")
        return _plain(node.attrs[name])

    def text(self, dataset: h5py.Dataset) -> list[str]:
        """All texts of a data set of strings. Raises Unreadable (bad_dtype, too_large)."""
        where = f"{self.path}: {dataset.name}"
        if h5py.check_string_dtype(dataset.dtype) is None:
            raise Unreadable("bad_dtype", f"{where}: holds {dataset.dtype}, expected text")
        self._bounded(dataset, where)
        if dataset.nbytes > MAX_BYTES:
            raise Unreadable("too_large", f"{where}: {dataset.nbytes} bytes of text, at most {MAX_BYTES}")
        return [str(_plain(value)) for value in np.atleast_1d(dataset[()]).ravel()]

    def listing(self, group: h5py.Group, limit: int = 60) -> list[str]:
        """Names of data sets below a group, with their shapes, for messages."""
        found: list[str] = []
        waiting: list[tuple[str, h5py.Group]] = [("", group)]
        while waiting and len(found) < limit:
            prefix, parent = waiting.pop()
            for name in parent:
                plain = isinstance(parent.get(str(name), getlink=True), h5py.HardLink)
                node = self.find(parent, str(name)) if plain else None
                if isinstance(node, h5py.Group) and prefix.count("/") < 10:
                    waiting.append((f"{prefix}{name}/", node))
                elif isinstance(node, h5py.Dataset) and len(found) < limit:
                    found.append(f"{prefix}{name} {node.dtype} {list(node.shape or ())}")
        return found


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(())[()]
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if isinstance(value, np.generic) else value


def _by_number(name: str) -> list[tuple[int, str]]:
    """demo_2 comes before demo_10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name[:200])]
