"""The steps of a row and training seed, each named by what it is made from: equal steps of different rows are one.

    simulate ─▶ episodes ─▶ extract ─▶ pack ─▶ (grid) ─▶ pretrain ─▶ align ─▶ rollout
                               └──▶ judged ────────────────▶ judge

A step's digest covers its settings, the definitions that decide its result and what the steps before it are: their
digests, or, of steps that make clips, what the clips hold where that is known. So a result can be told to be stale
without its data, and a change of extraction that gives the same clips again makes no training stale. A row with other
episodes than main's goes on from main's clips: only what is new is extracted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from data.simulation.sensors import Sensors
from pipeline.fingerprint import digest
from tests.benchmarks.out_of_action.code import ROOT, code_digest
from tests.benchmarks.out_of_action.episodes import capped, names, needs_no_more_than_main, stock
from tests.benchmarks.out_of_action.rows import MAIN, ROWS, Clips, Row
from tests.benchmarks.out_of_action.sections import sections, simulated, with_labels_for_all
from tests.benchmarks.out_of_action.suite import DATA_SEED, Budget


@dataclass(frozen=True)
class Step:
    """One step. config: the sections of its configuration. facts: what else decides it, as JSON. before: the steps it
    reads from, by what they are to it. work: what is not JSON, for whoever does the step. root: where its code is.
    contents: digests of what is known to have come out of steps, by their own; grows as steps are done."""

    name: str
    seed: int
    config: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    before: Mapping[str, Step] = field(default_factory=dict)
    work: Mapping[str, Any] = field(default_factory=dict)
    root: Path = ROOT
    contents: dict[str, str] = field(default_factory=dict)

    @cached_property
    def code(self) -> str:
        """Digest of the definitions that decide the result, as they were when first asked for."""
        return code_digest(self.name, self.root)

    @property
    def document(self) -> dict[str, Any]:
        """All that the result is made from, one JSON document."""
        return {
            "step": self.name,
            "seed": self.seed,
            "config": dict(self.config),
            "facts": dict(self.facts),
            "code": self.code,
            "before": {name: step.contents.get(step.digest, step.digest) for name, step in self.before.items()},
        }

    @property
    def digest(self) -> str:
        return digest(self.document)

    def folder(self, work: Path) -> Path:
        """Where the step works and leaves its result: a run folder of the project."""
        return work / self.name / self.digest[:16]


@dataclass(frozen=True)
class Plan:
    """The steps of one row, chain and training seed. steps: in the order they can be done, ``rollout`` the last."""

    row: Row
    chain: Sensors
    seed: int
    budget: Budget
    clips: Clips
    steps: dict[str, Step]

    @property
    def fingerprint(self) -> str:
        """Of the row's result."""
        return digest({name: self.steps[name].digest for name in ("judge", "rollout")})

    @property
    def contents(self) -> dict[str, str]:
        """What is known to have come out of the steps, by their digests."""
        digests = [step.digest for step in self.steps.values()]
        known = self.steps["rollout"].contents
        return {name: known[name] for name in digests if name in known}


def plan(
    row: Row, chain: Sensors, seed: int, budget: Budget, root: Path = ROOT, contents: Mapping[str, str] | None = None
) -> Plan:
    """What is to be done, with the code in ``root``; nothing is read but source files. contents: see ``Step``."""
    return _plan(row, chain, seed, budget, root, dict(contents or {}))


def _plan(row: Row, chain: Sensors, seed: int, budget: Budget, root: Path, contents: dict[str, str]) -> Plan:
    step = partial(Step, root=root, contents=contents)
    config, clips, pool = sections(row, chain, budget), capped(row.clips, budget), stock(row, budget)

    def only(*wanted: str) -> dict[str, Any]:
        return {name: config[name] for name in wanted}

    first = simulate = step("simulate", DATA_SEED, {"simulate": simulated(budget, main_only=True)})
    if not needs_no_more_than_main(row, budget):
        simulate = step("simulate", DATA_SEED, only("simulate"), before={"first": first})
    before = {"simulate": simulate}
    if clips.oracle:
        again = with_labels_for_all(budget, config["simulate"])
        before["with_labels"] = step("simulate", DATA_SEED, {"simulate": again})
    gathered = {"chain": chain, "names": names(pool, budget)}
    episodes = step("episodes", DATA_SEED, {}, gathered, before, {"clips": pool, "budget": budget})
    of_main = _clips_of_main(pool, chain, seed, budget, root, contents)
    known = {"known": of_main["extract"]} if of_main else {}
    extract = step("extract", DATA_SEED, only("index", "extract"), {}, {"episodes": episodes, **known})

    def packed(judged: bool) -> Step:
        facts = {"clips": None if judged else asdict(clips), "judged": judged}
        work = {"clips": clips, "budget": budget}
        return step("pack", DATA_SEED, only("pack"), facts, {"extract": extract}, work)

    pack, judged = packed(judged=False), packed(judged=True)
    learnt = step("grid", DATA_SEED, {}, {}, {"pack": pack, "extract": extract}) if row.grid else pack
    pretrain = step("pretrain", seed, only("pretrain"), {}, {"pack": learnt})
    judge = step("judge", seed, only("pretrain"), {}, {"pretrain": pretrain, "judged": judged})
    align = step("align", seed, only("align"), {}, {"pack": pack, "pretrain": pretrain})
    scenes = {name: config["simulate"][name] for name in sorted(config["simulate"]) if name not in _OF_RECORDING}
    rollout = step("rollout", seed, {"simulate": scenes, **only("extract", "rollout")}, {},
                   {"extract": extract, "pack": pack, "pretrain": pretrain, "align": align})  # fmt: skip
    return Plan(row, chain, seed, budget, clips, {
        "simulate": first, **({"simulate_more": simulate} if simulate is not first else {}),
        **({"with_labels": before["with_labels"]} if clips.oracle else {}),
        **{f"{name}_of_main": of_main[name] for name in of_main},
        "episodes": episodes, "extract": extract, "pack": pack, "judged": judged,
        **({"grid": learnt} if row.grid else {}),
        "pretrain": pretrain, "judge": judge, "align": align, "rollout": rollout,
    })  # fmt: skip


def _clips_of_main(
    pool: Clips, chain: Sensors, seed: int, budget: Budget, root: Path, contents: dict[str, str]
) -> dict[str, Step]:
    """The steps to main's clips, which a row that learns from other episodes takes over, together with what extraction
    learned there of a robot's looks: rows differ in what their policy knows, not in how grippers are found.

    None for main's own clips.
    """
    main = ROWS[MAIN]
    if pool == stock(main, budget):
        return {}
    steps = _plan(main, chain, seed, budget, root, contents).steps
    return {name: steps[name] for name in ("episodes", "extract")}


# What a rollout has no use for: the number of episodes and how they were recorded.
_OF_RECORDING = frozenset({
    "labelled_tasks", "video_only_tasks", "robot_episodes", "hand_episodes", "hand_first", "labelled_episodes",
    "action_noise", "closeup_clips",
})  # fmt: skip
