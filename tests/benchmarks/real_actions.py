"""Alignment on the actions of real robots: ``python -m tests.benchmarks.real_actions --json F [--work DIR]``.

Runs pipeline/configs/data_set.yaml on the real data sets below KINECLOUD_FOOTAGE, from their files to the exported
policy, once for each seed, which also decides the episodes that are held out. Writes F and
docs/results/real_actions.md. A run that is complete in DIR is not done again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import textwrap
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from align.evaluate import MEAN, POLICY, REPEAT
from pipeline.atomic import write_bytes, write_json
from pipeline.command import exit_code_of
from pipeline.errors import UserError
from tests.footage import FOOTAGE, footage_folder

ROOT = Path(__file__).resolve().parents[2]
CONFIG, PAGE = ROOT / "pipeline/configs/data_set.yaml", ROOT / "docs/results/real_actions.md"


@dataclass(frozen=True)
class DataSet:
    """folder: below KINECLOUD_FOOTAGE. origin: of these files. settings: over those of the configuration."""

    folder: str
    words: str
    origin: str
    settings: tuple[str, ...]


DATA_SETS = (
    DataSet(
        "robot/bridge_rlds",
        "BridgeData V2 (RLDS): a WidowX arm, 25 episodes of 10 steps at 5 Hz, three cameras of 64x64 pixels",
        "tests/debug_dataset of github.com/octo-models/octo, its training split",
        ("index.sources.0.actions.unit=m, rad, 0..1", "align.action_chunk=4"),
    ),
    DataSet(
        "robot/g1_inspire_lerobot",
        "Unitree G1 with Inspire hands (LeRobot v2.1): 3 episodes, 776 frames at 30 Hz, one camera of 640x480 pixels",
        "episodes 28 to 30 of github.com/YifanTian07/G1-policy-train",
        ("index.sources.0.actions.unit=rad", "index.sources.0.actions.frame=joints",
         "index.sources.0.actions.mode=absolute", "align.action_chunk=15"),
    ),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.real_actions", description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--work", type=Path, help="folder of the runs; default: one that is removed")
    arguments = parser.parse_args()
    sys.exit(exit_code_of(lambda: benchmark(arguments)))


def benchmark(arguments: argparse.Namespace) -> None:
    """Measures all data sets, writes figures and page. Raises UserError where the footage is not there."""
    footage = footage_of_data_sets()
    with tempfile.TemporaryDirectory() as scratch:
        work = arguments.work or Path(scratch)
        result = {each.folder: [measured(each, footage, seed, work) for seed in arguments.seeds] for each in DATA_SETS}
    write_json(arguments.json, result)
    write_bytes(PAGE, page(result, arguments.seeds).encode())
    print(PAGE.read_text())


def footage_of_data_sets() -> Path:
    """The folder that KINECLOUD_FOOTAGE names. Raises UserError where it names none, or one of the data sets is not in
    it."""
    folder = footage_folder()
    missing = [each for each in DATA_SETS if folder is None or not (folder / each.folder).is_dir()]
    if folder is None or missing:
        wanted = "".join(f"\n  {each.folder}: {each.words}; {each.origin}" for each in missing)
        raise UserError(f"{FOOTAGE}={folder or ''}: set it to a folder of real footage that holds{wanted}")
    return folder


def measured(data_set: DataSet, footage: Path, seed: int, work: Path) -> dict[str, Any]:
    """What the run's align/eval.json says."""
    out = work / f"{Path(data_set.folder).name}-{seed}"
    path = footage / data_set.folder
    said = (*data_set.settings, f"index.sources.0.path={path}", f"run.out={out}", f"run.seed={seed}")
    overrides = [part for setting in said for part in ("--set", setting)]
    subprocess.run([sys.executable, "-m", "pipeline", "run", str(CONFIG), *overrides], cwd=ROOT, check=True)
    return json.loads((out / "align/eval.json").read_text())


def page(result: dict[str, list[dict[str, Any]]], seeds: list[int]) -> str:
    said = (
        f"Written on {date.today():%d %B %Y} by `python -m tests.benchmarks.real_actions --json F` with "
        "`KINECLOUD_FOOTAGE` set, on 2 CPU cores. Small real data sets alone, from their files to a policy, by "
        "[data_set.yaml](../../pipeline/configs/data_set.yaml); nothing was learned from other data. Errors are mean "
        f"absolute errors on held-out episodes, mean (least to most) over the seeds {', '.join(map(str, seeds))}, each "
        "with its own split; `first` is the next action, the others are means over the chunk. With so few episodes "
        "they say that the path works on real files, not how good a policy would be: none was run on a robot."
    )
    lines = ["# Alignment on the actions of real robots", "", *textwrap.wrap(said, 120, break_on_hyphens=False)]
    for data_set in DATA_SETS:
        runs = result[data_set.folder]
        lines += ["", f"## {data_set.words}", "", f"{held_out(runs)} Unit: {runs[0]['unit']}.", ""]
        lines += [f"| | {POLICY} | {REPEAT} | {MEAN} |", "|---|---|---|---|"]
        for label, values in rows(runs):
            lines.append(f"| {label} | {' | '.join(told(values[method]) for method in (POLICY, REPEAT, MEAN))} |")
    return "\n".join(lines) + "\n"


def held_out(runs: list[dict[str, Any]]) -> str:
    """What the errors are of; it tells where chance held the same out for every seed."""
    found = list(dict.fromkeys(f"{run['episodes']} episodes ({run['windows']} windows)" for run in runs))
    same = len(runs) > 1 and all(run["errors"][MEAN] == runs[0]["errors"][MEAN] for run in runs)
    return f"Held out: {', '.join(found)}{', the same for every seed' if same else ''}."


def rows(runs: list[dict[str, Any]]) -> list[tuple[str, dict[str, list[float]]]]:
    """Errors by method, one for each seed: over everything as a share of that of the data set's mean, then by name.

    More than 12 names, of joints for example, would hide the rows that tell most, and are left out.
    """
    methods = (POLICY, REPEAT, MEAN)

    def share(kind: str) -> dict[str, list[float]]:
        errors = [{method: np.array(run["errors"][method][kind]) for method in methods} for run in runs]
        return {method: [float((each[method] / each[MEAN]).mean()) for each in errors] for method in methods}

    names = runs[0]["names"] if len(runs[0]["names"]) <= 12 else []
    named = [{m: [run["errors"][m]["chunk"][at] for run in runs] for m in methods} for at in range(len(names))]
    return [
        ("all, as a share of the mean's error", share("chunk")),
        ("first, likewise", share("first")),
        *zip(names, named, strict=True),
    ]


def told(values: list[float]) -> str:
    between = f" ({min(values):.3g} to {max(values):.3g})" if len(values) > 1 else ""
    return f"{np.mean(values):.3g}{between}"


if __name__ == "__main__":
    main()
