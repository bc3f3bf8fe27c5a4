"""Speed of a training step: ``python -m tests.benchmarks.train_step --json F [--threads N] [--shards TAR ...]``.

The compact model with the settings' defaults, trained by the real loop: reading, augmentation, forward and backward
pass, loss, optimizer, metrics. Its arithmetic (``torch.utils.flop_counter``; matrix products and convolutions, forward
and backward; neighbours of the Chamfer distance are not counted) per second is held against that of plain matrix
products of 1024 x 1024 in 32 bits with the same threads, which are measured before, between and after the steps,
because machines are shared. Ratios are of medians. Two clocks: the wall's, and the processor time of the process, which
also counts the thread that reads ahead, but not the neighbours on the machine. On a GPU, where the loop waits for the
device once per step, times of parts are those of the host.

Targets: 40 % of the products' rate; a loader that alone, on one core, gives 5 times the windows that the steps take.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import textwrap
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils.flop_counter import FlopCounterMode

from data.loader import collate
from pipeline.atomic import write_bytes, write_json
from pipeline.config import load
from pretrain.loop import optimize
from pretrain.objectives import Loss
from pretrain.run import Run
from pretrain.train import Pretraining
from tests.benchmarks.loader import made_up_shards, on_one_core

TARGET_SHARE, TARGET_LOADER = 0.4, 5.0
SIDE = 1024
WARM_UP, BLOCKS, BLOCK = 8, 5, 10  # steps; products are measured between blocks
SETTLE = 2  # steps after a pause that do not count: the loader has read ahead meanwhile
PRODUCTS = 12
CLIPS = 96


@dataclass(frozen=True)
class Moment:
    """Wall and processor seconds at one point of a step."""

    wall: float
    processor: float

    @classmethod
    def now(cls) -> Moment:
        return cls(time.perf_counter(), time.process_time())


@dataclass
class Clock:
    """What happened when, by step: moments by name, in order. products: rates in FLOP/s, wall and processor."""

    device: str
    steps: list[dict[str, Moment]] = field(default_factory=list)
    products: list[tuple[float, float]] = field(default_factory=list)
    paused: set[int] = field(default_factory=set)  # steps that were preceded by a pause

    @property
    def names(self) -> tuple[str, ...]:
        """Of the clocks that say something on this device."""
        return ("wall",) if self.device.startswith("cuda") else ("wall", "processor")

    def mark(self, name: str) -> None:
        self.steps[-1][name] = Moment.now()

    def begin(self) -> None:
        """At the start of a step's arithmetic, its batch at hand; measures products now and then."""
        at = Moment.now()
        if self.steps:
            self.steps[-1]["next batch"] = at
        if len(self.steps) >= WARM_UP and (len(self.steps) - WARM_UP) % BLOCK == 0:
            self.products.append(product_rate(self.device))
            self.paused.add(len(self.steps))
            at = Moment.now()
        self.steps.append({"start": at})

    def measured(self) -> list[dict[str, Moment]]:
        """Whole steps after the warm-up that no pause came close to."""
        near = {step + more for step in self.paused for more in range(SETTLE)}
        return [
            step for number, step in enumerate(self.steps) if number >= WARM_UP and number not in near
            and "next batch" in step
        ]  # fmt: skip


PARTS = ("augmentation", "forward", "loss", "backward, check, clipping", "optimizer", "metrics, waiting for the batch")
_ENDS = ("augmented", "forward", "loss", "optimizer begins", "optimizer ends", "next batch")


class Timed(Pretraining):
    """Pretraining that notes the time."""

    def __init__(self, run: Run, clock: Clock):
        super().__init__(run)
        self.clock = clock

    def loss(self, model: nn.Module, window: dict[str, Any], progress: float) -> Loss:
        self.clock.begin()
        hooks = [
            model.register_forward_pre_hook(lambda *_: self.clock.mark("augmented")),
            model.register_forward_hook(lambda *_: self.clock.mark("forward")),
        ]
        try:
            loss = super().loss(model, window, progress)
        finally:
            for hook in hooks:
                hook.remove()
        self.clock.mark("loss")
        return loss


