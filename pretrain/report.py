"""Pretraining's part of the run report: learning curves, errors beside the baselines, predicted and true clouds."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from data.loader import WindowDataset, collate
from pipeline.section import Section
from pretrain.metrics import errors_mm, no_motion
from pretrain.model.modeling_kinecloud import KinecloudPredictor

ORDER = 50
CLIPS_PER_EMBODIMENT = 3
_SCALE = 3  # enlargement of the pictures
_COLORS = {"now": (255, 255, 255), "true": (64, 220, 120), "predicted": (255, 140, 40)}


def write_section(folder: Path, model: KinecloudPredictor, dataset: WindowDataset, document: dict[str, Any]) -> None:
    """Writes the report section of RUN/pretrain."""
    section = Section("Pretraining: predicting motion", ORDER)
    if not document["windows"]:
        section.note("No held-out clip was long enough, so the predictor could not be evaluated.", kind="warning")
    else:
        _figures(section, document)
        if "filmed" not in document["results"]:
            section.note("Held-out clips here are simulated: rendered robots, hands and scenes.", kind="simulated")
        elif "simulated" in document["results"]:
            section.note("Some held-out clips are simulated; the tables tell them from filmed ones.")
    _curves(section, folder / "metrics.jsonl")
    _tables(section, document)
    if document["windows"]:
        _pictures(section, model, dataset)
    section.save(folder)


def _figures(section: Section, document: dict[str, Any]) -> None:
    at = document["horizons_s"][-1]
    verdict = document["last_horizon"]["all"]
    if verdict is None:
        return
    share = verdict["share_of"].get("no motion")
    section.summary(
        f"On {document['episodes']} held-out episodes the cloud predicted {at:g} s ahead is off by "
        f"{verdict['chamfer_mm']:.1f} mm (Chamfer)"
        + (f", {100 * share:.0f} % of what standing still would give." if share is not None else ".")
    )
    facts = [(f"Chamfer error at {at:g} s", f"{verdict['chamfer_mm']:.1f} mm")]
    shares = [(f"share of {n}", f"{100 * s:.0f} %") for n, s in verdict["share_of"].items() if s is not None]
    section.facts(facts + shares[:1], top=True)
    section.facts(shares[1:])


def _curves(section: Section, metrics: Path) -> None:
    rows = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
    training = [row for row in rows if "loss" in row]
    if not training:
        return
    steps = [row["step"] for row in training]
    names = [name for name in training[0] if name not in ("step", "learning_rate", "gradient_norm")]
    series = {name: (steps, [row.get(name, float("nan")) for row in training]) for name in sorted(names)}
    section.curves("Training loss", "step", "loss (units of 0.1 m)", series, log_y=True, top=True)
    held_out = [row for row in rows if "val_chamfer_mm" in row]
    if held_out:
        values = ([row["step"] for row in held_out], [row["val_chamfer_mm"] for row in held_out])
        section.curves("Held-out Chamfer error, mean over horizons", "step", "mm", {"held out": values})


def _tables(section: Section, document: dict[str, Any]) -> None:
    columns = ["method", *(f"{horizon:g} s" for horizon in document["horizons_s"])]
    for subset, result in document["results"].items():
        for measure, title in (
            ("chamfer_mm", "Chamfer error, mm"),
            ("displacement_mm", "error of identified points, mm"),
        ):
            rows = [[method, *map(_cell, by_horizon)] for method, by_horizon in result[measure].items()]
            section.table(f"{title}: {subset} (mean over episodes, 95 % bootstrap interval)", columns, rows)


def _cell(value: dict[str, float] | None) -> str:
    return "–" if value is None else f"{value['mean']:.1f} ({value['low']:.1f}–{value['high']:.1f})"


def _pictures(section: Section, model: KinecloudPredictor, dataset: WindowDataset) -> None:
    pictures = []
    for number, example in enumerate(_examples(dataset)):
        window = collate([dataset[(example, example)]])
        with torch.no_grad():
            on_device = {k: v.to(model.device) if isinstance(v, torch.Tensor) else v for k, v in window.items()}
            predicted = model(**on_device).points.float().cpu()
        ours, still = (
            float(errors_mm(points, window)["displacement"][0, -1])
            for points in (predicted, no_motion(window, model.config.horizons))
        )
        meta = dataset.clip_of(example).meta
        caption = (
            f"{meta.embodiment}: {meta.instruction or 'no instruction'}. White: now; green: true, orange: predicted, "
            f"{model.config.horizons[-1]:g} s ahead. Error {ours:.0f} mm, standing still {still:.0f} mm."
        )
        pictures.append((_drawn(window, predicted), caption))
        if number == 0:
            points_TN3 = torch.cat([window["past"][0, -1:], window["future"][0]]).numpy()
            predicted_TN3 = torch.cat([window["past"][0, -1:], predicted[0]]).numpy()
            visible_TN = torch.cat([window["past_visible"][0, -1:], window["future_visible"][0]]).numpy()
            rate = 1 / float(np.median(np.diff([0.0, *model.config.horizons])))
            section.cloud(
                "A predicted motion",
                points_TN3,
                visible_TN,
                rate,
                f"{meta.embodiment}: {meta.instruction}",
                predicted_TN3,
            )
    section.images("The fastest moment of some held-out clips", pictures, top=True)


def _examples(dataset: WindowDataset) -> list[int]:
    """For a few clips of every embodiment, the window of the largest motion whose future is known to the end."""
    fastest: dict[tuple[int, str], tuple[float, int]] = {}
    count: dict[str, int] = {}
    span = dataset.config.horizons_s[-1]
    for number, window in enumerate(dataset.windows):
        place = (window.shard, window.key)
        clip = dataset.clip_of(number)
        if place not in fastest:
            if count.get(clip.meta.embodiment, 0) >= CLIPS_PER_EMBODIMENT:
                continue
            count[clip.meta.embodiment] = count.get(clip.meta.embodiment, 0) + 1
            fastest[place] = (-1.0, number)
        times, points_TN3 = clip.arrays["timestamps"], clip.arrays["points"]
        later = int(np.searchsorted(times, times[window.now] + span - 1e-6))
        if later < len(times):
            moved = float(np.linalg.norm(points_TN3[later].mean(0) - points_TN3[window.now].mean(0)))
            fastest[place] = max(fastest[place], (moved, number))
    return [number for moved, number in fastest.values() if moved >= 0]


def _drawn(window: dict[str, Any], predicted_1HN3: torch.Tensor) -> bytes:
    """The conditioning image with the present, the true and the predicted cloud, as PNG."""
    image = Image.fromarray(window["image"][0].permute(1, 2, 0).numpy())
    image = image.resize((image.width * _SCALE, image.height * _SCALE), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    intrinsics = window["intrinsics"][0].numpy()
    for name, points_N3 in (
        ("now", window["past"][0, -1]),
        ("true", window["future"][0, -1]),
        ("predicted", predicted_1HN3[0, -1]),
    ):
        uvw = points_N3.numpy() @ intrinsics.T
        uvw = uvw[uvw[:, 2] > 1e-3]
        for u, v in uvw[:, :2] / uvw[:, 2:] * _SCALE:
            pen.ellipse((u - 2, v - 2, u + 2, v + 2), fill=_COLORS[name])
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
