"""Alignment's section of the report: errors of dimensions whose units differ, curves of what was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from align.report import write_section

LABELLED = {"clips": 4, "frames": 80, "tasks": ["push"], "simulated": False}


def document(policy: list[float], mean: list[float]) -> dict[str, Any]:
    errors = {
        method: {"first": found, "chunk": found, "by_step": [sum(found)]}
        for method, found in (("policy", policy), ("dataset mean", mean))
    }
    return {"windows": 3, "errors": errors, "names": ["x", "gripper"], "unit": "m and 0..1", "rate_hz": 5.0}


@pytest.mark.parametrize(
    ("policy", "mean", "told"),
    [
        ([0.004, 0.0], [0.005, 0.5], "off by 40 % of what the mean action would give (mean over 2 dimensions)"),
        ([0.004, 0.1], [0.005, 0.0], "off by 80 % of what the mean action would give."),  # the gripper never moved
        ([0.0, 0.0], [0.0, 0.0], "held-out clips show no action but the mean"),
    ],
)
def test_a_dimension_counts_by_its_share_not_by_its_unit(
    tmp_path: Path, policy: list[float], mean: list[float], told: str
) -> None:
    write_section(tmp_path, document(policy, mean), LABELLED, "a head")
    assert told in json.loads((tmp_path / "report" / "section.json").read_text())["summary"]


def test_curves_of_a_training_that_was_given_up_are_not_shown(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": 0.5}) + "\n")
    for trained in (True, False):
        write_section(tmp_path, document([0.1, 0.1], [0.2, 0.2]), LABELLED, "a head", trained)
        assert ("Training loss" in (tmp_path / "report" / "section.json").read_text()) is trained
