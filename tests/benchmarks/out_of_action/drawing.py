"""Plain SVG figures: success by row with its interval, and success over what is varied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from tests.benchmarks.out_of_action.lines import STALE

COLORS = {"truth": "#0072b2", "rgbd": "#d55e00", "rgb": "#009e73"}  # Okabe and Ito: told apart by the colour-blind
_INK, _FAINT = "#333", "#ddd"
_ROW, _LEFT, _BAR, _TOP = 22, 210, 420, 34
_WIDTH = _LEFT + _BAR + 60
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
            _text(_LEFT - 8, y + 13, f"{row['row']} ({row['chain']}{', stale' if stale else ''})", "end"),
            f'<rect x="{_LEFT}" y="{y + 2}" width="{value["mean"] * _BAR:.1f}" height="{_ROW - 8}" fill="{color}" '
            f'fill-opacity="{0.25 if stale else 0.75}"/>',
            _line(low, y + 9, high, y + 9, _INK, 2),
            _text(_LEFT + _BAR + 8, y + 13, f"{100 * value['mean']:.0f} %"),
        ]
    return _svg(_WIDTH, height, parts)


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


def _svg(width: float, height: float, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" ' \
           f'height="{height:g}" font-family="sans-serif" font-size="12">'  # fmt: skip
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>"]) + "\n"


def _line(x1: float, y1: float, x2: float, y2: float, color: str, width: float = 1) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{color}" stroke-width="{width:g}"/>'


def _text(x: float, y: float, words: str, anchor: str = "start", color: str = _INK) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}">{escape(words)}</text>'
