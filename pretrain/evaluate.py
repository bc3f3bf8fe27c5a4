"""Errors of a trained predictor on held-out clips, in millimetres per horizon, beside the baselines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.utils import logging as transformers_logging

from data.clips import Clip
from data.loader import WindowDataset, collate
from pipeline.atomic import write_json
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.logs import StageLog
from pretrain.config import PretrainConfig
from pretrain.metrics import baselines, errors_mm
from pretrain.modeling_kinecloud import KinecloudPredictor
from pretrain.report import write_section
from pretrain.shards import shards_of

MODEL = "predictor"
MEASURES = ("chamfer", "displacement")
_BATCH = 64
_RESAMPLES = 1000


@dataclass(frozen=True)
class ClipScore:
    """Errors of one method on one clip: millimetres per horizon [H], mean over its windows, NaN where undefined."""

    group: str
    embodiment: str
    simulated: bool
    method: str
    measure: str
    error_H: np.ndarray


def clip_windows(dataset: WindowDataset, stride: int) -> Iterator[tuple[Clip, dict[str, Any]]]:
    """Batches of windows of one clip each: every ``stride``-th window of the whole set, in order."""
    numbers: dict[tuple[int, str], list[int]] = defaultdict(list)
    for number in range(0, len(dataset), stride):
        window = dataset.windows[number]
        numbers[window.shard, window.key].append(number)
    for chosen in numbers.values():
        for start in range(0, len(chosen), _BATCH):
            yield dataset.clip_of(chosen[0]), collate([dataset[(n, n)] for n in chosen[start : start + _BATCH]])


@torch.no_grad()
def predict(model: KinecloudPredictor, window: dict[str, Any]) -> torch.Tensor:
    """Future clouds of a batch of windows, f32 [B,H,N,3] metres, on the CPU."""
    inputs = {name: v.to(model.device) if isinstance(v, torch.Tensor) else v for name, v in window.items()}
    was_training = model.training
    points = model.eval()(**inputs).points.float().cpu()
    model.train(was_training)
    return points


def score(model: KinecloudPredictor, dataset: WindowDataset, stride: int) -> tuple[list[ClipScore], int]:
    """Scores of the model and of every baseline on every clip, and the number of windows read."""
    config, collected, windows = model.config, defaultdict(list), 0
    metas = {}
    for clip, window in clip_windows(dataset, stride):
        metas[clip.key] = clip.meta
        windows += len(window["past"])
        predictions = {MODEL: predict(model, window)} | baselines(window, config.horizons, config.past_times)
        for method, points in predictions.items():
            for measure, error_BH in errors_mm(points, window).items():
                collected[clip.key, method, measure].append(error_BH.numpy())
    scores = [
        ClipScore(
            metas[key].group, metas[key].embodiment, metas[key].simulated, method, measure,
            _nan_mean(np.concatenate(errors)),
        )
        for (key, method, measure), errors in collected.items()
    ]  # fmt: skip
    return scores, windows


def validation_chamfer_mm(model: KinecloudPredictor, dataset: WindowDataset, windows: int) -> float | None:
    """Mean Chamfer error over all horizons of about ``windows`` held-out windows; None when there are none."""
    stride = max(1, -(-len(dataset) // windows))
    errors = [
        errors_mm(predict(model, window), window)["chamfer"].numpy() for _, window in clip_windows(dataset, stride)
    ]
    if not errors:
        return None
    by_horizon = _nan_mean(np.concatenate(errors))
    return float(np.nanmean(by_horizon)) if np.isfinite(by_horizon).any() else None


def _nan_mean(error_BH: np.ndarray) -> np.ndarray:
    known = np.isfinite(error_BH)
    total = np.where(known, error_BH, 0).sum(0)
    return np.where(known.any(0), total / np.maximum(known.sum(0), 1), np.nan)


def summarize(scores: list[ClipScore]) -> dict[str, list[dict[str, float] | None]]:
    """By method: per horizon the mean over groups (episodes of the same motion) with its 95 % bootstrap interval."""
    result: dict[str, list[dict[str, float] | None]] = {}
    for method in dict.fromkeys(s.method for s in scores):
        by_group: dict[str, list[np.ndarray]] = defaultdict(list)
        for s in scores:
            if s.method == method:
                by_group[s.group].append(s.error_H)
        groups_GH = np.stack([_nan_mean(np.stack(errors)) for _, errors in sorted(by_group.items())])
        result[method] = [_interval(column[np.isfinite(column)]) for column in groups_GH.T]
    return result


def _interval(values: np.ndarray) -> dict[str, float] | None:
    if len(values) == 0:
        return None
    random = np.random.default_rng(0)
    means = values[random.integers(0, len(values), (_RESAMPLES, len(values)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return {"mean": float(values.mean()), "low": float(low), "high": float(high), "episodes": len(values)}


def evaluation_of(scores: list[ClipScore], windows: int, horizons: list[float]) -> dict[str, Any]:
    """The document eval.json."""
    subsets = {"all": scores}
    subsets |= {"simulated": [s for s in scores if s.simulated], "filmed": [s for s in scores if not s.simulated]}
    subsets |= {name: [s for s in scores if s.embodiment == name] for name in sorted({s.embodiment for s in scores})}
    results = {
        name: {f"{measure}_mm": summarize([s for s in subset if s.measure == measure]) for measure in MEASURES}
        for name, subset in subsets.items()
        if subset
    }
    return {
        "horizons_s": horizons,
        "windows": windows,
        "episodes": len({s.group for s in scores}),
        "results": results,
        "last_horizon": {name: _verdict(result["chamfer_mm"]) for name, result in results.items()},
    }


def _verdict(chamfer: dict[str, list[dict[str, float] | None]]) -> dict[str, Any] | None:
    """Chamfer at the last horizon as a share of each baseline's."""
    ours = chamfer[MODEL][-1]
    if ours is None:
        return None
    shares = {}
    for method, by_horizon in chamfer.items():
        last = by_horizon[-1]
        if method != MODEL and last is not None:
            shares[method] = ours["mean"] / last["mean"] if last["mean"] > 0 else None
    return {"chamfer_mm": ours["mean"], "share_of": shares}


