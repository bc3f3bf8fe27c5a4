"""Shows that a change of the code changes no result: rows are measured with the code before it and with the present.

    python -m tests.benchmarks.out_of_action.same_results --before REVISION --work DIR [--budget small]
        --rows NAME ... --chains rgbd ...

Every step whose code differs is done with both, on one core each, and what later steps and the table read of it is
compared byte by byte. Where all is alike, SAME tells that the step's present code gives what the former one gave
(``code.code_digest``), and results that took hours are not stale for a change that is no part of them.
"""

from __future__ import annotations

import argparse
import datetime
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from data.simulation.sensors import Sensors
from pipeline.atomic import publishing_dir, write_json
from pipeline.errors import KinecloudError
from pipeline.fingerprint import file_sha256, read_done
from tests.benchmarks.out_of_action.__main__ import chains_of
from tests.benchmarks.out_of_action.code import ROOT, SAME, code_digest, own_digest, same_code, snapshot
from tests.benchmarks.out_of_action.results import read_row
from tests.benchmarks.out_of_action.rows import ROWS
from tests.benchmarks.out_of_action.steps import CONTENT
from tests.benchmarks.out_of_action.suite import BUDGETS, CHAINS, Budget

SEED = 0
# What is read of a step's folder.
READ = CONTENT | {
    "simulate": ("simulate/episodes/*",),
    "grid": ("*/*.tar",),
    "pretrain": ("pretrain/model/*.safetensors",),
    "judge": ("judged.json",),
    "align": ("align/model/*.safetensors",),
    "rollout": ("rollout/rollout.json", "rollout/report/image-*.jpg"),
}


def main(words: Sequence[str] | None = None) -> int:
    """0 when all is alike, 1 when something differs."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.out_of_action.same_results", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--before", required=True, help="revision of the code that results were made with")
    parser.add_argument("--work", type=Path, required=True, help="folder that keeps every step")
    parser.add_argument("--budget", choices=tuple(BUDGETS), default="small")
    parser.add_argument("--rows", nargs="+", choices=tuple(ROWS), required=True)
    parser.add_argument("--chains", nargs="+", choices=CHAINS, required=True)
    arguments = parser.parse_args(words)
    try:
        former = checkout(arguments.before, arguments.work)
        roots = former, snapshot(arguments.work, shown_of_others(former))
        pairs = asked(arguments.rows, arguments.chains, BUDGETS[arguments.budget])
        before, after = (measured(root, pairs, arguments) for root in roots)
        same, differing = compared(before, after)
    except KinecloudError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    for line in differing:
        print(f"error: {line}", file=sys.stderr)
    rows = {chain: [row for row, of in pairs if of == chain] for chain in CHAINS if chain in {of for _, of in pairs}}
    told = {"before": former.name[:7], "date": datetime.date.today().isoformat()}
    record(same, told | {"budget": arguments.budget, "rows": rows})
    print(f"alike with other code: {', '.join(same) or 'nothing, as no code of these steps differs'}")
    return 1 if differing else 0


def checkout(revision: str, work: Path) -> Path:
    """The project as it was, in a folder of ``work``. Raises KinecloudError for what git does not know."""

    def git(*words: str) -> bytes:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True)
        if done.returncode:
            raise KinecloudError(f"git {' '.join(words)}: {done.stderr.decode().strip()}")
        return done.stdout

    commit = git("rev-parse", "--verify", f"{revision}^{{commit}}").decode().strip()
    out = work.resolve() / "code" / commit[:16]
    if not out.exists():
        with publishing_dir(out) as temporary:
            archive = temporary.with_suffix(".tar")
            git("archive", "-o", str(archive), commit)
            with tarfile.open(archive) as content:
                content.extractall(temporary, filter="data")
            archive.unlink()
    return out


def shown_of_others(former: Path) -> dict[str, dict[str, Any]]:
    """What was shown before of steps whose code is that in ``former``. That of others does not count: with it, the
    present code would be taken for the former, and never run."""
    return {step: one for step, one in same_code().items() if own_digest(step) == own_digest(step, former)}


def asked(rows: Sequence[str], chains: Sequence[Sensors], budget: Budget) -> list[tuple[str, Sensors]]:
    """Rows with each of their chains."""
    return [(name, chain) for name in rows for chain in chains_of(ROWS[name], budget, chains, rows)]


def measured(root: Path, pairs: Sequence[tuple[str, Sensors]], arguments: argparse.Namespace) -> dict[str, Path]:
    """The step folders of all rows, by row, chain and step, made with the code in ``root``. Raises KinecloudError for
    what was not measured."""
    work = arguments.work.resolve()
    results = work / "results" / root.name
    command = ("--budget", arguments.budget, "--rows", *arguments.rows, "--chains", *arguments.chains,
               "--seeds", str(SEED), "--work", str(work), "--results", str(results),
               "--json", str(results / "figures.json"), "--jobs", "1", "--workers", "1")  # fmt: skip
    start = (sys.executable, "-m", "tests.benchmarks.out_of_action", *command)
    subprocess.run(start, cwd=root, env=os.environ | {"PYTHONPATH": str(root)}, preexec_fn=_on_one_core)
    found = {}
    for row, chain in pairs:
        entry = read_row(results, arguments.budget, row).get(chain, {}).get(str(SEED))
        if entry is None:
            raise KinecloudError(f"{row} ({chain}) was not measured with the code in {root}")
        for name, digest in entry["steps"].items():
            found[f"{row} ({chain}): {name}"] = next(work.glob(f"*/{digest}"))
    return found


def _on_one_core() -> None:
    """Training takes a thread for every core that it may use, and other numbers of threads give other last bits."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def compared(before: dict[str, Path], after: dict[str, Path]) -> tuple[dict[str, tuple[str, str]], list[str]]:
    """Steps that gave the same with other code: digests of the code before and of the present by step; and a line for
    each that did not."""
    same: dict[str, tuple[str, str]] = {}
    differing = {}
    for name, folder in after.items():
        former = before[name]
        made_before, made_after = (_made_from(one) for one in (former, folder))
        step = made_after["step"]
        if files := list(_different(former, folder, READ[step])):
            differing[step] = f"{name}: {', '.join(files[:5])} differ between {former} and {folder}"
        if made_before["code"] != made_after["code"]:
            same[step] = made_before["code"], made_after["code"]
    return {step: codes for step, codes in same.items() if step not in differing}, list(differing.values())


