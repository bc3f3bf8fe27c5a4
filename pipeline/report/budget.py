"""Decide which pictures and clouds a page of bounded size carries, and load those.

Every item gets a fair share: small items are served first, and what they leave goes to the larger ones. An item that
does not fit keeps its first pictures, or evenly spaced ones when it is a film.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.report.cloud import cloud_bytes
from pipeline.report.picture import picture_of
from pipeline.report.run import Part

MIME = {"png": "image/png", "jpeg": "image/jpeg"}


@dataclass
class _Group:
    """The files of one item. sizes: bytes each takes in the page, base64."""

    item: dict[str, Any]
    holders: list[dict[str, Any]]
    paths: list[Path]
    sizes: list[int]


def load_files(parts: list[Part], limit: int) -> None:
    """Put the files that fit into ``limit`` bytes into the items that name them.

    A picture gets ``uri`` (a data: address), a cloud ``data`` (base64). What has none is not there: its holder gets
    ``missing`` = ``left out`` (no room in the page) or ``gone`` (no such file, or not what its name says).
    """
    groups = sorted(_groups(parts), key=lambda group: sum(group.sizes))
    for position, group in enumerate(groups):
        share = limit // (len(groups) - position)
        kept = _kept(group.sizes, share, spread=group.item.get("kind") == "film")
        for index, holder in enumerate(group.holders):
            if index in kept:
                _load(holder, group.paths[index])
                limit -= group.sizes[index]
            else:
                holder["missing"] = "left out"


def _groups(parts: list[Part]) -> Iterator[_Group]:
    for part in parts:
        for item in part.items:
            holders = []
            if item.get("kind") == "cloud":
                holders = [item.get("cloud")]
            elif item.get("kind") == "rejections":
                holders = [entry.get("image") for entry in _listed(item, "rejections") if isinstance(entry, dict)]
            else:
                holders = _listed(item, "images")
            group = _Group(item, [], [], [])
            for holder in holders:
                if not isinstance(holder, dict):
                    continue
                for ours in ("uri", "data", "missing"):
                    holder.pop(ours, None)
                path = _file_of(part, str(holder.get("file", "")))
                if path is None:
                    holder["missing"] = "gone"
                    continue
                group.holders.append(holder)
                group.paths.append(path)
                group.sizes.append(-(-path.stat().st_size // 3) * 4 + 200)
            if group.holders:
                yield group


def _listed(item: dict[str, Any], name: str) -> list[Any]:
    return found if isinstance(found := item.get(name), list) else []


def _file_of(part: Part, name: str) -> Path | None:
    """Only plain names: a section must not be able to pull in files from elsewhere."""
    path = part.folder / name
    try:
        return path if Path(name).name == name and name and not path.is_symlink() and path.is_file() else None
    except (OSError, ValueError):  # a name that no file can have
        return None


def _kept(sizes: list[int], share: int, spread: bool) -> set[int]:
    if sum(sizes) <= share:
        return set(range(len(sizes)))
    if spread:
        for count in range(len(sizes) - 1, 0, -1):
            chosen = {round(i * (len(sizes) - 1) / max(count - 1, 1)) for i in range(count)}
            if sum(sizes[i] for i in chosen) <= share:
                return chosen
        return set()
    kept = set()
    for index, size in enumerate(sizes):
        if size <= share:
            kept.add(index)
            share -= size
    return kept


def _load(holder: dict[str, Any], path: Path) -> None:
    data = path.read_bytes()
    try:
        if path.suffix == ".bin":
            if len(data) != cloud_bytes(holder):
                raise ValueError("length")
            holder["data"] = base64.b64encode(data).decode()
        else:
            picture = picture_of(data)
            holder["width"], holder["height"] = picture.width, picture.height
            holder["uri"] = f"data:{MIME[picture.kind]};base64,{base64.b64encode(data).decode()}"
    except (ValueError, KeyError, TypeError):
        holder["missing"] = "gone"