def product_rate(device: str) -> tuple[float, float]:
    """FLOP/s of the best of some matrix products, by wall and by processor time."""
    a, b = (torch.randn(SIDE, SIDE, device=device) for _ in range(2))
    walls, processors = [], []
    for _ in range(PRODUCTS):
        start = Moment.now()
        torch.mm(a, b)
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        end = Moment.now()
        walls.append(end.wall - start.wall)
        processors.append(end.processor - start.processor)
    return 2 * SIDE**3 / min(walls), 2 * SIDE**3 / max(min(processors), 1e-9)


def flops_of(training: Pretraining, batch: int) -> float:
    """Floating-point operations of one step's forward and backward pass."""
    device, dataset = training.run.accelerator.device, training.dataset
    model, order = training.new_model().to(device), dataset.order(training.run.seed)  # pyright: ignore
    window = collate([dataset[order.at(position)] for position in range(batch)])
    window = {
        name: value.to(device) if torch.is_tensor(value) and name != "seed" else value for name, value in window.items()
    }
    counter = FlopCounterMode(display=False)
    # as plain products: the counter does not know the fused attention of the CPU
    with counter, sdpa_kernel(SDPBackend.MATH):
        Pretraining.loss(training, model.train(), window, 0.5).total.backward()
    return float(counter.get_total_flops())


