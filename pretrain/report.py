"""Pretraining's part of the run report: errors beside the baselines, best and worst clips, learning curves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from data.loader import WindowDataset
from pipeline.section import Section
from pretrain.model.modeling_kinecloud import KinecloudPredictor
from pretrain.pictures import example_of

ORDER = 50
_WORDS = {
    "ade_mm": "ADE, mm",
    "displacement_mm": "FDE, mm",
    "chamfer_mm": "Chamfer, mm",
    "path_mm": "path, mm",
    "within_1cm": "within 1 cm",
    "within_2cm": "2 cm",
    "within_5cm": "5 cm",
    "within_10cm": "10 cm",
    "opening_mm": "opening, mm",
}


def write_section(folder: Path, model: KinecloudPredictor, dataset: WindowDataset, document: dict[str, Any]) -> None:
    """Writes the report section of RUN/pretrain. document: as of ``pretrain.evaluation``, of this model and dataset."""
    section = Section("Pretraining: predicting motion", ORDER)
    if not document["windows"]:
        section.note("No held-out clip was long enough, so the predictor could not be evaluated.", kind="warning")
    else:
        _figures(section, document)
        if "filmed" not in document["results"]:
            section.note("Held-out clips here are simulated: rendered robots, hands and scenes.", kind="simulated")
        elif "simulated" in document["results"]:
            section.note("Some held-out clips are simulated; the tables tell them from filmed ones.")
    _learning(section, folder / "metrics.jsonl")
    if document["windows"]:
        _errors_ahead(section, document)
        _examples(section, model, dataset, document)
        _tables(section, document)
    section.save(folder)


def _figures(section: Section, document: dict[str, Any]) -> None:
    at, verdict = document["horizons_s"][-1], document["last_horizon"]["all"]
    if verdict is None:
        section.note(f"No held-out clip lasts {at:g} s, so there is no error at the last horizon.", kind="warning")
        return
    shares = {name: share for name, share in verdict["ade_share_of"].items() if share is not None}
    best = max(shares, key=lambda name: shares[name]["ratio"], default=None)
    section.summary(
        f"On {document['episodes']} held-out episodes the points predicted up to {at:g} s ahead are off by "
        f"{verdict['ade_mm']:.1f} mm on average"
        + (f", {100 * shares[best]['ratio']:.0f} % of the best baseline's error ({best})." if best else ".")
    )
    facts = [
        (f"mean error up to {at:g} s (ADE)", f"{verdict['ade_mm']:.1f} mm"),
        (f"Chamfer error at {at:g} s", f"{verdict['chamfer_mm']:.1f} mm"),
    ]
    ordered = sorted(shares.items(), key=lambda item: -item[1]["ratio"])
    more = [(f"ADE, share of {name}", _share(share)) for name, share in ordered]
    section.facts(facts + more[:1], top=True)
    section.facts([*more[1:], (f"points within 5 cm at {at:g} s", f"{100 * verdict['within_5cm']:.0f} %")])


def _share(share: dict[str, float | None]) -> str:
    text = f"{100 * (share['ratio'] or 0):.0f} %"
    if share["low"] is None or share["high"] is None:
        return text
    return text + f" ({100 * share['low']:.0f}–{100 * share['high']:.0f})"


def _learning(section: Section, metrics: Path) -> None:
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


def _errors_ahead(section: Section, document: dict[str, Any]) -> None:
    """Error over horizon, of the predictor and of every baseline."""
    for measure, title in (
        ("displacement_mm", "Mean error of identified points by how far ahead"),
        ("path_mm", "Timing-free path error by how far ahead"),
    ):
        series = {
            method: (
                [0.0, *document["horizons_s"]],
                [0.0, *(value["mean"] if value else float("nan") for value in by_horizon)],
            )
            for method, by_horizon in document["results"]["all"][measure].items()
        }
        section.curves(title, "seconds ahead", "mm", series)


def _examples(section: Section, model: KinecloudPredictor, dataset: WindowDataset, document: dict[str, Any]) -> None:
    pictures, moving = [], False
    at = model.config.horizons[-1]
    for found in document["examples"]:
        example = example_of(model, dataset, found["window"])
        what = f"{found['embodiment']}, {found['task']}" + (", simulated" if found["simulated"] else "")
        caption = (
            f"{found['rank'].capitalize()}: {what}. ADE of the clip {found['mean_ade_mm']:.0f} mm, of this moment "
            f"{found['ade_mm']:.0f} mm (standing still {found['no_motion_ade_mm']:.0f} mm). {found['clip']}, "
            f"{found['time_s']:.2f} s."
        )
        pictures.append((example.picture, caption))
        if found["rank"] == "median" and not moving:
            moving = True
            rate = 1 / float(np.median(np.diff([0.0, *model.config.horizons])))
            section.cloud(
                f"A predicted motion of middling error: {found['clip']}",
                example.true_TN3,
                example.visible_TN,
                rate,
                what,
                example.predicted_TN3,
            )
    if pictures:
        title = f"Best, median and worst held-out clips. White: now; green: true, orange: predicted, {at:g} s ahead"
        section.images(title, pictures, top=True)


def _tables(section: Section, document: dict[str, Any]) -> None:
    at, methods = document["horizons_s"][-1], document["methods"]
    results = document["results"]["all"]
    rows = [[method, *(_cell(results[name][method][-1], name) for name in _WORDS)] for method in methods]
    section.table(
        f"Errors at {at:g} s (ADE: up to there), mean over {document['episodes']} held-out episodes",
        ["method", *_WORDS.values()],
        rows,
    )
    counted = ["clips", "episodes", "windows"]
    rows = [
        [subset, *(counts[name] for name in counted), *_ades(document["results"][subset]["ade_mm"], methods)]
        for subset, counts in document["counts"].items()
    ]
    section.table(f"ADE up to {at:g} s by kind of clip, mm", ["clips of", *counted, *methods], rows)
    rows = [
        [row["task"], *(row[name] for name in counted), *(_cell(row["ade_mm"][m]) for m in methods)]
        for row in document["tasks"]
    ]
    section.table(f"ADE up to {at:g} s by task, mm", ["task", *counted, *methods], rows, folded=True)
    ahead = [f"{horizon:g} s" for horizon in document["horizons_s"]]
    for measure, title in (
        ("displacement_mm", "Displacement, mm"),
        ("chamfer_mm", "Chamfer error, mm"),
        ("path_mm", "Timing-free path error, mm"),
    ):
        rows = [[method, *map(_cell, by_horizon)] for method, by_horizon in results[measure].items()]
        section.table(f"{title} by horizon (95 % bootstrap interval)", ["method", *ahead], rows, folded=True)
    rows = [[name, measure["text"]] for name, measure in document["measures"].items()]
    if (chosen := document["nearest_neighbour"]) is not None:
        rows.append(["nearest neighbour", _neighbour_words(chosen)])
    section.table("What the measures and the nearest-neighbour baseline are", ["name", "definition"], rows, folded=True)


def _ades(by_method: dict[str, list[dict[str, Any] | None]], methods: list[str]) -> list[str]:
    return [_cell(by_method[method][-1]) for method in methods]


def _neighbour_words(chosen: dict[str, Any]) -> str:
    weights = ", ".join(f"{kind} {weight:g}" for kind, weight in chosen["weights"].items())
    turned = "with" if chosen["rotate"] else "without"
    return (
        f"The mean motion, {turned} rotation, of the {chosen['neighbours']} most similar of {chosen['windows']} "
        f"training windows ({chosen['episodes']} episodes), applied to the present cloud. Weights of what is compared, "
        f"chosen by leave-one-episode-out on training data: {weights}."
    )


def _cell(value: dict[str, Any] | None, measure: str = "ade_mm") -> str:
    """A mean with its interval; shares in percent, and without it."""
    if value is None:
        return "–"
    scale, digits, unit = (100, 0, " %") if measure.startswith("within") else (1, 1, "")
    text = f"{scale * value['mean']:.{digits}f}{unit}"
    if value["low"] is None or unit:
        return text
    return text + f" ({scale * value['low']:.{digits}f}–{scale * value['high']:.{digits}f})"
