"""Speed and accuracy of the Chamfer distance, forward and backward: ``python -m tests.benchmarks.chamfer --json FILE``.

``--threads 1`` for one thread; ``--device cuda`` on a GPU machine; ``--crossover`` measures where trees overtake
differences, which is what the backend ``auto`` decides by. Methods take turns in random order within rounds, so that
noise hits all alike; a time is the least over the rounds, because noise only adds; with one thread it is the time that
the process had the processor for, so that what else runs does not count. Errors are relative and against float64. The
exit status is 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pipeline.atomic import write_json
from pretrain.chamfer import by_tree
from tests.benchmarks.chamfer_ceilings import ceilings, shares
from tests.benchmarks.chamfer_methods import (
    EXACT,
    Batch,
    Case,
    Method,
    all_at_once,
    by_cdist,
    cloud_by_cloud,
    methods,
    ours,
)

CASES = (
    Case(32, 64),
    Case(32, 200),
    Case(32, 256),
    Case(32, 1024),
    Case(8, 4096),
    Case(160, 64),
    Case(160, 64, masked=True, squared=False),  # as in training: 32 windows, 5 horizons
)
WHOLE_PAIRS = 40_000_000  # methods with a matrix take more pairs than this cloud by cloud
SLOW_S, SLOW_ROUNDS = 0.3, 2  # slower methods have fewer rounds
SAMPLE_S = 0.004  # faster ones are timed some calls in a row
TIES = 1.1  # as fast as: within 10 %
OVER_BROADCAST = {1024: 8, 4096: 20}
VALUE_ERROR, GRADIENT_ERROR = 1e-6, 1e-4
TWICE_ON_CUDA = ("cdist", "pytorch3d's own")


def stopwatch(device: str, clock: Callable[[], float]) -> Callable[[Callable[[], Any], int], float]:
    """Seconds per call of a function called some times in a row, by events on a GPU, by a clock else."""

    def on_cpu(step: Callable[[], Any], calls: int) -> float:
        start = clock()
        for _ in range(calls):
            step()
        return (clock() - start) / calls

    def on_cuda(step: Callable[[], Any], calls: int) -> float:
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(calls):
            step()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1000 / calls

    return on_cuda if device == "cuda" else on_cpu


def step_of(method: Method, case: Case, batch: Batch) -> Callable[[], torch.Tensor]:
    run = cloud_by_cloud if method.matrix and case.pairs > WHOLE_PAIRS else all_at_once

    def step() -> torch.Tensor:
        batch.x_BN3.grad = None
        return run(method.distance, batch)

    return step


def with_gradient(step: Callable[[], torch.Tensor], batch: Batch) -> tuple[float, torch.Tensor]:
    value = float(step())
    assert batch.x_BN3.grad is not None
    return value, batch.x_BN3.grad.double().cpu()


def measured(case: Case, candidates: list[Method], device: str, rounds: int) -> dict[str, Any]:
    """Times, ratios and relative errors of value and gradient by method."""
    one_thread = torch.get_num_threads() == 1
    watch = stopwatch(device, time.process_time if one_thread else time.perf_counter)
    batch = Batch.of(case, device)
    exact = Batch.of(case, dtype=torch.float64)
    value, gradient = with_gradient(lambda: cloud_by_cloud(by_cdist(EXACT, indices=True), exact), exact)
    able = [m for m in candidates if (m.masks or not case.masked) and (m.plain or case.squared)]
    steps = {m.name: step_of(m, case, batch) for m in able}
    error, once = {}, {}
    for name, step in steps.items():
        found = with_gradient(step, batch)  # the first call: compiles, allocates
        error[name] = {
            "value": abs(found[0] - value) / value,
            "gradient": float(torch.linalg.norm(found[1] - gradient) / torch.linalg.norm(gradient)),
        }
        once[name] = watch(step, 1)
    times: dict[str, list[float]] = {name: [] for name in steps}
    order = random.Random(0)
    for turn in range(rounds):
        names = [name for name in steps if once[name] < SLOW_S or turn < SLOW_ROUNDS]
        order.shuffle(names)
        for name in names:
            if once[name] < SLOW_S:
                steps[name]()  # what ran before has emptied the caches
            times[name].append(watch(steps[name], max(1, min(10, round(SAMPLE_S / once[name])))))
    least = {name: min(of) for name, of in times.items()}
    return {
        m.name: {
            "ms": 1000 * least[m.name],
            "over_auto": least[m.name] / least["auto"],
            "ours": m.ours,
            "error": error[m.name],
        }
        for m in able
    }


def targets(case: Case, found: dict[str, Any], device: str) -> dict[str, bool]:
    """What was promised for this case, and whether it holds."""
    others = {name: row["over_auto"] for name, row in found.items() if name != "auto"}
    promised = {
        "auto is the fastest": min(others.values()) >= 1 / TIES,
        "value exact": found["auto"]["error"]["value"] <= VALUE_ERROR,
        "gradient exact": found["auto"]["error"]["gradient"] <= GRADIENT_ERROR,
    }
    if device == "cpu" and case.points in OVER_BROADCAST:
        promised[f"{OVER_BROADCAST[case.points]} times faster than a broadcast"] = (
            others["broadcast"] >= OVER_BROADCAST[case.points]
        )
    if device == "cuda":
        for name in [name for name in others if name.startswith(TWICE_ON_CUDA)]:
            promised[f"twice as fast as {name}"] = others[name] >= 2
    return promised


def crossover(device: str, rounds: int) -> list[dict[str, float]]:
    """Trees over differences for growing clouds; they cost the same at points / 2 pairs per point."""
    both = [Method("auto", ours("torch"), ours=True), Method("kdtree", ours("kdtree"), ours=True)]
    rows = []
    for points in (128, 256, 320, 384, 448, 512, 640, 768):
        ratio = measured(Case(32, points), both, device, rounds)["kdtree"]["over_auto"]
        rows.append({"points": points, "pairs_per_point": points / 2, "kdtree_over_torch": ratio})
        print(f"{points:5d} points, {points / 2:.0f} pairs per point: k-d trees / differences {ratio:.2f}", flush=True)
    return rows


def show(case: Case, found: dict[str, Any], promised: dict[str, bool]) -> None:
    print(case.name)
    for name, row in sorted(found.items(), key=lambda item: item[1]["over_auto"]):
        wrong = f"error of value {row['error']['value']:.0e}, of gradient {row['error']['gradient']:.0e}"
        print(f"  {name:20s} {row['ms']:10.3f} ms  {row['over_auto']:7.2f} x auto  {wrong}")
    for name, met in promised.items():
        print(f"  {'met' if met else 'MISSED'}: {name}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--crossover", action="store_true", help="only measure where trees overtake differences")
    arguments = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != str(arguments.threads):  # read by libraries when they are loaded
        os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
        os.execv(sys.executable, [sys.executable, "-m", "tests.benchmarks.chamfer", *sys.argv[1:]])
    torch.set_num_threads(arguments.threads)
    facts = {
        "threads": arguments.threads,
        "device": torch.cuda.get_device_name() if arguments.device == "cuda" else platform.machine(),
        "tree": by_tree.KIND,
        "torch": torch.__version__,
        "unit": "ms, forward and backward",
    }
    if arguments.crossover:
        rows: list[dict[str, Any]] = list(crossover(arguments.device, arguments.rounds))
    else:
        limits = ceilings() if arguments.device == "cuda" else None
        rows = []
        for case in CASES:
            found = measured(case, methods(arguments.device), arguments.device, arguments.rounds)
            promised = targets(case, found, arguments.device)
            show(case, found, promised)
            row = {"case": case.name, "methods": found, "targets": promised}
            if limits is not None and "triton, unchecked" in found:
                row["share_of_ceiling"] = shares(case, found["triton, unchecked"]["ms"] / 1000, limits)
                print("  " + ", ".join(f"{name} {share:.1%}" for name, share in row["share_of_ceiling"].items()))
            rows.append(row)
        facts["ceilings"] = limits
    if arguments.json:
        write_json(arguments.json, {**facts, "rows": rows})
    return int(any(not met for row in rows for met in row.get("targets", {}).values()))


if __name__ == "__main__":
    sys.exit(main())
