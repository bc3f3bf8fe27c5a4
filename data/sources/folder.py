"""Which data sets a folder holds, and their recordings, whatever the format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data.sources.mapping import GroupsLayout, StepsLayout, read_layout
from data.sources.recording import Recording, Rejected
from data.video import Unreadable
from pipeline.errors import UserError

Kind = Literal["lerobot", "rlds", "hdf5"]


@dataclass(frozen=True)
class DataSet:
    """kind: its format. root: meta/info.json or dataset_info.json lies there, or HDF5 files lie below."""

    kind: Kind
    root: Path


def data_sets(folder: Path) -> list[DataSet]:
    """All data sets in a folder and below, hidden folders left out; all HDF5 files together are one."""
    found = [DataSet("lerobot", path.parent.parent) for path in _shown(folder, "meta/info.json")]
    found += [DataSet("rlds", path.parent) for path in _shown(folder, "dataset_info.json")]
    if _shown(folder, "*.hdf5") or _shown(folder, "*.h5"):
        found.append(DataSet("hdf5", folder))
    return found


def _shown(folder: Path, pattern: str) -> list[Path]:
    parts = ((path, path.relative_to(folder).parts) for path in sorted(folder.rglob(pattern)))
    return [path for path, names in parts if not any(name.startswith(".") for name in names)]


def recordings(one: DataSet, layout: Path | None = None) -> Iterator[Recording | Rejected]:
    """Every episode of a data set, or what is wrong with it; with what is wrong with all of it as one rejection.

    layout: a YAML file of the user, for RLDS and HDF5. Raises UserError where it cannot be used.
    """
    shape = None if layout is None else read_layout(layout)
    if shape is not None and shape.format != one.kind:
        raise UserError(f"{layout}: format: {shape.format} does not fit {one.root}, which is {one.kind}. Name another.")
    try:
        # imported here, so that who reads one format needs nothing of the others
        if one.kind == "lerobot":
            from data.sources import lerobot

            yield from lerobot.recordings(one.root)
        elif one.kind == "rlds":
            from data.sources import rlds

            yield from rlds.recordings(one.root, shape if isinstance(shape, StepsLayout) else None)
        else:
            from data.sources import hdf5

            yield from hdf5.recordings(one.root, shape if isinstance(shape, GroupsLayout) else None)
    except Unreadable as error:
        yield Rejected(str(one.root), error.reason, error.detail)


def recording(one: DataSet, name: str, layout: Path | None = None) -> Recording:
    """One episode by its name, as a worker process opens it again. Raises Unreadable (missing)."""
    for found in recordings(one, layout):
        if isinstance(found, Recording) and found.name == name:
            return found
    raise Unreadable("missing", f"{one.root}: there is no readable episode {name}")
