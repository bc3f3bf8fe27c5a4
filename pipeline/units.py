"""Units of work: a fixed list of items that becomes one shard, with a sidecar as its completion mark.

The plan is written before work starts and only ever grows, so the number of workers may change at any time and new
items append units. A unit is complete exactly when its sidecar exists and agrees with the shard beside it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.atomic import remove_leftovers, write_json
from pipeline.errors import UserError
from pipeline.fingerprint import canonical, digest, file_sha256, require_same


@dataclass(frozen=True)
class Unit:
    """A named, fixed list of items."""

    name: str
    items: tuple[str, ...]


class UnitStore:
    """A folder of finished units: ``NAME.tar`` (the shard) and ``NAME.json`` (its sidecar).

    made_from: everything the results depend on except the items themselves (settings, versions, weights). A folder
    that was made from something else is refused with the differing keys.
    """

    def __init__(self, folder: Path, made_from: dict[str, Any]):
        self.folder = folder
        self.made_from = json.loads(canonical(made_from))
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        mark = folder / "stage.json"
        if mark.exists():
            require_same(_read(mark), self.made_from, folder)
        else:
            write_json(mark, self.made_from)

    def plan(self, items: Sequence[str], per_unit: int) -> list[Unit]:
        """All units: those planned before, then new ones for the items that are in none yet."""
        path = self.folder / "plan.json"
        planned: dict[str, list[str]] = _read(path) if path.exists() else {}
        known = {item for unit_items in planned.values() for item in unit_items}
        fresh = [item for item in items if item not in known]
        for start in range(0, len(fresh), per_unit):
            planned[f"unit-{len(planned):05d}"] = fresh[start : start + per_unit]
        if fresh or not path.exists():
            write_json(path, planned)
        return [Unit(name, tuple(unit_items)) for name, unit_items in sorted(planned.items())]

    def shard(self, unit: Unit) -> Path:
        """Where the unit's shard is published."""
        return self.folder / f"{unit.name}.tar"

    def finished(self, unit: Unit) -> dict[str, Any] | None:
        """The unit's sidecar when the unit is complete, else None."""
        path = self.folder / f"{unit.name}.json"
        if not path.exists():
            return None
        sidecar = _read(path)
        shard = self.shard(unit)
        whole = shard.exists() and shard.stat().st_size == sidecar["bytes"]
        return sidecar if whole and sidecar["fingerprint"] == self._fingerprint(unit) else None

    def complete(self, unit: Unit, samples: int, rejections: list[dict[str, Any]], **facts: Any) -> dict[str, Any]:
        """Writes the sidecar of a shard that is in place: from here on the unit is done."""
        shard = self.shard(unit)
        sidecar = {
            "unit": unit.name,
            "items": list(unit.items),
            "sha256": file_sha256(shard),
            "bytes": shard.stat().st_size,
            "samples": samples,
            "rejections": rejections,
            "fingerprint": self._fingerprint(unit),
            **facts,
        }
        write_json(self.folder / f"{unit.name}.json", sidecar)
        return sidecar

    def _fingerprint(self, unit: Unit) -> str:
        return digest({"made_from": self.made_from, "items": list(unit.items)})


def finished_shards(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """All complete shards of a unit folder with their sidecars, in plan order.

    Raises UserError when a shard is missing or its size is not the recorded one.
    """
    plan = folder / "plan.json"
    if not plan.exists():
        raise UserError(f"{folder}: there is no plan.json here. Run the stage that fills this folder first.")
    shards = []
    for name in sorted(_read(plan)):
        sidecar_path, shard = folder / f"{name}.json", folder / f"{name}.tar"
        if not sidecar_path.exists():
            continue
        sidecar = _read(sidecar_path)
        size = shard.stat().st_size if shard.exists() else None
        if size != sidecar["bytes"]:
            raise UserError(
                f"{shard}: {size} bytes, its sidecar says {sidecar['bytes']}. Remove both and run the stage again."
            )
        shards.append((shard, sidecar))
    return shards


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}). Remove it and run the stage again.") from error
