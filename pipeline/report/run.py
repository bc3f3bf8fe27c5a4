"""Read what a run folder holds for its report: a damaged or missing part is described, and never stops the report."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MAX_CONFIG = 200_000
LARGEST = 1e18


@dataclass
class Part:
    """The report section of one stage. ``folder`` holds the files that ``items`` name."""

    stage: str
    folder: Path
    title: str
    order: float
    summary: str = ""
    items: list[dict[str, Any]] = field(default_factory=list)

    @property
    def simulated(self) -> list[str]:
        """The texts of the notes that mark this part as simulated."""
        return [str(i.get("text", "")) for i in self.items if i.get("kind") == "note" and i.get("note") == "simulated"]


@dataclass
class Run:
    """name: of the run folder. parts: in report order. record: run.json. problems: what could not be read."""

    name: str
    parts: list[Part]
    record: dict[str, Any]
    config: str
    problems: list[str]

    @property
    def stages(self) -> list[dict[str, Any]]:
        stages = self.record.get("stages")
        return [stage for stage in stages if isinstance(stage, dict)] if isinstance(stages, list) else []

    def stage(self, name: str) -> dict[str, Any]:
        """What run.json says about a stage; empty when it says nothing."""
        return next((stage for stage in self.stages if stage.get("name") == name), {})


def read_run(run_dir: Path) -> Run:
    """Everything under RUN_DIR that the report shows: */report/section.json, run.json, config.yaml."""
    problems: list[str] = []
    parts = []
    for path in sorted(run_dir.glob("*/report/section.json")):
        content = _read_json(path, run_dir, problems)
        if content is not None:
            parts.append(_part(path, content))
    parts.sort(key=lambda part: (part.order, part.stage))
    record = _read_json(run_dir / "run.json", run_dir, problems) if (run_dir / "run.json").exists() else {}
    config = ""
    if (run_dir / "config.yaml").exists():
        config = _read_text(run_dir / "config.yaml", run_dir, problems) or ""
    return Run(run_dir.name, parts, record or {}, config[:MAX_CONFIG], problems)


def _part(path: Path, content: dict[str, Any]) -> Part:
    stage = path.parent.parent.name
    order, items = content.get("order"), content.get("items")
    return Part(
        stage=stage,
        folder=path.parent,
        title=str(content.get("title") or stage),
        order=float(order) if isinstance(order, int | float) else 1e9,
        summary=str(content.get("summary") or ""),
        items=[item for item in items if isinstance(item, dict)] if isinstance(items, list) else [],
    )


def _read_text(path: Path, run_dir: Path, problems: list[str]) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        problems.append(f"{path.relative_to(run_dir)} cannot be read: {error.strerror or error}")
        return None


def _number(text: str) -> int | float | None:
    value = float(text)
    return None if abs(value) > LARGEST else int(text) if text.lstrip("-").isdecimal() else value


def _read_json(path: Path, run_dir: Path, problems: list[str]) -> dict[str, Any] | None:
    text = _read_text(path, run_dir, problems)
    if text is None:
        return None
    try:
        # What is no number for the browser's parser, or beyond all that is measured, becomes a gap.
        content = json.loads(text, parse_constant=lambda _: None, parse_float=_number, parse_int=_number)
    except (ValueError, RecursionError) as error:
        problems.append(f"{path.relative_to(run_dir)} is not JSON ({error}); run the stage again to write it anew")
        return None
    if not isinstance(content, dict):
        problems.append(f"{path.relative_to(run_dir)} holds a {type(content).__name__}, expected an object")
        return None
    return content
