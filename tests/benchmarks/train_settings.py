"""What each setting of the training loop costs or saves: ``python -m tests.benchmarks.train_settings --json F``.

The default predictor on made-up clips; one training per setting, all in one process, whose steps take turns, so that a
busy machine is busy for all. A figure is the median over rounds of a step's time divided by that of the step with no
setting changed in the same round. The first step stands apart, because compiling happens there.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate.state import AcceleratorState

from pipeline.atomic import write_bytes, write_json
from pipeline.config import load
from pipeline.errors import UserError
from pretrain.loop import Loop
from pretrain.resume import Position
from pretrain.run import Run
from pretrain.train import Pretraining
from tests.benchmarks.loader import made_up_shards

PLAIN = "nothing changed"
BATCH = 32
# bf16 stays last: a process has one precision at a time, and the trainings before it have taken theirs
SETTINGS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "the same again": {},
    "ema_decay 0.999": {"ema_decay": 0.999},
    "gradient_accumulation 2": {"gradient_accumulation": 2, "batch_size": BATCH // 2},
    "gradient_checkpointing": {"gradient_checkpointing": True},
    "compile": {"compile": True},
    "bf16": {"mixed_precision": "bf16"},
}
CLIPS = 64


def new_loop(folder: Path, shards: list[Path], changes: dict[str, Any], device: str, threads: int) -> Loop:
    section = {
        "train_shards": [str(path) for path in shards], "val_shards": [], "batch_size": BATCH, "device": device,
        "threads": threads, "steps": 100_000, "log_every": 100_000, **changes,
    }  # fmt: skip
    folder.mkdir()
    path = folder / "config.yaml"
    write_bytes(path, yaml.safe_dump({"run": {"out": str(folder / "run")}, "pretrain": section}).encode())
    AcceleratorState._reset_state(reset_partial_state=True)
    training = Pretraining(Run(load(path)))
    return Loop(training, training.new_model(), Position())


def timed_step(loop: Loop) -> float:
    """Seconds of one optimizer step."""
    start = time.perf_counter()
    loop.one_step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(shards: list[Path], folder: Path, device: str, threads: int, rounds: int) -> dict[str, Any]:
    loops: dict[str, Loop] = {}
    figures: dict[str, Any] = {}
    for number, (name, changes) in enumerate(SETTINGS.items()):
        try:
            loops[name] = new_loop(folder / str(number), shards, changes, device, threads)
            figures[name] = {"first_step_s": timed_step(loops[name])}
        except UserError as error:
            loops.pop(name, None)
            figures[name] = {"not_possible": str(error)}
    for loop in loops.values():
        timed_step(loop)
    times = [{name: timed_step(loop) for name, loop in loops.items()} for _ in range(rounds)]
    for name in loops:
        ratios = [taken[name] / taken[PLAIN] for taken in times]
        low, _, high = statistics.quantiles(ratios, n=4)
        figures[name] |= {
            "step_ms": 1000 * statistics.median(taken[name] for taken in times),
            "share_of_plain": statistics.median(ratios),
            "half_of_rounds": [low, high],
        }
    return {
        "settings": figures, "rounds": rounds, "windows_per_step": BATCH, "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu", "torch": torch.__version__,
    }  # fmt: skip


def lines_of(document: dict[str, Any]) -> list[str]:
    lines = [f"{document['rounds']} rounds, {document['threads']} thread(s), {document['device']}"]
    for name, one in document["settings"].items():
        if "not_possible" in one:
            lines.append(f"{name}: not possible here: {one['not_possible']}")
            continue
        low, high = one["half_of_rounds"]
        lines.append(
            f"{name}: {one['share_of_plain']:.2f} of a plain step ({low:.2f} to {high:.2f}), {one['step_ms']:.0f} ms; "
            f"first step {one['first_step_s']:.1f} s"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="0 = all cores")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--shards", type=Path, nargs="+", help="train on these; default: made-up clips")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        shards = arguments.shards or made_up_shards(Path(scratch), CLIPS)
        document = measure(shards, Path(scratch), arguments.device, arguments.threads, arguments.rounds)
    write_json(arguments.json, document)
    print("\n".join(lines_of(document)))


if __name__ == "__main__":
    main()