def measure(shards: list[Path], folder: Path, device: str, threads: int) -> dict[str, Any]:
    """All figures of one machine; ``shards`` are trained on in ``folder``."""
    path = folder / "benchmark.yaml"
    steps = WARM_UP + BLOCKS * BLOCK
    section = {
        "train_shards": [str(shard) for shard in shards], "val_shards": [], "steps": steps, "checkpoint_every": steps,
        "device": device, "threads": threads,
    }  # fmt: skip
    raw = {"run": {"out": str(folder / "run"), "seed": 0}, "pretrain": section}
    write_bytes(path, yaml.safe_dump(raw).encode())
    run = Run(load(path))
    clock = Clock(str(run.accelerator.device))
    training = Timed(run, clock)
    batch = run.settings.batch_size
    flops = flops_of(training, batch)
    dataset = training.dataset
    loader = {
        "first epoch": on_one_core(dataset, len(dataset) // batch * batch),
        "everything kept": on_one_core(dataset, len(dataset) // batch * batch, len(dataset)),
    }
    clock.products.append(product_rate(clock.device))
    hooks = [
        register_optimizer_step_pre_hook(lambda *_: clock.mark("optimizer begins")),
        register_optimizer_step_post_hook(lambda *_: clock.mark("optimizer ends")),
    ]
    try:
        optimize(training)
    finally:
        for hook in hooks:
            hook.remove()
    clock.products.append(product_rate(clock.device))
    return figures_of(clock, flops, loader, batch) | {
        "threads": torch.get_num_threads(), "device": _device(clock.device), "torch": torch.__version__,
        "machine": platform.machine(), "cores": len(os.sched_getaffinity(0)),
    }  # fmt: skip


def figures_of(clock: Clock, flops: float, loader: dict[str, float], batch: int) -> dict[str, Any]:
    """Shares and times from the moments of the steps."""
    steps = clock.measured()
    figures: dict[str, Any] = {"batch": batch, "steps": len(steps), "gflop_per_step": flops / 1e9}
    for number, name in enumerate(clock.names):
        took = [_between(step, "start", "next batch", name) for step in steps]
        rates = [both[number] for both in clock.products]
        step_s, rate = statistics.median(took), statistics.median(rates)
        figures[name] = {
            "step_ms": 1000 * step_s,
            "windows_per_s": batch / step_s,
            "step_gflops": flops / step_s / 1e9,
            "product_gflops": rate / 1e9,
            "product_gflops_spread": [min(rates) / 1e9, max(rates) / 1e9],
            "share": flops / step_s / rate,
            "parts_ms": {
                part: 1000 * statistics.median(_between(step, begin, end, name) for step in steps)
                for part, begin, end in zip(PARTS, ("start", *_ENDS[:-1]), _ENDS, strict=True)
            },
        }  # fmt: skip
    figures["loader_windows_per_s"] = loader
    # the loader is measured by processor time, and so is what it is held against where that says something
    taken = figures[clock.names[-1]]["windows_per_s"]
    figures["loader_times_step"] = {name: rate / taken for name, rate in loader.items()}
    figures["met"] = {
        **{f"share, {name} time": figures[name]["share"] >= TARGET_SHARE for name in clock.names},
        "loader": min(figures["loader_times_step"].values()) >= TARGET_LOADER,
    }
    return figures


def _between(step: dict[str, Moment], begin: str, end: str, clock: str) -> float:
    return getattr(step[end], clock) - getattr(step[begin], clock)


def _device(device: str) -> str:
    return torch.cuda.get_device_name() if device.startswith("cuda") else "cpu"


def lines_of(figures: dict[str, Any]) -> list[str]:
    """For people."""
    lines = [
        f"{figures['gflop_per_step']:.2f} GFLOP per step of {figures['batch']} windows, {figures['steps']} steps, "
        f"{figures['threads']} thread(s), {figures['device']}"
    ]
    for name in [clock for clock in ("wall", "processor") if clock in figures]:
        one = figures[name]
        low, high = one["product_gflops_spread"]
        parts = ", ".join(f"{part} {value:.1f}" for part, value in one["parts_ms"].items())
        lines.append(
            f"{name} time: {one['step_ms']:.1f} ms a step ({parts}), {one['step_gflops']:.1f} of "
            f"{one['product_gflops']:.1f} GFLOP/s ({low:.1f} to {high:.1f}): {100 * one['share']:.1f} %"
        )
    rates = ", ".join(
        f"{name} {rate:.0f} windows/s, {figures['loader_times_step'][name]:.1f} times the steps'"
        for name, rate in figures["loader_windows_per_s"].items()
    )
    lines.append(f"loader alone, one core: {rates}")
    lines.append(", ".join(f"target {name}: {'met' if met else 'missed'}" for name, met in figures["met"].items()))
    return lines


def section_of(figures: dict[str, Any]) -> str:
    """For the page of results."""
    rows = []
    for name in [clock for clock in ("wall", "processor") if clock in figures]:
        one = figures[name]
        parts = " / ".join(f"{value:.1f}" for value in one["parts_ms"].values())
        rows.append(
            f"| {name} | {one['step_ms']:.1f} | {parts} | {one['step_gflops']:.1f} | {one['product_gflops']:.1f} | "
            f"{100 * one['share']:.1f} % |"
        )
    heads = ["time", "step, ms", " / ".join(PARTS), "step, GFLOP/s", "products, GFLOP/s", "share"]
    rates = "; ".join(
        f"{name}, {rate:.0f} windows/s, {figures['loader_times_step'][name]:.1f} times what the steps take"
        for name, rate in figures["loader_windows_per_s"].items()
    )
    verdicts = ", ".join(f"{name}: {'met' if met else 'missed'}" for name, met in figures["met"].items())
    text = (
        f"Written by `python -m tests.benchmarks.train_step`. The compact model, {figures['batch']} windows a step, "
        f"{figures['gflop_per_step']:.2f} GFLOP forward and backward, {figures['threads']} thread(s) of "
        f"{figures['cores']} cores, {figures['device']}, torch {figures['torch']}; medians of {figures['steps']} steps "
        "of the real loop, reading included, beside plain 32-bit products of 1024 x 1024 with as many threads, "
        f"measured before, between and after. The loader alone, on one core: {rates}. Targets, 40 % of the products' "
        f"rate and 5 times the steps' windows: {verdicts}."
    )
    table = [heads, ["---"] * len(heads)]
    lines = ["| " + " | ".join(line) + " |" for line in table] + rows
    return (
        f"## Speed of a training step, {figures['threads']} thread(s)\n\n{textwrap.fill(text, 120)}\n\n"
        + "\n".join(lines)
        + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="0 = all cores")
    parser.add_argument("--shards", type=Path, nargs="+", help="train on these; default: made-up clips")
    parser.add_argument(
        "--section", type=Path, help="write a section of Markdown, for tests.benchmarks.pretraining --add"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        shards = arguments.shards or made_up_shards(folder, CLIPS)
        figures = measure(shards, folder, arguments.device, arguments.threads)
    write_json(arguments.json, figures)
    print("\n".join(lines_of(figures)))
    if arguments.section:
        write_bytes(arguments.section, section_of(figures).encode())


if __name__ == "__main__":
    main()
