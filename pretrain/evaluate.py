"""Judges a trained predictor on held-out clips, beside the baselines. Definitions: ``pretrain.metrics``; layout of the
result: ``pretrain.evaluation``.

Shapes: B windows, M methods, K measures, H horizons.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.utils import logging as transformers_logging

from data.config import WindowConfig
from data.loader import WindowDataset
from pipeline.atomic import write_json
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.logs import StageLog
from pretrain import neighbour
from pretrain.config import PretrainConfig
from pretrain.evaluation import document_of, lines_of
from pretrain.metrics import MEASURES, baselines, chamfer_mm, errors_of, same_opening
from pretrain.model.modeling_kinecloud import KinecloudPredictor
from pretrain.neighbour import NearestNeighbour
from pretrain.neighbour_choice import fitted
from pretrain.prediction import predict
from pretrain.reading import in_batches, spread
from pretrain.report import write_section
from pretrain.scores import MODEL, Scores, nan_mean
from pretrain.shards import shards_of

_VALIDATION_POINTS = 256


def model_errors(
    model: KinecloudPredictor, window: dict[str, Any], horizons: Sequence[float], samples: int
) -> dict[str, dict[str, Tensor]]:
    """Errors of the model by reading of its samples, then by measure, [B,H] each.

    ``predictor``: mean over samples of a sample's error, that is the error to expect of one prediction. With more than
    one sample also the error of the samples' mean cloud, and that of the best sample, chosen for each window with the
    truth in hand (least ADE), which bounds what choosing among samples could give.
    """
    drawn = [predict(model, window, sample) for sample in range(samples)]
    each = [errors_of(points, window, horizons, opening) for points, opening in drawn]
    stacked = {name: torch.stack([errors[name] for errors in each]) for name in each[0]}
    result = {MODEL: {name: errors_SBH.mean(0) for name, errors_SBH in stacked.items()}}
    if samples > 1:
        mean_cloud, mean_opening = (torch.stack(part).mean(0) for part in zip(*drawn, strict=True))
        result[f"{MODEL}, mean of {samples} samples"] = errors_of(mean_cloud, window, horizons, mean_opening)
        weight_H = torch.tensor([0.0, *horizons]).diff()
        best_B = (torch.nan_to_num(stacked["displacement_mm"]) * weight_H).sum(-1).argmin(0)
        here_B = torch.arange(len(best_B))
        result[f"{MODEL}, best of {samples} samples"] = {name: e[best_B, here_B] for name, e in stacked.items()}
    return result


def window_errors(
    model: KinecloudPredictor, window: dict[str, Any], groups: Sequence[str], dataset: WindowDataset,
    baseline: NearestNeighbour | None, samples: int,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Errors of the model and of every baseline, by method, [B,K,H] in the order of ``MEASURES``.

    groups: source episodes of the windows, which the nearest neighbour may not look up.
    """
    horizons, times = dataset.config.horizons_s, dataset.config.past_s
    by_method = model_errors(model, window, horizons, samples)
    still_BH = same_opening(window, horizons)
    for name, points in baselines(window, horizons, times).items():
        by_method[name] = errors_of(points, window, horizons, still_BH)
    if baseline is not None:
        points, opening_BH = baseline.predict(window, groups)
        by_method[neighbour.NAME] = errors_of(points, window, horizons, opening_BH)
    return {method: torch.stack([errors[name] for name in MEASURES], 1).numpy() for method, errors in by_method.items()}


def score(
    model: KinecloudPredictor,
    dataset: WindowDataset,
    stride: int,
    baseline: NearestNeighbour | None = None,
    samples: int = 1,
) -> Scores:
    """Errors on every ``stride``-th window of ``dataset`` (all points), averaged by clip."""
    scores = Scores(list(dataset.config.horizons_s))
    for numbers, window in in_batches(dataset, range(0, len(dataset), stride)):
        metas = [dataset.meta_of(number) for number in numbers]
        errors = window_errors(model, window, [meta.group for meta in metas], dataset, baseline, samples)
        for row, (number, meta) in enumerate(zip(numbers, metas, strict=True)):
            place = dataset.windows[number].shard, dataset.windows[number].key
            scores.add(number, place, meta, float(window["time"][row]), {m: e[row] for m, e in errors.items()})
    return scores


