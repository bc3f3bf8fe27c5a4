"""Plain SVG figures: success by row with its interval, by row and task, and over what is varied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from tests.benchmarks.out_of_action.lines import STALE

COLORS = {"truth": "#0072b2", "rgbd": "#d55e00", "rgb": "#009e73"}  # Okabe and Ito: told apart by the colour-blind
_INK, _FAINT = "#333", "#ddd"
_ROW, _LEFT, _BAR, _TOP = 22, 210, 420, 34
_WIDTH = _LEFT + _BAR + 60
_CELL = 38  # width of a task's column
_PANEL = (330, 220)  # width and height of a curve


def bars(rows: Sequence[Mapping[str, Any]]) -> str:
    """One bar per row with ``row``, ``chain``, ``state`` and ``unseen`` (mean, low, high), pale if stale; on white."""
    height = _TOP + _ROW * len(rows) + 24
    parts = [_text(_LEFT, 18, "Success on tasks seen only in video, mean over tasks, 95 % interval")]
    for share in (0, 0.25, 0.5, 0.75, 1):
        x = _LEFT + share * _BAR
        parts += [_line(x, _TOP - 6, x, height - 20, _FAINT), _text(x, height - 6, f"{100 * share:g} %", "middle")]
    for number, row in enumerate(rows):
        y, value = _TOP + _ROW * number, row["unseen"]
        low, high = (_LEFT + value[end] * _BAR for end in ("low", "high"))
        color, stale = COLORS[row["chain"]], row["state"] == STALE
        parts += [
            _text(_LEFT - 8, y + 13, _named(row), "end"),
            f'<rect x="{_LEFT}" y="{y + 2}" width="{value["mean"] * _BAR:.1f}" height="{_ROW - 8}" fill="{color}" '
            f'fill-opacity="{0.25 if stale else 0.75}"/>',
            _line(low, y + 9, high, y + 9, _INK, 2),
            _text(_LEFT + _BAR + 8, y + 13, f"{100 * value['mean']:.0f} %"),
        ]
    return _svg(_WIDTH, height, parts)


def cells(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line per row with ``row``, ``chain``, ``state`` and ``tasks``, one column per task: success in per cent, the
    darker the better; labelled tasks first, apart from those seen only in video."""
    labelled = {task["task"]: task["labelled"] for row in rows for task in row["tasks"]}
    tasks = sorted(labelled, key=lambda task: not labelled[task])
    seen = sum(labelled.values())
    left = {task: _LEFT + _CELL * number + (0 if labelled[task] else 16) for number, task in enumerate(tasks)}
    width, top = max(left.values()) + _CELL + 70, 150
    parts = [_text(_LEFT, 18, f"Success in per cent: {seen} tasks with labels, then {len(tasks) - seen} without")]
    for task, x in left.items():
        parts.append(_text(x + _CELL / 2, top - 6, task.removesuffix("-v3"), turned=-50))
    for number, row in enumerate(rows):
        y, color = top + _ROW * number, COLORS[row["chain"]]
        parts.append(_text(_LEFT - 8, y + 15, _named(row), "end"))
        for task in row["tasks"]:
            x, share = left[task["task"]], task["rate"]["mean"]
            parts += [
                f'<rect x="{x}" y="{y}" width="{_CELL - 2}" height="{_ROW - 2}" fill="{color}" '
                f'fill-opacity="{share:.2f}" stroke="{_FAINT}"/>',
                _text(x + _CELL / 2 - 1, y + 15, f"{100 * share:.0f}", "middle", "white" if share > 0.65 else _INK),
            ]
    return _svg(width, top + _ROW * len(rows) + 8, parts)


def curves(panels: Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]]) -> str:
    """Panels beside each other. panels: by the words under the axis, points (x, mean, low, high) by chain."""
    width, height = _PANEL
    parts: list[str] = []
    for number, (words, series) in enumerate(panels.items()):
        left, right = 50 + number * width, number * width + width - 16
        top, bottom = 16, height - 44
        most = max((point["x"] for points in series.values() for point in points), default=1) or 1
        for share in (0, 0.5, 1):
            y = bottom - share * (bottom - top)
            parts += [_line(left, y, right, y, _FAINT), _text(left - 6, y + 4, f"{100 * share:g} %", "end")]
        parts.append(_text((left + right) / 2, height - 8, words, "middle"))
        marks = sorted({point["x"] for points in series.values() for point in points})
        parts += [_text(left + (right - left) * x / most, bottom + 16, f"{x:g}", "middle") for x in marks]
        for chain, points in series.items():
            at = [(left + (right - left) * p["x"] / most, *(bottom - (bottom - top) * p[k] for k in _ENDS))
                  for p in points]  # fmt: skip
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y, *_ in at)
            parts.append(f'<polyline points="{path}" fill="none" stroke="{COLORS[chain]}" stroke-width="2"/>')
            for x, mean, low, high in at:
                parts += [_line(x, low, x, high, COLORS[chain], 1.5),
                          f'<circle cx="{x:.1f}" cy="{mean:.1f}" r="3.5" fill="{COLORS[chain]}"/>']  # fmt: skip
            parts.append(_text(at[-1][0], at[-1][1] - 8, chain, "end", COLORS[chain]))
    return _svg(len(panels) * width, height, parts)


_ENDS = ("mean", "low", "high")


def _named(row: Mapping[str, Any]) -> str:
    return f"{row['row']} ({row['chain']}{', stale' if row['state'] == STALE else ''})"


def _svg(width: float, height: float, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" ' \
           f'height="{height:g}" font-family="sans-serif" font-size="12">'  # fmt: skip
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>"]) + "\n"


def _line(x1: float, y1: float, x2: float, y2: float, color: str, width: float = 1) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{color}" stroke-width="{width:g}"/>'


def _text(x: float, y: float, words: str, anchor: str = "start", color: str = _INK, turned: float = 0) -> str:
    """turned: degrees, clockwise around its anchor."""
    turn = f' transform="rotate({turned:g} {x:.1f} {y:.1f})"' if turned else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}"{turn}>{escape(words)}</text>'
