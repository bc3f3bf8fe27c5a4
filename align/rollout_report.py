"""The rollouts' part of the run report: success per task, and what it looks like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from align.conduct import Outcome
from data.simulation.tasks import INSTRUCTIONS
from pipeline.section import Section

ORDER = 70
KINDS = ((True, "tasks with labelled episodes"), (False, "tasks seen only in video"))


def write_section(folder: Path, result: dict[str, Any], examples: list[Outcome]) -> None:
    """Writes the report section of RUN/rollout."""
    rows = result["tasks"]
    section = Section("Rollout (simulated)", ORDER)
    section.note(result["conditions"], kind="simulated")
    section.summary(summary(rows))
    section.facts(
        [
            (f"success, {words}", "{} of {}".format(*_successes([row for row in rows if row["labelled"] is labelled])))
            for labelled, words in KINDS
            if any(row["labelled"] is labelled for row in rows)
        ],
        top=True,
    )
    told = [episode["confused"] for row in rows for episode in row["episodes"] if episode["confused"] is not None]
    if told:
        section.facts([("rather did the labelled sibling", f"{sum(told)} of {len(told)} episodes that have one")])
    references = list(dict.fromkeys(name for row in rows for name in row["references"]))
    section.table(
        "Episodes that succeed (95 % Wilson interval)",
        ["task", "instruction", "labels seen", "policy", *references],
        [
            [
                row["task"],
                row["instruction"],
                "yes" if row["labelled"] else "no, video only",
                rate_text(row["policy"]),
                *(rate_text(row["references"][name]) if name in row["references"] else "–" for name in references),
            ]
            for row in rows
        ],
    )
    section.text(
        "A reference repeats one action, the mean of the labels, whatever it sees. Where it succeeds too, the task "
        "needs no eyes, and success there says little about the policy."
    )
    lost = [(row["task"], episode) for row in rows for episode in row["episodes"] if episode["lost"]]
    for task, episode in lost:
        section.note(f"{task}, seed {episode['seed']}: counted as a failure, {episode['lost']}", kind="warning")
    for outcome in examples:
        ended = (
            f"succeeds after {outcome.seconds:.1f} s" if outcome.success else f"fails within {outcome.seconds:.1f} s"
        )
        frames = [(jpeg, f"{seconds:.2f} s") for jpeg, seconds in outcome.film]
        section.film(
            f"{outcome.task}: “{INSTRUCTIONS[outcome.task]}” {ended} (simulated). White: tracked cloud now; "
            "orange: as predicted at the last horizon",
            frames,
            fps=4,
            top=outcome.success,
        )
    section.save(folder)


def summary(rows: list[dict[str, Any]]) -> str:
    """One sentence: successes with and without labels, and those of the better constant action per task."""
    parts = []
    for labelled, words in KINDS:
        chosen = [row for row in rows if row["labelled"] is labelled]
        if chosen:
            successes, episodes = _successes(chosen)
            constant = sum(max((r["successes"] for r in row["references"].values()), default=0) for row in chosen)
            parts.append(
                f"{successes} of {episodes} episodes on {len(chosen)} {words} (the better constant action: {constant})"
            )
    return f"In the simulator the policy succeeds in {', and in '.join(parts)}."


def _successes(rows: list[dict[str, Any]]) -> tuple[int, int]:
    """Successes and episodes of the policy over some tasks."""
    return sum(row["policy"]["successes"] for row in rows), sum(row["policy"]["episodes"] for row in rows)


def rate_text(rate: dict[str, Any]) -> str:
    """``4 of 5 (38–96 %)``."""
    return f"{rate['successes']} of {rate['episodes']} ({100 * rate['low']:.0f}–{100 * rate['high']:.0f} %)"
