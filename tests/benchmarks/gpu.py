"""All measurements of pretraining that need a GPU, in one command of under ten minutes:

    python -m tests.benchmarks.gpu --json FILE [--markdown FILE] [--budget-s 540]

Rate of plain bf16 matrix products; Chamfer distance (``tests.benchmarks.chamfer --device cuda``); training steps of the
full family at its true size, with the share of that rate that they reach, the share of time in which the GPU does
nothing, and peak memory; steps of the compact family; latency of one sampled future with the context read once. Weights
are random, which changes neither time nor memory, and windows made up on the device, so reading is not part of it.

Targets: 40 % of the rate, idle below 3 %, and a remembered context at least twice as fast as one read at every step.
Without a GPU it ends with exit code 2. ``--tiny`` runs it on tiny models on the CPU, but for the
Chamfer distance, which has a command of its own for CPUs; it shows that all of it runs.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pipeline.atomic import write_json
from pretrain.model.configuration_kinecloud import KinecloudConfig
from pretrain.model.modeling_kinecloud import KinecloudPredictor
from tests.benchmarks.full_size import full_config
from tests.benchmarks.predictor_steps import TRAININGS, made_up_window, needs, prepared, product_rate, take, timed
from tests.tiny_encoders import gemma_tokenizer, pi0_config

GB = 1e9
REACHED, IDLE, REMEMBERED = 0.40, 0.03, 2.0


class Setting:
    """What is measured where. tiny: small models on the CPU."""

    def __init__(self, tiny: bool):
        self.tiny = tiny
        self.device = "cpu" if tiny else "cuda"
        self.steps = 2 if tiny else 10
        self.side = 64 if tiny else 8192
        self.batches = (2,) if tiny else (32, 8, 1)
        self.compact = (2,) if tiny else (32, 256, 1024)

    def full(self, **changes: Any) -> KinecloudConfig:
        if not self.tiny:
            return full_config(**changes)
        return KinecloudConfig(image_size=32, width=32, heads=2, slots=2, mixture=pi0_config().to_dict(), **changes)

    def compact_config(self) -> KinecloudConfig:
        return KinecloudConfig(image_size=32, width=32, layers=1, heads=2, slots=2) if self.tiny else KinecloudConfig()

    def model(self, config: KinecloudConfig, frozen: Any = ()) -> KinecloudPredictor:
        with torch.device(self.device):
            return prepared(KinecloudPredictor(config), gemma_tokenizer(), frozen)


def products(setting: Setting) -> dict[str, Any]:
    """The rate that shares are of."""
    return {"side": setting.side, "flop_per_s": product_rate(setting.device, setting.side)}


def full_steps(setting: Setting, rate: float, training: str, batch: int) -> dict[str, Any]:
    """Steps of the full family in one training; FLOP as computed, so recomputed activations would not count."""
    config, frozen = setting.full(), TRAININGS[training]
    expected = needs(config, gemma_tokenizer(), frozen, batch)
    row: dict[str, Any] = {"training": training, "batch": batch, "step_flop": expected.step_flop}
    try:
        found = take(setting.model(config, frozen), made_up_window(config, batch, setting.device), setting.steps)
    except torch.cuda.OutOfMemoryError:
        return row | {"out_of_memory": True, "computed_memory": expected.memory}
    finally:
        _free()
    reached = expected.step_flop / found.step_s / rate
    return row | found.as_dict() | {"reached": reached, "computed_memory": expected.memory}


def compact_steps(setting: Setting, rate: float, batch: int) -> dict[str, Any]:
    """Steps of the compact family with the settings' defaults."""
    config = setting.compact_config()
    expected = needs(config, None, (), batch)
    found = take(setting.model(config), made_up_window(config, batch, setting.device), setting.steps)
    reached = expected.step_flop / found.step_s / rate
    return {"batch": batch, **found.as_dict(), "windows_per_s": batch / found.step_s, "reached": reached}


@torch.no_grad()
def latency(setting: Setting) -> dict[str, Any]:
    """Seconds of one sampled future of one window: as it is, and if every step of the flow read the context again."""
    config = setting.full(generative=True)
    model, window = setting.model(config).eval(), made_up_window(config, 1, setting.device)
    seen = {name: window[name] for name in _OBSERVED}
    noised, tau = torch.zeros_like(window["future"]), torch.zeros(1, device=setting.device)

    def sampled() -> None:
        with torch.autocast(setting.device, torch.bfloat16):
            model(**window)

    def reading_again() -> None:
        with torch.autocast(setting.device, torch.bfloat16):
            observed = model.observe(**seen)
            for _ in range(config.flow_steps):
                model.estimate(observed, noised, tau)

    kept, again = (
        statistics.median(timed(call, setting.steps + 2, setting.device)[2:]) for call in (sampled, reading_again)
    )
    _free()
    return {"flow_steps": config.flow_steps, "remembered_s": kept, "read_again_s": again, "ratio": again / kept}


_OBSERVED = ("image", "intrinsics", "past", "past_visible", "past_valid", "past_opening", "text", "embodiment")


