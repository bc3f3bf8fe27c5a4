"""The figures of the benchmark of pretraining as one document: what each row is worth, and the verdict."""

from __future__ import annotations

import statistics
from typing import Any

from pretrain.metrics import NO_MOTION
from pretrain.neighbour import NAME as NEIGHBOUR
from pretrain.scores import MODEL
from tests.benchmarks.pretraining_cells import (
    ABLATIONS,
    BASELINES,
    CELLS,
    DEFAULT,
    HORIZONS_S,
    OBJECTIVES,
    SAMPLES,
    SUBSETS,
)
from tests.benchmarks.pretraining_intervals import Board, Row, difference, figure, ratio

TARGET = 2.0  # constant velocity's ADE over the default's
VELOCITIES = ("constant velocity", "least-squares velocity")
MEASURES = ("ade_mm", "displacement_mm", "chamfer_mm", "path_mm", "within_2cm", "within_5cm")
ADE = "ade_mm"
PLANE = ", in the plane"
_MEAN = f"{MODEL}, mean of {SAMPLES} samples"


def lines_of_table(board: Board) -> list[tuple[str, str, str, str]]:
    """(key, title, row of the board, reading) of every line of the first table that was measured."""
    lines = [(name, name, BASELINES, name) for name in (NO_MOTION, *VELOCITIES, NEIGHBOUR)]
    for cell in OBJECTIVES:
        if cell.name in board and cell.samples > 1:
            lines.append((cell.name, f"{cell.title}, one sample", cell.name, MODEL))
            lines.append((f"{cell.name}-mean", f"{cell.title}, mean of {SAMPLES} samples", cell.name, _MEAN))
        elif cell.name in board:
            lines.append((cell.name, cell.title, cell.name, MODEL))
    return lines


def figures_of(board: Board, tuning: dict[str, Any], data: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """All figures as one JSON document; ``page`` needs nothing else."""
    rows = [_line(board, *line, kind="baseline" if line[2] == BASELINES else "objective")
            for line in lines_of_table(board)]  # fmt: skip
    rows += [
        _line(board, cell.name, cell.title, cell.name, MODEL, kind="ablation") for cell in ABLATIONS
        if cell.name in board
    ]  # fmt: skip
    trained = [name for name in CELLS if name in board]
    return {
        "facts": facts | {
            "parameters": {name: board.of(name)[0]["parameters"] for name in trained},
            "learning_rate": {name: board.of(name)[0]["learning_rate"] for name in trained},
            "train_s": {name: statistics.median(r["train_s"] for r in board.of(name)) for name in trained},
            "windows": board.of(BASELINES)[0]["windows"],
            "missing": [name for name in CELLS if name not in board],
        },
        "data": data,
        "tuning": tuning,
        "neighbour": board.of(BASELINES)[0]["neighbour"],
        "horizons_s": list(HORIZONS_S),
        "velocity": _velocity(board),
        "rows": rows,
        "in_plane": _in_plane(board),
        "verdict": _verdict(board),
    }  # fmt: skip


def _line(board: Board, key: str, title: str, cell: str, reading: str, kind: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    against: dict[str, Any] = {}
    for subset in SUBSETS:
        found = {measure: board.row(cell, reading, subset, measure) for measure in MEASURES}
        values[subset] = {measure: figure(row) for measure, row in found.items() if row is not None}
        ours = found[ADE]
        if ours is not None:
            others = _references(board, subset)
            against[subset] = {
                name: {"ratio": ratio(ours, other), "difference": difference(ours, other)}
                for name, other in others.items()
            }
    ahead = [board.row(cell, reading, "all", ADE, horizon) for horizon in range(len(HORIZONS_S))]
    by_horizon = [None if row is None else figure(row) for row in ahead]
    return {"key": key, "title": title, "kind": kind, "values": values, "against": against, "ade_ahead": by_horizon}


def _references(board: Board, subset: str) -> dict[str, Row]:
    """ADE of what every row is compared with."""
    found = {name: board.row(BASELINES, name, subset, ADE) for name in (*VELOCITIES, NEIGHBOUR)}
    if DEFAULT in board:
        found[DEFAULT] = board.row(DEFAULT, MODEL, subset, ADE)
    return {name: row for name, row in found.items() if row is not None}


def _in_plane(board: Board) -> dict[str, Any]:
    """ADE across the ray of the rows that have it, and how far they are from the default."""
    default = board.row(DEFAULT, MODEL + PLANE, "all", ADE) if DEFAULT in board else None
    found: dict[str, Any] = {}
    for cell in OBJECTIVES:
        row = board.row(cell.name, MODEL + PLANE, "all", ADE) if cell.in_plane and cell.name in board else None
        if row is not None:
            apart = None if default is None else difference(row, default)
            found[cell.name] = {"title": cell.title, "ade_mm": figure(row), "difference": apart}
    for name in (NO_MOTION, *VELOCITIES):
        row = board.row(BASELINES, name + PLANE, "all", ADE)
        if row is not None:
            found[name] = {"title": name, "ade_mm": figure(row), "difference": None}
    return found


def _verdict(board: Board) -> dict[str, Any]:
    """Constant velocity over the default, ADE to the last horizon, against the better of the two velocities."""
    if DEFAULT not in board:
        return {"met": None, "text": f"the row '{DEFAULT}' was not measured, so there is no verdict"}
    references, ours = _references(board, "all"), board.row(DEFAULT, MODEL, "all", ADE)
    assert ours is not None
    better = _velocity(board)
    times = ratio(references[better], ours)
    met = times["mean"] >= TARGET
    sure = times["low"] >= TARGET if met else times["high"] < TARGET
    text = (
        f"Target: the default's ADE up to {HORIZONS_S[-1]:g} s is at most 1/{TARGET:g} of constant velocity's, on "
        f"unseen seeds of seen tasks. **{'Met' if met else 'Not met'}**: {better}, the better of the two constant "
        f"velocities, has {times['mean']:.2f} times the default's ADE (95 % interval {times['low']:.2f} to "
        f"{times['high']:.2f}{'' if sure else ', which holds the target itself'}): {references[better].mean:.1f} mm "
        f"against {ours.mean:.1f} mm."
    )
    return {"met": met, "sure": sure, "against": better, "times": times, "text": text}


def _velocity(board: Board) -> str:
    """The better of the two constant velocities."""
    references = _references(board, "all")
    return min(VELOCITIES, key=lambda name: references[name].mean)
