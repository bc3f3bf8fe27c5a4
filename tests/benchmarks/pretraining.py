"""docs/results/pretraining.md: every objective beside every baseline, and what each part of the method is worth.

    python -m tests.benchmarks.pretraining --json F [--page docs/results/pretraining.md] [--cache DIR] [--jobs 2]
        [--tune] [--only NAME ...] [--seeds 0 1 2] [--steps N] [--add SECTION.md ...]

Simulated clips only. Every row is trained with the same clips, steps, batch and network, once per seed, and judged on
clips of other seeds of the simulator. ``--tune`` chooses each objective's learning rate first, on the held-out clips of
the training run, with a seed of its own. DIR keeps the clips and one JSON per finished row and seed, by content: a
benchmark that was killed goes on, and rows whose settings, clips or code changed are measured again.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.atomic import write_bytes, write_json
from pipeline.errors import KinecloudError
from pipeline.fingerprint import digest, file_sha256
from pipeline.runner import versions
from pretrain.config import PretrainConfig
from pretrain.scores import MODEL
from tests.benchmarks.pretraining_cells import (
    BASELINES,
    CELLS,
    LEARNING_RATES,
    OBJECTIVES,
    SEEDS,
    STEPS,
    STRIDE,
    TUNING_SEED,
    Cell,
    settings_of,
)  # fmt: skip
from tests.benchmarks.pretraining_data import Data, make_data
from tests.benchmarks.pretraining_figures import figures_of
from tests.benchmarks.pretraining_intervals import Board
from tests.benchmarks.pretraining_page import page

ROOT = Path(__file__).resolve().parents[2]
UNTUNED = 1e-3
# The code that decides a row's figures; reports and commands may change without measuring again.
DECIDES = (
    "data/loader.py", "data/mixture.py", "data/resample.py", "data/rows.py", "data/letterbox.py", "pretrain/model/*.py",
    "pretrain/chamfer/*.py", "pretrain/objectives.py", "pretrain/augment.py", "pretrain/viewpoint.py",
    "pretrain/appearance.py", "pretrain/randomness.py", "pretrain/scale.py", "pretrain/schedule.py", "pretrain/loop.py",
    "pretrain/build.py", "pretrain/train.py", "pretrain/ranks.py", "pretrain/average.py", "pretrain/acceleration.py",
    "pretrain/metrics.py", "pretrain/scores.py", "pretrain/neighbour*.py",
    "tests/benchmarks/pretraining_cell.py",
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One row with one seed. identity: what decides its result."""

    spec: dict[str, Any]
    identity: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.spec['cell']}-{self.spec['seed']}-{digest(self.identity)[:12]}"


class Bench:
    """Makes jobs from rows, does those that are not done yet, and reads their results."""

    def __init__(self, data: Data, cache: Path, jobs: int, steps: int):
        self.data, self.folder, self.jobs, self.steps = data, cache / "cells", jobs, steps
        self.code = code_digest()

    def job(self, name: str, seed: int, learning_rate: float = UNTUNED, tuning: bool = False) -> Job:
        """tuning: judged on the held-out clips of the training run, not on the test clips."""
        cell = CELLS.get(name, Cell(name, name))
        settings = settings_of(cell, self.steps, learning_rate)
        train = self.data.grid if cell.grid else self.data.train
        test, samples = (self.data.val, 1) if tuning else (self.data.test, cell.samples)
        spec = {
            "cell": name,
            "seed": seed,
            "stride": STRIDE,
            "samples": samples,
            "settings": settings | {"train_shards": _texts(train), "val_shards": _texts(self.data.val)},
            "test": _texts(test),
        }
        identity = {
            "cell": name, "seed": seed, "stride": STRIDE, "shards": self.data.identity,
            "settings": PretrainConfig.model_validate(settings).identity(),  # with all defaults, which may change
            "judged on": "val" if tuning else "test", "code": self.code, "removed": cell.removed,
            "samples": samples,
        }  # fmt: skip
        return Job(spec, identity)

    def results(self, jobs: Sequence[Job]) -> list[dict[str, Any]]:
        """Raises KinecloudError naming those that failed, after all others are done."""
        began, todo = time.monotonic(), [job for job in jobs if not self._path(job).exists()]
        failed: list[str] = []

        def do(job: Job) -> None:
            wrong = self._do(job)
            failed.extend([wrong] if wrong else [])
            left = sum(not self._path(other).exists() for other in todo)
            print(f"{job.name}: {wrong or 'done'}; {left} left, {time.monotonic() - began:.0f} s", flush=True)

        with ThreadPoolExecutor(self.jobs) as pool:
            list(pool.map(do, todo))
        if failed:
            raise KinecloudError("\n".join(failed))
        return [_read(self._path(job)) for job in jobs]

    def _do(self, job: Job) -> str | None:
        """What went wrong, or None."""
        path = self._path(job)
        spec, log = path.with_suffix(".spec.json"), path.with_suffix(".log")
        write_json(spec, job.spec)
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        command = [sys.executable, "-m", "tests.benchmarks.pretraining_cell", str(spec), str(path)]
        with log.open("w") as output:
            done = subprocess.run(command, cwd=ROOT, env=os.environ | threads, stdout=output, stderr=output)
        if done.returncode:
            return f"{job.name} failed with exit code {done.returncode}; see {log}"
        shutil.rmtree(spec.with_suffix(""), ignore_errors=True)  # the training; its result is kept
        return None

    def _path(self, job: Job) -> Path:
        return self.folder / f"{job.name}.json"

    def tuned(self, names: Iterable[str], choose: bool) -> dict[str, dict[str, Any]]:
        """By objective: error on the tuning clips by learning rate, and the best. choose: measure what is missing.

        An objective that was never tuned is left out.
        """
        by_name = {
            name: {rate: self.job(name, TUNING_SEED, rate, tuning=True) for rate in LEARNING_RATES} for name in names
        }
        if choose:
            self.results([job for jobs in by_name.values() for job in jobs.values()])
        found = {}
        for name, jobs in by_name.items():
            if all(self._path(job).exists() for job in jobs.values()):
                errors = {rate: tuning_error(_read(self._path(job))) for rate, job in jobs.items()}
                best = min(errors, key=lambda rate: errors[rate])
                found[name] = {"errors": {f"{rate:g}": round(e, 2) for rate, e in errors.items()}, "chosen": best}
        return found