def _made_from(folder: Path) -> dict[str, Any]:
    mark = read_done(folder)
    assert mark is not None
    return mark["made_from"]


def _different(folder: Path, other: Path, patterns: Sequence[str]) -> Iterator[str]:
    """Names of files that are not in both with the same content."""
    if folder == other:
        return
    contents = [
        {str(path.relative_to(one)): file_sha256(path) for pattern in patterns for path in one.glob(pattern)}
        for one in (folder, other)
    ]
    if not all(contents):
        yield "no files"
    yield from sorted(name for name in contents[0].keys() | contents[1].keys()
                      if contents[0].get(name) != contents[1].get(name))  # fmt: skip


def record(same: dict[str, tuple[str, str]], told: dict[str, Any], root: Path = ROOT) -> None:
    """Writes SAME of the project in ``root``: what was shown now and what still holds of former showings; no file
    where that is nothing."""
    known = same_code(root)
    still = {step: one for step, one in known.items() if code_digest(step, root) == one["as"]}
    table = still | {
        step: {"code": now, "as": former, "shown": [*_led_there(known.get(step), former, told["before"]), told]}
        for step, (former, now) in same.items()
    }
    if table:
        write_json(root / SAME, table)
    else:
        (root / SAME).unlink(missing_ok=True)


def _led_there(one: dict[str, Any] | None, former: str, before: str) -> list[dict[str, Any]]:
    """Showings that the code of a revision, ``before``, gives what the ``former`` gave."""
    known = one["shown"] if one and one["as"] == former else []
    return list(takewhile(lambda shown: shown["before"] != before, known))


if __name__ == "__main__":
    sys.exit(main())
