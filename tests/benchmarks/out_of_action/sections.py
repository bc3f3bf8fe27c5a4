"""The configuration that the project's own stages run with, for one row, chain and training seed."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from align.config import AlignConfig, RolloutConfig
from data.config import IndexConfig, PackConfig
from data.simulation.config import SimulateConfig
from extract.config import ExtractConfig
from pipeline.config import Config
from pipeline.errors import UserError
from pretrain.config import PretrainConfig
from tests.benchmarks.out_of_action.episodes import SOURCES, capped, needs_no_more_than_main
from tests.benchmarks.out_of_action.rows import MAIN, ROWS, Row
from tests.benchmarks.out_of_action.suite import (
    CONTROL,
    EXTRACT,
    LEARNING,
    PRETRAIN,
    RATE_HZ,
    RECORDING,
    SCENES,
    VIDEOS,
    Budget,
)

MODELS = {
    "simulate": SimulateConfig, "index": IndexConfig, "extract": ExtractConfig, "pack": PackConfig,
    "pretrain": PretrainConfig, "align": AlignConfig, "rollout": RolloutConfig,
}  # fmt: skip


def sections(row: Row, chain: str, budget: Budget) -> dict[str, Any]:
    """All sections but ``run``. A row's own settings go over the budget's."""
    align: dict[str, Any] = {"head": row.head, "left_out": "tasks"}  # as if videos showed others, also where none do
    if row.head == "inverse_dynamics":
        align["action_chunk"] = 1
    pretrain = merged(LEARNING, budget.pretrain, PRETRAIN[chain], row.pretrain)
    if row.joint:
        align |= {name: pretrain[name] for name in ("learning_rate", "weight_decay", "ema_decay", "batch_size")}
        align |= {"start": "scratch", "videos": VIDEOS, "steps": pretrain["steps"] + budget.align["steps"]}
    rollout = {"tasks": list(budget.tasks), "episodes": budget.episodes, **CONTROL}
    if row.control != "policy":
        rollout["control"] = row.control
    return {
        "simulate": simulated(budget, needs_no_more_than_main(row, budget)),
        "index": {"sources": [{"name": name, "path": name, "license": "Apache-2.0"} for name in SOURCES]},
        "extract": merged({"rate_hz": RATE_HZ}, EXTRACT[chain]),
        "pack": {"val_fraction": 0.1},
        "pretrain": pretrain,
        "align": merged(budget.align, row.align, align),
        "rollout": merged(rollout, budget.rollout),
    }


def simulated(budget: Budget, main_only: bool) -> dict[str, Any]:
    """The section ``simulate`` with all that main needs, and with it the rows that need no more, or any row.

    The first ``judged`` robot episodes are for judging; hands show motions that no robot video of the main row shows.
    An episode of a name is the same in both.
    """
    main, every = ROWS[MAIN].clips, [row.clips for row in ROWS.values()]
    clips = [main] if main_only else every
    robots = max(max(c.labelled, c.seen[0], c.unseen[0]) for c in (capped(c, budget) for c in clips))
    hands = max(max(c.seen[1], c.unseen[1]) for c in (capped(c, budget) for c in clips))
    return {
        "labelled_tasks": list(budget.labelled_tasks),
        "video_only_tasks": list(budget.video_only_tasks),
        "robot_episodes": budget.judged + robots,
        "hand_episodes": hands,
        "hand_first": budget.judged + min(budget.robot, main.unseen[0]),
        "labelled_episodes": budget.judged + max(capped(c, budget).labelled for c in every),
        "resolution": budget.resolution,
        **RECORDING, **SCENES, **budget.scenes,
    }  # fmt: skip


def with_labels_for_all(budget: Budget, section: Mapping[str, Any]) -> dict[str, Any]:
    """The section ``simulate`` that records the same motions of video-only tasks once more, with their actions."""
    few = budget.judged + min(budget.labelled, ROWS["oracle"].clips.labelled)
    return {
        **section,
        "labelled_tasks": list(budget.video_only_tasks),
        "video_only_tasks": [],
        "robot_episodes": few,
        "labelled_episodes": few,
        "hand_episodes": 0,
    }


def impossible(row: Row, chain: str, budget: Budget) -> str | None:
    """Why the present code cannot run the row, or None: what its settings say that the stages do not know."""
    config = Config(sections(row, chain, budget), Path(f"{row.name} ({chain})"))
    wrong = []
    for name, model in MODELS.items():
        try:
            config.section(name, model)
        except UserError as error:
            wrong.append(str(error))
    return "\n".join(wrong) or None


def merged(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings over each other, key by key at any depth; the last one wins."""
    result: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            inner: Any = result.get(key)
            deeper = isinstance(inner, Mapping) and isinstance(value, Mapping)
            result[key] = merged(inner, value) if deeper else copy.deepcopy(value)
    return result
