"""The figures of the benchmark as one document."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

import numpy as np

from tests.benchmarks.out_of_action.ablations import ABLATIONS, repeated
from tests.benchmarks.out_of_action.acceptance import TARGETS, judged
from tests.benchmarks.out_of_action.episodes import capped
from tests.benchmarks.out_of_action.intervals import figure
from tests.benchmarks.out_of_action.lines import Line
from tests.benchmarks.out_of_action.rows import MAIN, Clips, Row
from tests.benchmarks.out_of_action.suite import Budget

# Points of the curves, from left to right.
LABELLED_CURVE = ("labelled_1", MAIN, "labelled_5", "labelled_10")
VIDEO_CURVE = ("labelled_videos", "videos_5", "videos_10", "videos_20", MAIN)


def figures_of(lines: dict[tuple[str, str], Line], budget: Budget, facts: dict[str, Any]) -> dict[str, Any]:
    """All figures as one JSON document; ``page`` needs nothing else."""
    return {
        "budget": budget.name,
        "facts": facts | {
            "tasks": {"labelled": list(budget.labelled_tasks), "video_only": list(budget.video_only_tasks)},
            "resolution": budget.resolution,
        },
        "rows": [_row(line, lines.get((MAIN, line.chain)), budget) for line in lines.values()],
        "acceptance": [judged(target, lines) for target in TARGETS],
        "ablations": [repeated(ablation, lines) for ablation in ABLATIONS],
        "curves": {
            "labelled": _curve(lines, LABELLED_CURVE, lambda row: capped(row.clips, budget).labelled),
            "videos": _curve(lines, VIDEO_CURVE, lambda row: sum(capped(row.clips, budget).unseen)),
        },
    }  # fmt: skip


def _row(line: Line, main: Line | None, budget: Budget) -> dict[str, Any]:
    document: dict[str, Any] = {
        "row": line.row.name, "chain": line.chain, "words": line.row.words, "state": line.state, "why": line.why,
        "learns": clips_in_words(capped(line.row.clips, budget)), "head": line.row.head, "control": line.row.control,
    }  # fmt: skip
    if not line.entries:
        return document
    tasks, last = line.of_tasks(), list(line.entries.values())[-1]
    paths = [task["path_mm"] for task in tasks if not task["labelled"] and task["path_mm"] is not None]
    apart = None
    if main is not None and main is not line and main.measured and line.measured:
        apart = line.minus(main, labelled=False)
    return document | {
        "seeds": [int(seed) for seed in line.entries],
        "episodes": sorted({len(t["tried"]) for e in line.entries.values() for t in e["tasks"].values()}),
        "unseen": line.unseen,
        "worst": dict(zip(("task", "rate"), line.worst, strict=True)),
        "seen": figure(line.trials(labelled=True)) if line.tasks(True) else None,
        "to_main": apart,
        "path_mm": round(float(np.mean(paths)), 1) if paths else None,
        "tasks": tasks,
        "films": next(iter(line.entries.values()))["films"],
        "took": [
            asdict(took) | {"minutes": {step: round(minutes, 2) for step, minutes in took.minutes.items()}}
            for took in line.took()
        ],
        "dates": sorted({entry["date"] for entry in line.entries.values()}),
        "hardware": last["hardware"],
        "versions": last["versions"],
    }


def clips_in_words(clips: Clips) -> str:
    """For example ``3; 20+20; none``: labelled episodes; robot + hand videos of labelled, then of video-only tasks."""
    seen, unseen = (f"{robot}+{hand}" if robot or hand else "none" for robot, hand in (clips.seen, clips.unseen))
    return f"{clips.labelled}{' (all tasks)' if clips.oracle else ''}; {seen}; {unseen}"


def _curve(
    lines: dict[tuple[str, str], Line], rows: Iterable[str], across: Callable[[Row], int]
) -> dict[str, list[dict[str, Any]]]:
    """By chain, the measured points, from left to right; chains with fewer than three have none: a line between two
    would tell a course that nobody measured. across: what is varied from row to row."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name in rows:
        for (row, chain), line in lines.items():
            if row == name and line.measured:
                found.setdefault(chain, []).append({"x": across(line.row), **line.unseen})
    return {chain: values for chain, values in found.items() if len(values) > 2}
