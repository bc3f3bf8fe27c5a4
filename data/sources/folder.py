"""Which data sets a folder holds, and their recordings, whatever the format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from data.sources.mapping import Layout, read_layout
from data.sources.recording import Recording, Rejected
from data.video import Unreadable
from pipeline.errors import UserError

Kind = Literal["lerobot", "rlds", "hdf5", "rgbd"]


@dataclass(frozen=True)
class DataSet:
    """kind: its format. root: meta/info.json or dataset_info.json lies there, or HDF5 files or RGB-D folders below."""

    kind: Kind
    root: Path


def data_sets(folder: Path, layout: Path | None = None) -> list[DataSet]:
    """All data sets in a folder and below, hidden folders left out; all HDF5 files together are one, and so are all
    RGB-D folders. With a layout of RGB-D folders these are all that is looked for."""
    if layout is not None and read_layout(layout).format == "rgbd":
        return [DataSet("rgbd", folder)]
    found = [DataSet("lerobot", path.parent.parent) for path in _shown(folder, "meta/info.json")]
    found += [DataSet("rlds", path.parent) for path in _shown(folder, "dataset_info.json")]
    if _shown(folder, "*.hdf5") or _shown(folder, "*.h5"):
        found.append(DataSet("hdf5", folder))
    if next(_format("rgbd").episodes(folder), None) is not None:
        found.append(DataSet("rgbd", folder))
    return found


def _shown(folder: Path, pattern: str) -> list[Path]:
    parts = ((path, path.relative_to(folder).parts) for path in sorted(folder.rglob(pattern)))
    return [path for path, names in parts if not any(name.startswith(".") for name in names)]


def recordings(one: DataSet, layout: Path | None = None) -> Iterator[Recording | Rejected]:
    """Every episode of a data set, or what is wrong with it; with what is wrong with all of it as one rejection.

    layout: a YAML file of the user, for RLDS, HDF5 and RGB-D. Raises UserError where it cannot be used.
    """
    try:
        yield from _format(one.kind).recordings(one.root, *_given(one, layout))
    except Unreadable as error:
        yield Rejected(str(one.root), error.reason, error.detail)


def reopened(one: DataSet, address: Mapping[str, Any], layout: Path | None = None) -> Recording:
    """The episode whose address this is, as a worker process opens it again. Raises Unreadable where it is no longer
    there, UserError where the layout cannot be used."""
    return _about(one, layout).reopened(address)


@lru_cache(8)
def _about(one: DataSet, layout: Path | None) -> Any:
    """What is told about all episodes of a data set, which a process reads once."""
    return _format(one.kind).About.read(one.root, *_given(one, layout))


def _format(kind: Kind) -> Any:
    """The module that reads a format. Who reads one needs nothing of the others."""
    return import_module(f"data.sources.{kind}")


def _given(one: DataSet, layout: Path | None) -> tuple[Layout, ...]:
    """The user's layout, if there is one."""
    if layout is None:
        return ()
    shape = read_layout(layout)
    if shape.format != one.kind:
        raise UserError(f"{layout}: format: {shape.format} does not fit {one.root}, which is {one.kind}. Name another.")
    return (shape,)