def evaluate(config: Config, model_folder: Path) -> dict[str, Any]:
    """Scores the predictor in ``model_folder`` on the held-out clips; writes RUN/pretrain/eval.json and the report
    section. Raises UserError when there is no model."""
    settings = config.section("pretrain", PretrainConfig)
    folder = config.folder("pretrain")
    if not (model_folder / "config.json").exists():
        raise UserError(f"{model_folder}: no trained predictor there. Train first: python -m pretrain --config ...")
    transformers_logging.disable_progress_bar()
    model = KinecloudPredictor.from_pretrained(model_folder)
    if settings.device != "cpu" and torch.cuda.is_available():
        model.to("cuda")  # pyright: ignore[reportArgumentType]
    dataset = WindowDataset(shards_of(config, settings, "val", "pretrain"), settings.window, all_points=True)
    scores, windows = score(model, dataset, settings.evaluation_stride)
    document = evaluation_of(scores, windows, model.config.horizons)
    write_json(folder / "eval.json", document)
    log = StageLog(config.run.out, "pretrain")
    for line in lines_of(document):
        log.info(line)
    write_section(folder, model, dataset, document)
    return document


def lines_of(document: dict[str, Any]) -> list[str]:
    """The evaluation for people: per subset the Chamfer error at the last horizon, beside the baselines."""
    if not document["windows"]:
        return ["no held-out windows, so nothing was evaluated"]
    lines = []
    for subset, result in document["results"].items():
        last = {m: by_horizon[-1]["mean"] for m, by_horizon in result["chamfer_mm"].items() if by_horizon[-1]}
        text = ", ".join(f"{method} {value:.2f} mm" for method, value in last.items())
        lines.append(f"Chamfer at {document['horizons_s'][-1]} s, {subset}: {text or 'no clip is long enough'}")
    return lines
