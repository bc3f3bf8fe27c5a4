"""What a row gave, one JSON file per row that is kept with the code: RESULTS/<budget>/<row>.json.

    {"row", "words", "chains": {chain: {training seed: entry}}}

An entry holds, per task, the seeds tried and those that succeeded, and what it was made from and with; ``contents``:
what came out of the steps that make clips, see ``plan.Step``; ``earlier``: when and how long the same training was
measured before.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.atomic import write_json
from pipeline.errors import KinecloudError
from pipeline.process import one_at_a_time
from tests.benchmarks.out_of_action.films import write_films
from tests.benchmarks.out_of_action.plan import Plan
from tests.benchmarks.out_of_action.steps import Runner


def row_path(results: Path, budget: str, row: str) -> Path:
    return results / budget / f"{row}.json"


def read_row(results: Path, budget: str, row: str) -> dict[str, Any]:
    """The row's chains: entries by chain and training seed (as text); empty when it was never run."""
    path = row_path(results, budget, row)
    return json.loads(path.read_text())["chains"] if path.exists() else {}


def known_contents(results: Path, budget: str) -> dict[str, str]:
    """What all entries tell of the content of clips, by the digests of the steps that made them."""
    found = {}
    for path in sorted((results / budget).glob("*.json")):
        for entries in read_row(results, budget, path.stem).values():
            for entry in entries.values():
                found = made_from(found, entry)
    return found


def contents_for(results: Path, budget: str, row: str, chain: str, seed: int) -> dict[str, str]:
    """The same for one entry, whether it is there or not."""
    return made_from(known_contents(results, budget), _entry(results, budget, row, chain, seed))


def made_from(known: Mapping[str, str], entry: Mapping[str, Any]) -> dict[str, str]:
    """Contents of clips as the entry's own steps gave them, of other steps as they are known. A network that extraction
    teaches gives other bytes on another number of threads, and entries of both are fresh."""
    return {**known, **entry.get("contents", {})}


def tried(entry: Mapping[str, Any]) -> int:
    """Episodes of each task in closed loop."""
    return max(len(task["tried"]) for task in entry["tasks"].values())


def is_fresh(results: Path, plan: Plan) -> bool:
    """Whether there is a result of this very plan."""
    return _stored(results, plan).get("fingerprint") == plan.fingerprint


def confirm(results: Path, plan: Plan) -> bool:
    """Whether there is a result of a plan with the very clips of this one; the entry then tells of this plan, too."""
    if not is_fresh(results, plan):
        return False
    entry = _stored(results, plan)
    keep(results, plan, entry | {"contents": entry.get("contents", {}) | plan.contents})
    return True


def _stored(results: Path, plan: Plan) -> dict[str, Any]:
    return _entry(results, plan.budget.name, plan.row.name, plan.chain, plan.seed)


def _entry(results: Path, budget: str, row: str, chain: str, seed: int) -> dict[str, Any]:
    """Empty where there is none."""
    return read_row(results, budget, row).get(chain, {}).get(str(seed), {})


@contextlib.contextmanager
def alone_with(results: Path, planned: Plan) -> Iterator[None]:
    """Waits until nobody else, be it a thread or a process, reads and writes what the plan's budget gave."""
    folder = results / planned.budget.name
    folder.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(folder):
        yield


def keep(results: Path, plan: Plan, entry: dict[str, Any]) -> None:
    """Puts an entry in its place; those of other chains and seeds stay."""
    chains = read_row(results, plan.budget.name, plan.row.name)
    chains.setdefault(plan.chain, {})[str(plan.seed)] = entry
    path = row_path(results, plan.budget.name, plan.row.name)
    write_json(path, {"row": plan.row.name, "words": plan.row.words, "chains": chains})


def collect(runner: Runner, plan: Plan, seconds: dict[str, float], results: Path) -> dict[str, Any]:
    """The entry of a plan whose steps are done, and its films. Raises KinecloudError where episodes were lost."""
    folder = runner.folder(plan.steps["rollout"]) / "rollout"
    rolled = json.loads((folder / "rollout.json").read_text())
    rolls = [(row["task"], episode) for row in rolled["tasks"] for episode in row["episodes"]]
    if lost := [f"{task}, seed {episode['seed']}: {episode['lost']}" for task, episode in rolls if episode["lost"]]:
        raise KinecloudError(
            f"{len(lost)} episodes came to no end, which says nothing of the policy: {'; '.join(lost[:3])}. Remove "
            f"{folder.parent} to try again."
        )
    errors = json.loads((runner.folder(plan.steps["judge"]) / "judged.json").read_text())
    film = f"{plan.row.name}-{plan.chain}-{plan.seed}"
    return {
        "fingerprint": plan.fingerprint,
        "steps": {name: step.digest[:16] for name, step in plan.steps.items()},
        "contents": plan.contents,
        "tasks": {row["task"]: _task(row, plan, errors) for row in rolled["tasks"]},
        "labelled_episodes": runner.labelled(plan),
        "films": write_films(folder / "report", results / plan.budget.name, film),
        "seconds": seconds,
        "earlier": timed_before(results, plan),
        "versions": runner.versions,
        "hardware": hardware(),
        "date": datetime.date.today().isoformat(),
    }


def timed_before(results: Path, plan: Plan) -> list[dict[str, Any]]:
    """When and how long the plan's training was measured before, perhaps over other episodes; oldest first."""
    stored = _stored(results, plan)
    if not stored or stored["steps"]["align"] != plan.steps["align"].digest[:16]:
        return []
    times = {name: stored[name] for name in ("date", "hardware", "seconds")}
    return [*stored.get("earlier", []), times | {"episodes": tried(stored)}]


def _task(row: dict[str, Any], plan: Plan, errors: dict[str, float]) -> dict[str, Any]:
    """One task of ``rollout.json``. confused: episodes that ended as the labelled sibling of the task would have;
    null where the rollout does not tell."""
    episodes = row["episodes"]
    told = [episode["confused"] for episode in episodes if episode.get("confused") is not None]
    return {
        "labelled": row["task"] in plan.budget.labelled_tasks,
        "tried": [episode["seed"] for episode in episodes],
        "successes": [episode["seed"] for episode in episodes if episode["success"]],
        "confused": sum(map(bool, told)) if told else None,
        "path_mm": errors.get(row["task"]),
    }


def hardware() -> dict[str, Any]:
    """cpu: model in words. cores: usable ones. gpu: name or null."""
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
