"""The stages of a run one below the other: what happened, when within the run, for how long, with how much memory."""

from __future__ import annotations

from typing import Any

from pipeline.report.html import duration, esc, memory

# By the first word of the status: "failed with exit code 3" is a failure.
_LOOK = {"done": "done", "failed": "failed", "interrupted": "failed", "running": "running"}


def stages_html(stages: list[dict[str, Any]]) -> str:
    """A row per stage with a bar in proportion to its time, after the bars of the stages before it."""
    if not stages:
        return ""
    lengths = [_number(stage.get("seconds")) for stage in stages]
    total, before, rows = sum(lengths), 0.0, []
    for stage, length in zip(stages, lengths, strict=True):
        start, width = (100 * before / total, 100 * length / total) if total else (0.0, 0.0)
        before += length
        status = str(stage.get("status") or "unknown")
        look = _LOOK.get(status.lower().split()[0] if status.split() else "", "other")
        rows.append(
            f'<tr class="{look}"><th scope="row">{esc(stage.get("name", "?"))}</th>'
            f'<td><span class="status">{esc(status)}</span></td>'
            f'<td class="bar"><svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
            f'<rect x="{min(start, 99.5):.2f}" width="{max(width, 0.5):.2f}" height="8"/></svg></td>'
            f'<td class="number">{duration(stage.get("seconds"))}</td>'
            f'<td class="number">{memory(stage.get("peak_memory_mb"))}</td></tr>'
        )
    return (
        '<section id="stages"><h2>Stages</h2><div class="scroll" tabindex="0" role="region" aria-label="Stages">'
        '<table class="timeline"><thead><tr><th scope="col">stage</th><th scope="col">status</th>'
        '<th scope="col"><span class="spoken">share of the time</span></th><th scope="col" class="number">time</th>'
        f'<th scope="col" class="number">peak memory</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
        f"{_commands(stages)}</section>"
    )


def _commands(stages: list[dict[str, Any]]) -> str:
    lines = [_command(stage["command"]) for stage in stages if stage.get("command")]
    if not lines:
        return ""
    return f'<details><summary>Commands</summary><pre tabindex="0">{esc(chr(10).join(lines))}</pre></details>'


def _command(command: Any) -> str:
    return " ".join(str(word) for word in command) if isinstance(command, list) else str(command)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else 0.0
