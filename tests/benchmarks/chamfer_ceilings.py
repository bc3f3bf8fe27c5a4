"""What the card can do, measured on the spot, and how much of it the Chamfer kernels use."""

from __future__ import annotations

from collections.abc import Callable

import torch

from tests.benchmarks.chamfer_methods import Case

# Instructions per pair of points in the inner loops, as compiled for sm_90 and disassembled. Search: three differences,
# three multiplications, two of them fused, a comparison, two selections, one for the loop. Gradient: a comparison,
# three selections, three additions, two for the loop.
SEARCH, GRADIENT = 10, 9


def ceilings() -> dict[str, float]:
    """float32 fused multiply-adds per second of a large matrix product without TF32, and bytes per second of a copy."""
    size = 8192
    a, b = (torch.randn(size, size, device="cuda") for _ in range(2))
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        seconds = _best(lambda: torch.mm(a, b))
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    source = torch.empty(2**28, device="cuda")
    target = torch.empty_like(source)
    copied = 2 * source.nbytes / _best(lambda: target.copy_(source))
    return {"fused_multiply_adds_per_s": size**3 / seconds, "copied_bytes_per_s": copied}


def _best(work: Callable[[], object]) -> float:
    """Seconds of the fastest of ten, after a first one."""
    work()
    times = []
    for _ in range(10):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        work()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1000)
    return min(times)


def shares(case: Case, seconds: float, limits: dict[str, float]) -> dict[str, float]:
    """Share of the card's float32 instructions and of its memory traffic, forward and backward with x's gradient."""
    instructions = case.pairs * (2 * SEARCH + GRADIENT)
    # points of both clouds in, neighbours, lengths and pulls out; pulls and neighbours in again, the gradient out
    traffic = case.clouds * case.points * 4 * (2 * 3 + 2 * (1 + 1 + 3) + 2 * (1 + 3) + 3)
    return {
        "fp32 instructions": instructions / seconds / limits["fused_multiply_adds_per_s"],
        "memory": traffic / seconds / limits["copied_bytes_per_s"],
    }
