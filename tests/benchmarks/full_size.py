"""The full family at its true size, PaliGemma 3B with pi0's expert of 300M:

    python -m tests.benchmarks.full_size [--json FILE] [--batches 1 8 32] [--tflops 989]

Parameters, FLOP and memory of a training step in bf16 are computed from shapes alone, on any machine, in a minute.
Step times are computed from FLOP, too, at 40 % of a rate of matrix products: --tflops, by default what NVIDIA's data
sheet gives an H100 or H200 for dense bf16. What a GPU really takes, ``tests.benchmarks.gpu`` measures.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import PI0Config

from pipeline.atomic import write_json
from pretrain.model.configuration_kinecloud import KinecloudConfig
from tests.benchmarks.predictor_steps import TRAININGS, Needs, needs
from tests.tiny_encoders import gemma_tokenizer

SHARE = 0.4
GB = 1e9


def full_config(**changes: Any) -> KinecloudConfig:
    """As build.py makes it of pi0's published sizes, which are the defaults of transformers' PI0Config."""
    mixture = PI0Config().to_dict()
    expert = mixture["dit_config"]
    sizes = {"width": expert["hidden_size"], "heads": expert["num_attention_heads"], "image_size": 224}
    return KinecloudConfig(mixture=mixture, **sizes, **changes)


def computed(
    config: KinecloudConfig, batches: Sequence[int], tflops: float, trainings: Sequence[str] = tuple(TRAININGS)
) -> list[dict[str, Any]]:
    """One row per training and batch."""
    rows = []
    for training in trainings:
        for batch in batches:
            found = needs(config, gemma_tokenizer(), TRAININGS[training], batch)
            rows.append({"training": training, "batch": batch, **row_of(found, tflops)})
    return rows


def row_of(found: Needs, tflops: float) -> dict[str, Any]:
    seconds = found.step_flop / (tflops * 1e12 * SHARE)
    return {**asdict(found), "memory": found.memory, "computed_step_s": seconds}


def table(rows: list[dict[str, Any]], tflops: float) -> str:
    """Markdown."""
    lines = [
        "| training | batch | learned | TFLOP per step | weights + AdamW | activations | memory | step, computed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        states = row["weights"] + row["gradients"] + row["moments"]
        lines.append(
            f"| {row['training']} | {row['batch']} | {row['learned'] / 1e6:.0f} M | {row['step_flop'] / 1e12:.1f} "
            f"| {states / GB:.1f} GB | {row['activations'] / GB:.1f} GB | {row['memory'] / GB:.1f} GB "
            f"| {1000 * row['computed_step_s']:.0f} ms |"
        )
    lines += ["", f"All computed, none measured; times at {SHARE:.0%} of {tflops:g} TFLOP/s."]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--tflops", type=float, default=989.0, help="rate of bf16 matrix products, measured or given")
    chosen = parser.parse_args(arguments)
    config = full_config()
    rows = computed(config, chosen.batches, chosen.tflops)
    print(f"{rows[0]['parameters'] / 1e6:.1f} M parameters\n\n{table(rows, chosen.tflops)}")
    if chosen.json:
        write_json(chosen.json, {"how": "computed", "share": SHARE, "tflops": chosen.tflops, "rows": rows})


if __name__ == "__main__":
    main()