def evaluate_model(
    model: KinecloudPredictor,
    dataset: WindowDataset,
    stride: int = 1,
    baseline: NearestNeighbour | None = None,
    samples: int = 1,
) -> dict[str, Any]:
    """The document of ``pretrain.evaluation`` for any model and any windows (``all_points``); touches no files.

    baseline: the fitted nearest neighbour (``pretrain.neighbour_choice.fitted``), fitted once for many models.
    samples: predictions per window; 1 unless the model is generative. Raises UserError when the windows are not of the
    model's times or do not keep all points.
    """
    _require_fitting(model, dataset)
    samples = samples if model.config.generative else 1
    scores = score(model, dataset, stride, baseline, samples)
    chosen = baseline.describe() if baseline is not None else None
    return document_of(scores, stride=stride, samples=samples, nearest_neighbour=chosen)


def _require_fitting(model: KinecloudPredictor, dataset: WindowDataset) -> None:
    if not dataset.all_points:
        raise UserError("evaluation needs windows with all points: WindowDataset(..., all_points=True)")
    for name, ours, theirs in (
        ("past_s", model.config.past_times, dataset.config.past_s),
        ("horizons_s", model.config.horizons, dataset.config.horizons_s),
    ):
        if len(ours) != len(theirs) or not np.allclose(ours, theirs):
            raise UserError(
                f"window.{name} of the windows is {list(theirs)}, the model was made for {list(ours)}; cut the windows "
                "as the model says (pretrain.evaluate.window_of)"
            )


def window_of(model: KinecloudPredictor, window: WindowConfig) -> WindowConfig:
    """The window settings with the times and the image size that the model was trained with."""
    size = model.config
    return window.model_copy(
        update={
            "past_s": tuple(size.past_times), "horizons_s": tuple(size.horizons), "image_size": size.image_size
        }
    )  # fmt: skip


def evaluate(
    config: Config, model_folder: Path, shards: Sequence[Path] | None = None, out: Path | None = None
) -> dict[str, Any]:
    """Judges the predictor in ``model_folder`` on held-out clips; writes eval.json and the report section.

    shards: other shards than the run's held-out ones. out: folder to write to; default: the run's, or its subfolder
    ``other-shards`` when other shards are given. Raises UserError when there is no model or a shard is missing.
    """
    settings = config.section("pretrain", PretrainConfig)
    if not (model_folder / "config.json").exists():
        raise UserError(f"{model_folder}: no trained predictor there. Train first: python -m pretrain --config ...")
    for path in shards or ():
        if not path.is_file():
            raise UserError(f"--shards: {path} is not a file.")
    transformers_logging.disable_progress_bar()
    model = KinecloudPredictor.from_pretrained(model_folder)
    if settings.device != "cpu" and torch.cuda.is_available():
        model.to("cuda")  # pyright: ignore[reportArgumentType]
    window = window_of(model, settings.window)
    log = StageLog(config.run.out, "pretrain")
    held_out = list(shards) if shards else shards_of(config, settings, "val", "pretrain")
    dataset = WindowDataset(held_out, window, all_points=True)
    baseline = None
    if settings.evaluation_candidates:
        training = WindowDataset(shards_of(config, settings, "train", "pretrain"), window, all_points=True)
        baseline = fitted(training, settings.evaluation_candidates)
    document = evaluate_model(model, dataset, settings.evaluation_stride, baseline, settings.evaluation_samples)
    folder = out or (config.folder("pretrain") / "other-shards" if shards else config.folder("pretrain"))
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "eval.json", document)
    for line in lines_of(document):
        log.info(line)
    write_section(folder, model, dataset, document)
    return document


def validation_chamfer_mm(model: KinecloudPredictor, dataset: WindowDataset, windows: int) -> float | None:
    """Mean Chamfer error over horizons of at most ``windows`` held-out windows, always the same, evenly spread, with at
    most 256 points each; None when there are none. Every window counts alike: a check for training, not a result."""
    errors = []
    for _, window in in_batches(dataset, spread(len(dataset), windows)):
        window = _thinned(window)
        errors.append(chamfer_mm(predict(model, window)[0], window).numpy())
    if not errors:
        return None
    by_horizon = nan_mean(np.concatenate(errors))
    return float(np.nanmean(by_horizon)) if np.isfinite(by_horizon).any() else None


def _thinned(window: dict[str, Any]) -> dict[str, Any]:
    step = -(-window["past"].shape[2] // _VALIDATION_POINTS)
    names = ("past", "past_visible", "future", "future_visible")
    return window | {name: window[name][:, :, ::step].contiguous() for name in names}
