"""One row of the benchmark of pretraining with one seed, in a process of its own: trains and judges.

    python -m tests.benchmarks.pretraining_cell SPEC.json RESULT.json

SPEC: cell (name of a row, or ``baselines``), seed, settings (of the section ``pretrain``), stride, samples, test
(shards). The result has the errors of every episode, so that figures and intervals are made later, for several seeds
together.

Shapes: B windows, G episodes, M methods, K measures, H horizons, N points.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor
from transformers.utils import logging as transformers_logging

from data.loader import WindowDataset
from pipeline.atomic import write_bytes, write_json
from pipeline.config import load
from pretrain.augment import augment
from pretrain.config import AugmentSettings, PretrainConfig
from pretrain.evaluate import predict, score
from pretrain.metrics import MEASURES, baselines, errors_of
from pretrain.model.geometry import flattened
from pretrain.model.modeling_kinecloud import KinecloudPrediction, KinecloudPredictor
from pretrain.neighbour_choice import fitted
from pretrain.randomness import WindowRandom
from pretrain.reading import in_batches
from pretrain.resume import publish
from pretrain.run import Run
from pretrain.scores import MODEL, Scores, by_episode
from pretrain.train import Pretraining, train
from tests.benchmarks.pretraining_cells import BASELINES, CELLS, HAND, ROBOT, SUBSETS

_KEPT = ("ade_mm", "displacement_mm", "chamfer_mm", "path_mm", "within_2cm", "within_5cm")
_PURPOSE = "inputs taken away in test"


class Deprived(KinecloudPredictor):
    """A predictor that never gets some of its inputs: the very change of windows that its training made."""

    removed: tuple[str, ...] = ()

    def forward(self, **window: Any) -> KinecloudPrediction:  # pyright: ignore[reportIncompatibleMethodOverride]
        if self.removed:
            settings = AugmentSettings.only(**{f"drop_{name}": 1.0 for name in self.removed})
            window = augment(window, settings, WindowRandom(window["seed"], _PURPOSE))
        return super().forward(**window)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("spec", type=Path)
    parser.add_argument("result", type=Path)
    arguments = parser.parse_args()
    transformers_logging.disable_progress_bar()
    spec = json.loads(arguments.spec.read_text())
    write_json(arguments.result, run_cell(spec, arguments.spec.with_suffix("")))


def run_cell(spec: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Trains in ``folder`` (from where it was), and judges on the test clips."""
    run = Run(_config(spec, folder))
    test = WindowDataset([Path(path) for path in spec["test"]], run.settings.window, all_points=True)
    if spec["cell"] == BASELINES:
        return _baselines(spec, run, test)
    cell = CELLS[spec["cell"]]
    began = time.perf_counter()
    train(run)
    trained = time.perf_counter()
    publish(run)
    model = Deprived.from_pretrained(run.folder / "model").eval()
    model.removed = cell.removed
    scores = score(model, test, spec["stride"], samples=spec["samples"])
    readings = {method: _values(scores, method) for method in scores.methods if method.startswith(MODEL)}
    if cell.in_plane:
        readings[f"{MODEL}, in the plane"] = _values(in_plane(model, test, spec["stride"]), MODEL)
    return {
        "cell": spec["cell"],
        "seed": spec["seed"],
        "learning_rate": run.settings.learning_rate,
        "steps": run.settings.steps,
        "parameters": sum(p.numel() for p in model.parameters()),
        "train_s": round(trained - began, 1),
        "judge_s": round(time.perf_counter() - trained, 1),
        "readings": readings,
    }


def _baselines(spec: dict[str, Any], run: Run, test: WindowDataset) -> dict[str, Any]:
    """No training but that of the nearest neighbour, which is fitted on the training clips."""
    began = time.perf_counter()
    candidates = WindowDataset(run.train_shards, run.settings.window, all_points=True)
    neighbour = fitted(candidates)
    model = Pretraining(run).new_model()
    scores = score(model, test, spec["stride"], neighbour)
    readings = {method: _values(scores, method) for method in scores.methods if method != MODEL}
    plane = in_plane(model, test, spec["stride"])
    readings |= {f"{name}, in the plane": _values(plane, name) for name in plane.methods if name != MODEL}
    return {
        "cell": BASELINES,
        "seed": spec["seed"],
        "windows": len(scores.windows),
        "neighbour": neighbour.describe() if neighbour is not None else None,
        "judge_s": round(time.perf_counter() - began, 1),
        "readings": readings,
    }


def _config(spec: dict[str, Any], folder: Path) -> Any:
    path = folder / "benchmark.yaml"
    raw = {"run": {"out": str(folder), "seed": spec["seed"]}, "pretrain": spec["settings"]}
    write_bytes(path, yaml.safe_dump(raw).encode())
    config = load(path)
    config.section("pretrain", PretrainConfig)  # what is wrong with it is said before anything starts
    return config


def in_plane(model: KinecloudPredictor, dataset: WindowDataset, stride: int) -> Scores:
    """Errors as an image shows them: every cloud, predicted or true, is moved along its rays to the present depth of
    each point, so that what is left is motion across the ray, in millimetres at that depth. Baselines do what they do
    with such points, as with image tracks."""
    horizons, times = dataset.config.horizons_s, dataset.config.past_s
    scores = Scores(list(horizons))
    for numbers, window in in_batches(dataset, range(0, len(dataset), stride)):
        depth_BN1 = window["past"][:, -1, :, 2:]
        flat = window | {name: _at(window[name], depth_BN1) for name in ("past", "future")}
        clouds = {MODEL: _at(predict(model, window)[0], depth_BN1), **baselines(flat, horizons, times)}
        by_method = {name: errors_of(points, flat, horizons) for name, points in clouds.items()}
        errors = {name: _stacked(found) for name, found in by_method.items()}
        for row, number in enumerate(numbers):
            place = dataset.windows[number]
            rows = {name: found[row] for name, found in errors.items()}
            meta = dataset.meta_of(number)
            scores.add(number, (place.shard, place.key), meta, float(window["time"][row]), rows)
    return scores


def _at(points_BTN3: Tensor, depth_BN1: Tensor) -> Tensor:
    return flattened(points_BTN3) * depth_BN1[:, None]


def _stacked(errors: dict[str, Tensor]) -> np.ndarray:
    """[B,K,H]; what is not known, such as openings here, is NaN."""
    unknown = torch.full_like(errors["ade_mm"], float("nan"))
    return torch.stack([errors.get(name, unknown) for name in MEASURES], 1).numpy()


def _values(scores: Scores, method: str) -> dict[str, Any]:
    """By subset: the episodes, and by measure their errors [G,H], null where unknown."""
    place, found = scores.methods.index(method), {}
    for subset in SUBSETS:
        clips = [clip for clip in scores.clips if subset in ("all", _kind(clip.embodiment))]
        if clips:
            errors_GMKH = by_episode(clips)
            found[subset] = {
                "episodes": sorted({clip.group for clip in clips}),
                "errors": {name: _listed(errors_GMKH[:, place, k]) for k, name in enumerate(MEASURES) if name in _KEPT},
            }
    return found


def _kind(embodiment: str) -> str:
    return HAND if embodiment == HAND else ROBOT


def _listed(errors_GH: np.ndarray) -> Sequence[Sequence[float | None]]:
    return [[round(float(value), 4) if np.isfinite(value) else None for value in row] for row in errors_GH]


if __name__ == "__main__":
    main()
