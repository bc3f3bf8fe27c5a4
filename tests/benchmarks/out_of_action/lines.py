"""The lines of the table: each row in each of its chains, with its stored results and whether they are up to date."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from data.simulation.sensors import Sensors
from tests.benchmarks.out_of_action.intervals import Trials, difference, figure
from tests.benchmarks.out_of_action.plan import plan
from tests.benchmarks.out_of_action.results import known_contents, made_from, read_row, tried
from tests.benchmarks.out_of_action.rows import ROWS, Row
from tests.benchmarks.out_of_action.sections import impossible
from tests.benchmarks.out_of_action.suite import CHAINS, Budget

FRESH, STALE, NOT_RUN, IMPOSSIBLE = "fresh", "stale", "not run", "not possible with the present code"


@dataclass(frozen=True)
class Took:
    """How long one training seed took. minutes: by step, also where another row did it."""

    seed: int
    date: str
    cores: int
    episodes: int  # of each task
    minutes: dict[str, float]

    @property
    def whole(self) -> float:
        return sum(self.minutes.values())


@dataclass(frozen=True)
class Line:
    """One row in one chain. entries: by training seed, all fresh or all stale; see ``results``."""

    row: Row
    chain: Sensors
    state: str
    entries: dict[str, dict[str, Any]]
    why: str = ""

    @property
    def measured(self) -> bool:
        """With the present code."""
        return self.state == FRESH

    def of_seeds(self, seeds: Sequence[str]) -> Line:
        """The same of fewer training seeds."""
        return replace(self, entries={seed: self.entries[seed] for seed in seeds})

    def minus(self, other: Line, labelled: bool) -> dict[str, float]:
        """Difference of means over the training seeds that both have, or over all where they share none."""
        return difference(*(line.trials(labelled) for line in shared(self, other)))

    def tasks(self, labelled: bool) -> list[str]:
        first = next(iter(self.entries.values()))["tasks"]
        return [task for task, found in first.items() if found["labelled"] is labelled]

    def trials(self, labelled: bool) -> Trials:
        def count(task: str) -> list[tuple[int, int]]:
            found = [entry["tasks"][task] for entry in self.entries.values()]
            return [(len(one["successes"]), len(one["tried"])) for one in found]

        return Trials(f"{self.row.name}/{self.chain}/{labelled}", {task: count(task) for task in self.tasks(labelled)})

    @cached_property
    def unseen(self) -> dict[str, float]:
        """Mean over the tasks seen only in video, with its interval."""
        return figure(self.trials(labelled=False))

    @property
    def worst(self) -> tuple[str, float]:
        rates = self.trials(labelled=False).rates()
        task = min(rates, key=lambda name: rates[name])
        return task, rates[task]

    def took(self) -> list[Took]:
        """Every time it was measured, by training seed and date."""
        found = []
        for seed, entry in self.entries.items():
            for one in (*entry.get("earlier", ()), {**entry, "episodes": tried(entry)}):
                minutes = {step: seconds / 60 for step, seconds in one["seconds"].items()}
                found.append(Took(int(seed), one["date"], one["hardware"]["cores"], one["episodes"], minutes))
        return found

    def of_tasks(self) -> list[dict[str, Any]]:
        """Each task: its share of successes with interval, how often its sibling's outcome came instead, path error."""
        found = []
        for labelled in (True, False):
            trials = self.trials(labelled) if self.tasks(labelled) else None
            for task in self.tasks(labelled):
                assert trials is not None
                parts = [entry["tasks"][task] for entry in self.entries.values()]
                told = [part["confused"] for part in parts if part["confused"] is not None]
                # what is judged is a predictor of videos, which one training of both does not use
                paths = [part["path_mm"] for part in parts if part["path_mm"] is not None and not self.row.joint]
                found.append({
                    "task": task, "labelled": labelled,
                    "rate": figure(Trials(f"{trials.name}/{task}", {task: trials.counts[task]})),
                    "confused": sum(told) / sum(len(p["tried"]) for p in parts) if len(told) == len(parts) else None,
                    "path_mm": round(float(np.mean(paths)), 1) if paths else None,
                })  # fmt: skip
        return found


def shared(line: Line, other: Line) -> tuple[Line, Line]:
    """Both with the training seeds that both have; as they are where they share none."""
    seeds = [seed for seed in line.entries if seed in other.entries]
    return (line.of_seeds(seeds), other.of_seeds(seeds)) if seeds else (line, other)


def lines_of(results: Path, budget: Budget) -> dict[tuple[str, str], Line]:
    """All rows in all chains that the table has, by row and chain, measured or not."""
    contents = known_contents(results, budget.name)
    return {
        (row.name, chain): line_of(
            row, chain, budget, read_row(results, budget.name, row.name).get(chain, {}), contents
        )
        for row in ROWS.values()
        for chain in _chains(row, budget, results)
    }


def _chains(row: Row, budget: Budget, results: Path) -> list[Sensors]:
    """The chains of the row that the budget has, its first one where there is none, and those with results."""
    stored = read_row(results, budget.name, row.name)
    usual = [chain for chain in row.chains if chain in budget.chains] or list(budget.chains[:1])
    return [chain for chain in CHAINS if chain in usual or chain in stored]


def line_of(
    row: Row, chain: Sensors, budget: Budget, entries: dict[str, dict[str, Any]], contents: Mapping[str, str]
) -> Line:
    """Results of other code are used only where there are none of the present code, and the line says so.

    contents: what is known of other entries, see ``plan.Step``. How many episodes were tried is the entry's own: it may
    be fewer than the budget's.
    """

    def present(seed: str, entry: dict[str, Any]) -> bool:
        own = made_from(contents, entry)
        planned = plan(row, chain, int(seed), replace(budget, episodes=tried(entry)), contents=own)
        return entry["fingerprint"] == planned.fingerprint

    fresh = {seed: entry for seed, entry in sorted(entries.items()) if present(seed, entry)}
    if fresh:
        return Line(row, chain, FRESH, fresh)
    if entries:
        newest = max(entries.values(), key=lambda entry: entry["date"])
        alike = {
            seed: entry for seed, entry in sorted(entries.items()) if entry["tasks"].keys() == newest["tasks"].keys()
        }
        return Line(row, chain, STALE, alike)
    why = impossible(row, chain, budget)
    return Line(row, chain, IMPOSSIBLE if why else NOT_RUN, {}, why or "")
