"""Speed of the Chamfer distance, forward and backward: ``python -m tests.benchmarks.chamfer [--json FILE]``.

Methods: ours with a k-d tree and with plain differences, and two textbook versions, torch.cdist and a broadcast
difference, differentiated by autograd. Median of some repetitions, and each method's time over that of ours.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from pipeline.atomic import write_json
from pretrain import chamfer as implementation
from pretrain.chamfer import chamfer

SIZES = ((160, 64), (160, 200), (32, 256), (32, 1024), (8, 4096))
_BROADCAST_LIMIT = 40_000_000  # more pairs than this are left out: several GB


def by_cdist(x_BN3: Tensor, y_BM3: Tensor) -> Tensor:
    """torch.cdist without its matrix product, which picks wrong neighbours far from the origin."""
    square_BNM = torch.cdist(x_BN3, y_BM3, compute_mode="donot_use_mm_for_euclid_dist").square()
    return (square_BNM.amin(2).mean(1) + square_BNM.amin(1).mean(1)).mean()


def by_broadcast(x_BN3: Tensor, y_BM3: Tensor) -> Tensor:
    square_BNM = (x_BN3[:, :, None] - y_BM3[:, None]).square().sum(-1)
    return (square_BNM.amin(2).mean(1) + square_BNM.amin(1).mean(1)).mean()


METHODS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "auto": lambda x, y: chamfer(x, y),
    "kdtree": lambda x, y: chamfer(x, y, backend="kdtree"),
    "differences": lambda x, y: chamfer(x, y, backend="torch"),
    "cdist": by_cdist,
    "broadcast": by_broadcast,
}


def milliseconds(method: Callable[[Tensor, Tensor], Tensor], clouds: int, points: int, repetitions: int) -> float:
    """Median time of one forward and backward pass on clouds of 10 cm at 0.6 m."""
    random = torch.Generator().manual_seed(0)
    offset = torch.tensor([0.1, 0.0, 0.6])
    x = (torch.rand(clouds, points, 3, generator=random) * 0.1 + offset).requires_grad_()
    y = torch.rand(clouds, points, 3, generator=random) * 0.1 + offset
    times = []
    for _ in range(repetitions + 1):
        x.grad = None
        start = time.perf_counter()
        method(x, y).backward()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repetitions", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for clouds, points in SIZES:
        row: dict[str, float | int] = {"clouds": clouds, "points": points}
        for name, method in METHODS.items():
            if name in ("cdist", "broadcast") and clouds * points**2 > _BROADCAST_LIMIT:
                continue
            row[name] = round(milliseconds(method, clouds, points, arguments.repetitions), 3)
        rows.append(row)
        times = ", ".join(
            f"{name} {row[name]:.1f} ms ({row[name] / row['auto']:.1f}x)" for name in METHODS if name in row
        )
        print(f"{clouds} x {points}: {times}", flush=True)
    tree = implementation._KDTree.__module__.partition(".")[0]
    facts = {"threads": arguments.threads, "tree": tree, "torch": torch.__version__, "machine": platform.machine()}
    if arguments.json:
        write_json(arguments.json, {**facts, "unit": "ms, forward and backward", "rows": rows})


if __name__ == "__main__":
    main()
