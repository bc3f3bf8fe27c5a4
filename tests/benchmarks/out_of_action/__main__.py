"""docs/results/out_of_action.md: what makes tasks executable that were seen in video only.

    python -m tests.benchmarks.out_of_action --budget smoke|small|cpu|gpu --work DIR --json F [--rows NAME ...]
        [--chains truth rgbd rgb] [--seeds 0 1 2] [--episodes N] [--results docs/results/out_of_action]
        [--page docs/results/out_of_action.md] [--jobs N] [--again]

DIR keeps every step (data, extraction, training, ...) by what it was made from: a benchmark that was killed goes on,
rows share what they have alike, and what was made with other code or settings is made again. RESULTS keeps one JSON per
row.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from data.simulation.sensors import Sensors
from pipeline.atomic import write_bytes, write_json
from pipeline.errors import KinecloudError, UserError
from tests.benchmarks.out_of_action.code import same_code, snapshot
from tests.benchmarks.out_of_action.figures import figures_of
from tests.benchmarks.out_of_action.lines import Line, lines_of
from tests.benchmarks.out_of_action.page import page, pictures
from tests.benchmarks.out_of_action.plan import Plan, plan
from tests.benchmarks.out_of_action.results import alone_with, collect, confirm, contents_for, is_fresh, keep
from tests.benchmarks.out_of_action.rows import MAIN, ROWS, Row
from tests.benchmarks.out_of_action.sections import impossible
from tests.benchmarks.out_of_action.steps import Runner
from tests.benchmarks.out_of_action.suite import BUDGETS, CHAINS, Budget

RESULTS = Path("docs/results/out_of_action")
WITHOUT = "labelled_videos"  # what the margin is over


def main(words: Sequence[str] | None = None) -> int:
    """0 done, 1 when a row failed or the margin was missed, 2 for what cannot be run."""
    arguments = _arguments(words)
    budget = BUDGETS[arguments.budget]
    if arguments.episodes is not None:
        budget = replace(budget, episodes=arguments.episodes)
    try:
        failed = [] if arguments.again else measure(arguments, budget)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    lines = lines_of(arguments.results, budget)
    figures = figures_of(lines, budget, {"episodes": budget.episodes, "same_code": same_code()})
    write_json(arguments.json, figures)
    if arguments.page:
        write_page(arguments.page, arguments.results, figures)
    for row in figures["rows"]:
        if "unseen" in row:
            value = row["unseen"]
            print(f"{row['row']} ({row['chain']}, {row['state']}): {value['mean']:.2f} "
                  f"({value['low']:.2f} to {value['high']:.2f})")  # fmt: skip
    wrong = [*failed, *(missed(lines, budget) if not failed else [])]
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    return 1 if wrong else 0


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.out_of_action", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("--budget", choices=tuple(BUDGETS), required=True)
    parser.add_argument("--rows", nargs="+", choices=tuple(ROWS), help="default: those of the budget")
    parser.add_argument("--chains", nargs="+", choices=CHAINS, help="default: those of the budget that a row has")
    parser.add_argument("--seeds", nargs="+", type=int, help="of training; default: those of the budget")
    parser.add_argument("--episodes", type=int, help="per task and training seed; default: that of the budget")
    parser.add_argument("--work", type=Path, required=True, help="folder that keeps every step")
    parser.add_argument("--json", type=Path, required=True, help="all figures")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder that keeps one JSON per row")
    parser.add_argument("--page", type=Path, help="write the page, such as docs/results/out_of_action.md")
    parser.add_argument("--workers", type=int, default=0, help="processes of a stage; 0 = number of cores")
    parser.add_argument("--jobs", type=int, help="rows that are measured side by side; default: that of the budget")
    parser.add_argument("--again", action="store_true", help="measure nothing: write figures and page from the results")
    return parser.parse_args(words)


def measure(arguments: argparse.Namespace, budget: Budget) -> list[str]:
    """Runs what has no fresh result; one line per row that failed. Raises UserError for a row that was asked for and
    that the present code cannot run."""
    wanted = [ROWS[name] for name in arguments.rows or budget.rows or ROWS]
    pairs: list[tuple[Row, Sensors]] = [
        (row, chain) for row in wanted for chain in chains_of(row, budget, arguments.chains, arguments.rows)
    ]
    unknown = {(row.name, chain): why for row, chain in pairs if (why := impossible(row, chain, budget))}
    if unknown and arguments.rows:
        raise UserError("\n".join(unknown.values()))
    for (name, chain), why in unknown.items():
        print(f"{name} ({chain}) is left out: {why}")
    runner, root = Runner(arguments.work, arguments.workers), snapshot(arguments.work)
    began = time.monotonic()

    def one(what: tuple[int, Row, Sensors]) -> str | None:
        """What went wrong, if anything."""
        (seed, row, chain), wrong = what, None
        try:
            contents = contents_for(arguments.results, budget.name, row.name, chain, seed)
            told = run_row(runner, plan(row, chain, seed, budget, root, contents), arguments.results)
        except KinecloudError as error:
            told, wrong = "failed", f"{row.name} ({chain}, seed {seed}): {error}"
        print(f"{row.name} ({chain}, seed {seed}): {told}; {time.monotonic() - began:.0f} s", flush=True)
        return wrong

    seeds = arguments.seeds or budget.seeds
    todo = [(seed, row, chain) for seed in seeds for row, chain in pairs if (row.name, chain) not in unknown]
    with ThreadPoolExecutor(arguments.jobs or budget.jobs) as pool:
        return [wrong for wrong in pool.map(one, todo) if wrong]


def chains_of(row: Row, budget: Budget, asked: Sequence[Sensors] | None, named: Sequence[str] | None) -> list[Sensors]:
    """Chains that are both the row's and asked for. Where there are none: the budget's first, or what was asked for
    when the row was asked for by name, too."""
    wanted: Sequence[Sensors] = asked or budget.chains
    both: list[Sensors] = [chain for chain in row.chains if chain in wanted]
    if both or (asked and not named):
        return both
    return list(asked or budget.chains[:1])


def run_row(runner: Runner, planned: Plan, results: Path) -> str:
    """One row, chain and training seed; what became of it, in words."""
    if is_fresh(results, planned):
        return "there already"
    runner.run(planned, clips_only=True)
    with alone_with(results, planned):
        if confirm(results, planned):
            return "there already, from the very same clips"
    seconds = runner.run(planned)
    entry = collect(runner, planned, seconds, results)
    with alone_with(results, planned):
        keep(results, planned, entry)
    return "done"


def missed(lines: dict[tuple[str, str], Line], budget: Budget) -> list[str]:
    """What is wrong with the margin that the budget asks for; nothing when it asks for none."""
    if budget.margin is None:
        return []
    chain = budget.chains[0]
    main, without = (lines.get((name, chain)) for name in (MAIN, WITHOUT))
    if main is None or without is None or not (main.measured and without.measured):
        return [f"{MAIN} and {WITHOUT} ({chain}) were not both measured, so nothing is known of pretraining's help"]
    apart = main.unseen["mean"] - without.unseen["mean"]
    if apart >= budget.margin:
        return []
    return [
        f"pretraining on videos of the tasks does not help: {main.unseen['mean']:.2f} of the episodes succeed, "
        f"{without.unseen['mean']:.2f} without them; at least {budget.margin:.2f} more are expected"
    ]


def write_page(path: Path, results: Path, figures: dict[str, Any]) -> None:
    """The page and its pictures, which go to the budget's results."""
    folder = results / figures["budget"]
    for name, svg in pictures(figures).items():
        write_bytes(folder / name, svg.encode())
    write_bytes(path, page(figures, Path(os.path.relpath(folder, path.parent)).as_posix()).encode())
    print(f"written: {path}")


if __name__ == "__main__":
    sys.exit(main())
