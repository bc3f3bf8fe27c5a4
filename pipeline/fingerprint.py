"""What a result was made from, as one JSON document: compared key by key, hashed for names and marks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.atomic import write_json
from pipeline.errors import Refused, UserError

DONE = "done.json"


def canonical(document: Any) -> bytes:
    """The one JSON text of ``document``: sorted keys, no spaces."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def digest(document: Any) -> str:
    """SHA-256 of the canonical JSON, hexadecimal."""
    return hashlib.sha256(canonical(document)).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def differences(stored: Any, current: Any, prefix: str = "") -> list[str]:
    """Lines ``key: stored -> current`` for every leaf that differs."""
    if isinstance(stored, dict) and isinstance(current, dict):
        lines: list[str] = []
        for key in sorted(stored.keys() | current.keys()):
            name = f"{prefix}.{key}" if prefix else str(key)
            lines += differences(stored.get(key, "(absent)"), current.get(key, "(absent)"), name)
        return lines
    return [] if stored == current else [f"{prefix}: {_short(stored)} -> {_short(current)}"]


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


def require_same(stored: dict[str, Any], current: dict[str, Any], where: Path) -> None:
    """Raises Refused with the differing keys when a stored result was made from something else."""
    lines = differences(stored, current)
    if lines:
        raise Refused(
            f"{where} was made with another configuration:\n  "
            + "\n  ".join(lines)
            + f"\nRestore these values, write elsewhere (--set run.out=...), or remove {where} to make it again."
        )


def mark_done(folder: Path, document: dict[str, Any], **outputs: Any) -> None:
    """Writes the completion mark of a stage folder."""
    write_json(folder / DONE, {"made_from": document, **outputs})


def read_done(folder: Path) -> dict[str, Any] | None:
    """The completion mark of a stage folder, or None when the stage is not complete."""
    path = folder / DONE
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}). Remove the folder {folder} to make it again.") from error


def require_done(folder: Path, stage: str) -> dict[str, Any]:
    """The completion mark of an upstream stage; a clear error when it has not run."""
    mark = read_done(folder)
    if mark is None:
        raise UserError(
            f"{folder}: the stage '{stage}' has not finished. Run it first (python -m pipeline run CONFIG)."
        )
    return mark


def is_done(folder: Path, document: dict[str, Any], follows: Iterable[str] = ()) -> bool:
    """True when ``folder`` holds the finished result of ``document``; Refused when it holds another one.

    follows: keys that may have changed since; then the result is not done, and may be made again in place.
    """
    mark = read_done(folder)
    if mark is None:
        return False
    current = json.loads(canonical(document))
    require_same({**mark["made_from"], **{key: current[key] for key in follows}}, current, folder)
    return mark["made_from"] == current
