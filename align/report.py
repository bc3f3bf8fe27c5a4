"""Alignment's part of the run report: learning curves, and action errors beside the references."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.section import Section

ORDER = 60


def write_section(
    folder: Path, document: dict[str, Any], labelled: dict[str, Any], head: str, trained: bool = True
) -> None:
    """Writes the report section of RUN/align. head: what it is, for people. trained: step by step, so that there are
    learning curves; those of a training that was given up for a fitted head are not shown."""
    section = Section("Alignment: from motion to actions", ORDER)
    if labelled["simulated"]:
        section.note("The labelled episodes are simulated.", kind="simulated")
    section.summary(_summary(document, labelled))
    section.facts(
        [
            ("labelled training clips", labelled["clips"]),
            ("labelled frames", labelled["frames"]),
            ("head", head),
            ("tasks with labels", ", ".join(labelled["tasks"])),
            ("action", f"{', '.join(document['names'])} ({document['unit']}, {document['rate_hz']:g} Hz)"),
        ]
    )
    if trained:
        _curves(section, folder / "metrics.jsonl")
    if document["windows"]:
        for part, title in (("first", "the next action"), ("chunk", "the whole chunk")):
            rows = [[method, *errors[part]] for method, errors in document["errors"].items()]
            section.table(
                f"Mean absolute error of {title} on held-out episodes ({document['unit']})",
                ["method", *document["names"]],
                rows,
            )
        ahead = {
            method: ([(k + 1) / document["rate_hz"] for k in range(len(errors["by_step"]))], _known(errors["by_step"]))
            for method, errors in document["errors"].items()
        }
        section.curves("Action error by how far ahead", "seconds ahead", "mean absolute error", ahead)
    else:
        section.note("No labelled episode was held out, so the policy could not be evaluated on clips.", kind="warning")
    section.save(folder)


def _summary(document: dict[str, Any], labelled: dict[str, Any]) -> str:
    start = f"{labelled['clips']} labelled clips of {len(labelled['tasks'])} tasks turned the predictor into a policy"
    if not document["windows"]:
        return f"{start}."
    ours, mean = (document["errors"][method]["first"] for method in ("policy", "dataset mean"))
    shares = [one / other for one, other in zip(ours, mean, strict=True) if other > 0]  # units differ, shares do not
    if not shares:
        return f"{start}; held-out clips show no action but the mean, so that nothing is compared."
    share = f"{100 * sum(shares) / len(shares):.0f} % of what the mean action would give"
    of = f" (mean over {len(shares)} dimensions)" if len(shares) > 1 else ""
    return f"{start}; on held-out clips its next action is off by {share}{of}."


def _known(values: list[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]


def _curves(section: Section, metrics: Path) -> None:
    rows = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
    training = [row for row in rows if "loss" in row]
    if training:
        steps = [row["step"] for row in training]
        names = sorted(set(training[0]) - {"step", "learning_rate", "gradient_norm"})
        series = {name: (steps, [row.get(name, float("nan")) for row in training]) for name in names}
        section.curves("Training loss", "step", "loss", series, log_y=True)
    held_out = [row for row in rows if "val_action_error" in row]
    if held_out:
        values = ([row["step"] for row in held_out], [row["val_action_error"] for row in held_out])
        section.curves("Held-out action error", "step", "normalised", {"held out": values})