def tuning_error(result: dict[str, Any]) -> float:
    """ADE up to the last horizon in mm, mean over episodes: one measure for all objectives."""
    errors_GH = result["readings"][MODEL]["all"]["errors"]["ade_mm"]
    return float(np.nanmean(np.array([row[-1] for row in errors_GH], np.float64)))


def code_digest() -> str:
    """Of the files that decide a row's figures."""
    files = sorted({path for pattern in DECIDES for path in ROOT.glob(pattern)})
    return digest({str(path.relative_to(ROOT)): file_sha256(path) for path in files})


def _texts(paths: Iterable[Path]) -> list[str]:
    return [str(path.resolve()) for path in paths]


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, required=True, help="all figures")
    parser.add_argument("--again", action="store_true", help="measure nothing: write the page from the figures there")
    parser.add_argument("--page", type=Path, help="write the page, such as docs/results/pretraining.md")
    parser.add_argument(
        "--cache", type=Path, help="folder that keeps clips and finished rows (default: a temporary one)"
    )
    parser.add_argument("--jobs", type=int, default=2, help="rows at once, one thread each")
    parser.add_argument("--tune", action="store_true", help="choose each objective's learning rate first")
    parser.add_argument("--only", nargs="+", choices=tuple(CELLS), help="these rows only, and the baselines")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--add", nargs="+", type=Path, default=[], help="Markdown of other benchmarks, put at the end")
    arguments = parser.parse_args()
    added = [path.read_text() for path in arguments.add]  # a missing one is told before anything is measured
    if arguments.again:
        figures = _read(arguments.json)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            figures = measure(arguments, arguments.cache or Path(temporary))
        write_json(arguments.json, figures)
    if arguments.page:
        write_bytes(arguments.page, page(figures, added).encode())
        print(f"written: {arguments.page}")
    print(figures["verdict"]["text"])


def measure(arguments: argparse.Namespace, cache: Path) -> dict[str, Any]:
    """All figures; see ``pretraining_figures.figures_of``."""
    began = time.monotonic()
    names = arguments.only or list(CELLS)
    bench = Bench(make_data(cache, arguments.jobs), cache, arguments.jobs, arguments.steps)
    wanted = {CELLS[name].tuned_as for name in names}
    tuning = bench.tuned([cell.name for cell in OBJECTIVES if cell.name in wanted], arguments.tune)
    rates = {name: tuning.get(CELLS[name].tuned_as, {"chosen": UNTUNED})["chosen"] for name in names}
    jobs = [bench.job(BASELINES, 0)]
    jobs += [bench.job(name, seed, rates[name]) for seed in arguments.seeds for name in names]
    board = Board(bench.results(jobs))
    return figures_of(
        board,
        tuning=tuning,
        data=bench.data.facts,
        facts={
            "date": datetime.date.today().isoformat(),
            "minutes": round((time.monotonic() - began) / 60, 1),
            "steps": arguments.steps,
            "seeds": list(arguments.seeds),
            "jobs": arguments.jobs,
            "cores": len(os.sched_getaffinity(0)),
            "versions": versions(),
        },
    )


if __name__ == "__main__":
    main()