def chamfer(device: str, seconds: float) -> dict[str, Any]:
    """The benchmark of the Chamfer distance, as its own process; its targets are its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "chamfer.json"
        command = [sys.executable, "-m", "tests.benchmarks.chamfer", "--json", str(path), "--rounds", "10"]
        try:
            ended = subprocess.run([*command, "--device", device], capture_output=True, text=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            return {"failed": f"took longer than {seconds:.0f} s"}
        if not path.exists():
            return {"failed": (ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"])[-1]}
        return {"exit_code": ended.returncode, "printed": ended.stdout.strip(), **json.loads(path.read_text())}


def measure(setting: Setting, budget_s: float) -> dict[str, Any]:
    """All of it, the most wanted first; what does not fit into the time or the memory is named in ``left_out``."""
    began = time.monotonic()
    result: dict[str, Any] = {"device": _name(setting), "torch": torch.__version__, "tiny": setting.tiny}
    result["products"] = products(setting)
    rate = result["products"]["flop_per_s"]
    first = setting.batches[0]
    parts: list[tuple[str, Callable[[], Any]]] = [
        *((f"full, {name}, {first}", lambda name=name: full_steps(setting, rate, name, first)) for name in TRAININGS),
        *((f"compact, {some}", lambda some=some: compact_steps(setting, rate, some)) for some in setting.compact),
        ("latency", lambda: latency(setting)),
        *([] if setting.tiny else [("chamfer", lambda: chamfer("cuda", budget_s - (time.monotonic() - began)))]),
        *(
            (f"full, {name}, {batch}", lambda name=name, batch=batch: full_steps(setting, rate, name, batch))
            for batch in setting.batches[1:]
            for name in TRAININGS
        ),
    ]  # fmt: skip
    result |= {"full": [], "compact": [], "left_out": []}
    for name, part in parts:
        if time.monotonic() - began > budget_s - 20:
            result["left_out"].append(f"{name} (no time left)")
            continue
        print(f"[{time.monotonic() - began:.0f} s] {name}", file=sys.stderr, flush=True)
        try:
            found = part()
        except torch.cuda.OutOfMemoryError:
            result["left_out"].append(f"{name} (out of memory)")
            _free()
            continue
        kind = name.partition(",")[0]
        if kind in ("full", "compact"):
            result[kind].append(found)
        else:
            result[kind] = found
    result["seconds"] = time.monotonic() - began
    return result


def markdown(result: dict[str, Any]) -> str:
    """The section of the pretraining page."""
    rate = result["products"]["flop_per_s"]
    lines = [f"## Pretraining on {result['device']}", ""]
    if result["tiny"]:
        lines += ["**Tiny models on a CPU: these figures only show that the command runs.**", ""]
    lines += [
        f"Plain bf16 matrix products of {result['products']['side']} reach {rate / 1e12:.4g} TFLOP/s; torch "
        f"{result['torch']}. Random weights; windows made up on the device.", "",
        "| full family, true size | batch | ms/step | of the products' rate | idle | peak memory |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in result["full"]:
        if row.get("out_of_memory"):
            needed = f"out of memory, {row['computed_memory'] / GB:.0f} GB computed"
            lines.append(f"| {row['training']} | {row['batch']} | {needed} | - | - | - |")
        else:
            lines.append(
                f"| {row['training']} | {row['batch']} | {1000 * row['step_s']:.1f} | "
                f"{_held(row['reached'], row['reached'] >= REACHED)} | {_idle(row['idle'])} | "
                f"{row['peak_bytes'] / GB:.1f} GB |"
            )
    lines += ["", "| compact family | ms/step | windows/s | of the products' rate | idle | peak memory |"]
    lines += ["|---|---|---|---|---|---|"]
    for row in result["compact"]:
        lines.append(
            f"| batch {row['batch']} | {1000 * row['step_s']:.1f} | {row['windows_per_s']:.0f} | "
            f"{row['reached']:.1%} | {_idle(row['idle'])} | {row['peak_bytes'] / GB:.1f} GB |"
        )
    if "latency" in result:
        found = result["latency"]
        lines += [
            "", f"One sampled future ({found['flow_steps']} steps): {1000 * found['remembered_s']:.1f} ms with the "
            f"context remembered, {1000 * found['read_again_s']:.1f} ms if it were read at every step: "
            f"{found['ratio']:.1f} times{'' if found['ratio'] >= REMEMBERED else f', target {REMEMBERED} missed'}.",
        ]  # fmt: skip
    if "chamfer" in result:
        found = result["chamfer"]
        lines += ["", "Chamfer distance:", "", "```", found.get("printed") or f"failed: {found['failed']}", "```"]
    if result["left_out"]:
        lines += ["", f"Left out: {'; '.join(result['left_out'])}."]
    lines += ["", f"Made by `python -m tests.benchmarks.gpu` in {result['seconds']:.0f} s."]
    return "\n".join(lines) + "\n"


def _held(share: float, met: bool) -> str:
    return f"{share:.1%}" if met else f"{share:.1%}, target {REACHED:.0%} missed"


def _idle(share: float | None) -> str:
    if share is None:
        return "not seen"
    return f"{share:.1%}" if share < IDLE else f"{share:.1%}, target {IDLE:.0%} missed"


def _name(setting: Setting) -> str:
    return "a CPU" if setting.tiny else torch.cuda.get_device_name()


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--markdown", type=Path, help="write the section to this file as well")
    parser.add_argument("--budget-s", type=float, default=540.0, help="parts that would start later are left out")
    parser.add_argument("--tiny", action="store_true", help="tiny models on the CPU: only to see that it runs")
    chosen = parser.parse_args(arguments)
    if not chosen.tiny and not torch.cuda.is_available():
        print(
            "torch finds no GPU here, so nothing was measured. Run this where there is one, or with --tiny.",
            file=sys.stderr,
        )
        return 2
    if chosen.tiny:
        torch.set_num_threads(1)
    result = measure(Setting(chosen.tiny), chosen.budget_s)
    section = markdown(result)
    print(section)
    if chosen.json:
        write_json(chosen.json, result)
    if chosen.markdown:
        chosen.markdown.write_text(section)
    return 0


if __name__ == "__main__":
    sys.exit(main())
