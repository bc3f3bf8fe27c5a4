"""How far a predictor is off the true path, whenever it is there, by task: on robot episodes nothing was learnt from.

python -m tests.benchmarks.out_of_action.judge MODEL PACK CONFIG RESULT.json
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np

from data.loader import WindowDataset
from data.pack import packed
from pipeline.atomic import write_json
from pipeline.config import load
from pretrain.config import PretrainConfig
from pretrain.evaluate import score
from pretrain.metrics import MEASURES
from pretrain.model.modeling_kinecloud import KinecloudPredictor
from pretrain.scores import MODEL

STRIDE = 3  # every so many-th window is judged


def path_errors(model: Path, pack: Path, config: Path) -> dict[str, float]:
    """Timing-free path error up to the last horizon in mm by task, mean over clips; see ``pretrain.metrics``."""
    window = load(config).section("pretrain", PretrainConfig).window
    shards = [*packed(pack, "train"), *packed(pack, "val")]
    predictor = KinecloudPredictor.from_pretrained(model).eval()
    scores = score(predictor, WindowDataset(shards, window, all_points=True), STRIDE)
    at = scores.methods.index(MODEL), list(MEASURES).index("path_mm"), -1
    by_task: dict[str, list[float]] = defaultdict(list)
    for clip in scores.clips:
        by_task[clip.task].append(float(clip.errors_MKH[at]))
    return {task: float(np.nanmean(found)) for task, found in sorted(by_task.items()) if np.isfinite(found).any()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    for name in ("model", "pack", "config", "result"):
        parser.add_argument(name, type=Path)
    arguments = parser.parse_args()
    errors = path_errors(arguments.model, arguments.pack, arguments.config)
    write_json(arguments.result, {task: round(error, 3) for task, error in errors.items()})


if __name__ == "__main__":
    main()
