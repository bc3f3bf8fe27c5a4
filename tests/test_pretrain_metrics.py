"""What measures, baselines and intervals mean: against plain loops, and on motions whose answer is known."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from data.schema import ClipMeta
from pretrain.evaluation import document_of
from pretrain.metrics import MEASURES, NO_MOTION, WITHIN_MM, baselines, errors_of, no_motion, same_opening
from pretrain.scores import MODEL, ClipScore, Scores, summarize
from tests.pretrain_clips import moving_clip
from tests.test_pretrain_model import random_window

HORIZONS, TIMES = [0.1, 0.2, 0.3, 0.4, 0.5], [-0.15, -0.1, -0.05, 0.0]
UNEQUAL = [0.05, 0.1, 0.3, 0.6, 1.0]
SHIFT = torch.tensor([0.0, 0.03, 0.0])


def piece_distance(p: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """From a point to a straight piece, by trying 20001 places on it."""
    places = a + np.linspace(0, 1, 20001)[:, None] * (b - a)
    return float(np.linalg.norm(places - p, axis=1).min())


def path_distance(p: np.ndarray, path: list[np.ndarray]) -> float:
    return min(piece_distance(p, a, b) for a, b in pairwise(path))


def by_loops(
    points: np.ndarray, window: dict[str, np.ndarray], horizons: list[float], b: int, h: int
) -> dict[str, float]:
    """Every measure of one window at one horizon, in millimetres and shares, as its definition reads."""
    true, visible, valid = window["future"][b], window["future_visible"][b], window["future_valid"][b]
    predicted, now = points[b], window["past"][b, -1]

    def counted(at: int) -> list[int]:
        found = [n for n in range(true.shape[1]) if visible[at, n] and valid[at]]
        return found if len(found) >= 8 else []

    def displacement(at: int) -> float:
        return float(np.mean([np.linalg.norm(predicted[at, n] - true[at, n]) for n in counted(at)]))

    seen = counted(h)
    if not seen:
        return dict.fromkeys(MEASURES, math.nan)
    weights = np.diff([0.0, *horizons])
    earlier = [at for at in range(h + 1) if counted(at)]
    off = {n: np.linalg.norm(predicted[h, n] - true[h, n]) for n in seen}
    there = [min(np.linalg.norm(predicted[h, n] - true[h, m]) for m in seen) for n in seen]
    back = [min(np.linalg.norm(predicted[h, m] - true[h, n]) for m in seen) for n in seen]
    off_path, missed = [], []
    for n in seen:
        true_path = [now[n], *(true[at, n] for at in range(len(horizons)) if n in counted(at))]
        off_path.append(path_distance(predicted[h, n], true_path))
        missed.append(path_distance(true[h, n], [now[n], *predicted[:, n]]))
    return {
        "ade_mm": 1000 * sum(weights[at] * displacement(at) for at in earlier) / sum(weights[at] for at in earlier),
        "displacement_mm": 1000 * displacement(h),
        "chamfer_mm": 1000 * float(np.mean(there) + np.mean(back)) / 2,
        "path_mm": 1000 * float(np.mean(off_path) + np.mean(missed)) / 2,
        "off_path_mm": 1000 * float(np.mean(off_path)),
        **{name: float(np.mean([1000 * off[n] < limit for n in seen])) for name, limit in WITHIN_MM.items()},
    }


def test_every_measure_is_what_its_definition_says():
    window = random_window(points=12)
    random = torch.Generator().manual_seed(5)
    window["future"] += 0.02 * torch.randn(window["future"].shape, generator=random)
    window["future_visible"] = torch.rand(window["future_visible"].shape, generator=random) < 0.85
    window["future_visible"][0, 1, 2:] = False  # too little measured
    window["future_valid"][1, -1] = False
    points = window["future"] + 0.04 * torch.randn(window["future"].shape, generator=random)
    errors = errors_of(points, window, UNEQUAL)
    assert set(errors) == set(MEASURES) - {"opening_mm"}
    arrays = {name: value.numpy() for name, value in window.items() if isinstance(value, torch.Tensor)}
    undefined = 0
    for b in range(3):
        for h in range(5):
            expected = by_loops(points.numpy(), arrays, UNEQUAL, b, h)
            undefined += math.isnan(expected["ade_mm"])
            for name, error_BH in errors.items():
                assert float(error_BH[b, h]) == pytest.approx(expected[name], rel=1e-4, abs=2e-3, nan_ok=True), name
    assert undefined == 2


def test_the_truth_has_no_error():
    window = random_window()
    for name, error_BH in errors_of(window["future"], window, HORIZONS, window["future_opening"]).items():
        if MEASURES[name].unit == "share":
            assert (error_BH == 1).all(), name
        else:
            assert error_BH.abs().max() < 1e-3, name


def test_a_shift_of_three_centimetres_costs_three_centimetres():
    window = random_window()
    errors = errors_of(window["future"] + SHIFT, window, UNEQUAL, window["future_opening"] - 0.004)
    for name in ("ade_mm", "displacement_mm"):
        torch.testing.assert_close(errors[name], torch.full((3, 5), 30.0), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(errors["opening_mm"], torch.full((3, 5), 4.0), rtol=1e-4, atol=1e-3)
    shares = {name: errors[name].unique().tolist() for name in WITHIN_MM}
    assert shares == {"within_1cm": [0], "within_2cm": [0], "within_5cm": [1], "within_10cm": [1]}
    assert (errors["chamfer_mm"] <= 30.001).all() and (errors["chamfer_mm"] > 0).all()


def test_what_was_not_measured_does_not_count():
    window = random_window()
    window["future_visible"][0, :, 5:9] = False
    window["future_valid"][1, 2:] = False
    window["future_opening"][2, 3] = float("nan")
    points, opening = window["future"] + SHIFT, window["future_opening"].clone()
    before = errors_of(points, window, HORIZONS, opening)
    points[0, :, 5:9] += 1.0
    window["future"][0, :, 5:9] -= 2.0
    window["future"][1, 2:] = float("nan")
    after = errors_of(points, window, HORIZONS, opening)
    for name in MEASURES:
        torch.testing.assert_close(before[name], after[name], equal_nan=True)
    assert torch.isnan(after["ade_mm"]).nonzero().tolist() == [[1, 2], [1, 3], [1, 4]]
    assert torch.isnan(after["opening_mm"]).nonzero().tolist() == [[1, 2], [1, 3], [1, 4], [2, 3]]


def test_errors_are_undefined_where_too_little_was_measured_and_averages_pass_it_over():
    window = random_window()
    window["future_visible"][0, 1, 5:] = False
    errors = errors_of(window["future"] + SHIFT, window, HORIZONS)
    for name, error_BH in errors.items():
        assert torch.isnan(error_BH).nonzero().tolist() == [[0, 1]], name
    torch.testing.assert_close(errors["ade_mm"][0, 2:], torch.full((3,), 30.0), rtol=1e-4, atol=1e-3)


def test_the_average_over_time_does_not_depend_on_where_horizons_are_dense():
    window = random_window()
    ramp_H = torch.tensor(UNEQUAL)[None, :, None, None]
    error_BH = errors_of(window["future"] + ramp_H * SHIFT / 0.03, window, UNEQUAL)["ade_mm"]
    expected = [1000 * sum(t * (t - s) for s, t in pairwise([0.0, *UNEQUAL][: h + 2])) / UNEQUAL[h] for h in range(5)]
    torch.testing.assert_close(error_BH[0], torch.tensor(expected), rtol=1e-4, atol=1e-3)


def test_only_the_path_measures_forgive_another_pace():
    window = random_window()
    still = no_motion(window, HORIZONS)
    half_pace = still + 0.5 * (window["future"] - still)
    slow, wrong_way = errors_of(half_pace, window, HORIZONS), errors_of(2 * still - half_pace, window, HORIZONS)
    assert slow["off_path_mm"].max() < 0.01 < 1 < slow["displacement_mm"].min()
    assert slow["path_mm"][:, :2].max() < 0.01  # the true place is passed later
    assert slow["path_mm"][:, -1].min() > 0  # but the end of the way is never reached
    assert (slow["path_mm"] < slow["displacement_mm"]).all()
    torch.testing.assert_close(wrong_way["displacement_mm"], 3 * slow["displacement_mm"], rtol=1e-3, atol=0.01)
    torch.testing.assert_close(wrong_way["off_path_mm"], slow["displacement_mm"], rtol=1e-3, atol=0.01)
    standing = errors_of(still, window, HORIZONS)
    assert standing["off_path_mm"].max() < 0.01
    torch.testing.assert_close(standing["path_mm"], standing["displacement_mm"] / 2, rtol=1e-4, atol=0.01)


def test_baselines_are_exact_on_the_motion_they_assume():
    window = random_window()
    predictions = baselines(window, HORIZONS, TIMES)
    for name in ("constant velocity", "least-squares velocity"):
        assert errors_of(predictions[name], window, HORIZONS)["displacement_mm"].max() < 0.01, name
    moved = (window["future"] - window["past"][:, -1:]).norm(dim=-1).mean(-1) * 1000
    torch.testing.assert_close(errors_of(predictions[NO_MOTION], window, HORIZONS)["displacement_mm"], moved)
    assert errors_of(predictions[NO_MOTION], window, HORIZONS, same_opening(window, HORIZONS))["opening_mm"].max() == 0


def test_baselines_stand_still_where_the_past_is_missing():
    window = random_window()
    window["past_valid"][:, :-1] = False
    window["past"][:, :-1] += 1.0
    predictions = baselines(window, HORIZONS, TIMES)
    for name, points in predictions.items():
        assert torch.equal(points, predictions[NO_MOTION]), name


def clip_score(group: str, *errors: list[float]) -> ClipScore:
    """A clip with one measure: errors by horizon of each method."""
    return ClipScore("clip", group, "task", "", "human-hand", True, 1, np.array(errors)[:, None])


def test_episodes_weigh_the_same_however_many_clips_they_gave():
    clips = [clip_score("a", [1.0, 4.0]), clip_score("a", [3.0, math.nan]), clip_score("b", [6.0, math.nan])]
    summary = summarize(clips)
    first, second = (summary.value(0, 0, h) for h in range(2))
    assert first is not None and first["mean"] == 4.0 and 2.0 <= first["low"] < 4.0 < first["high"] <= 6.0
    assert second == {"mean": 4.0, "low": None, "high": None, "episodes": 1}
    assert summarize([clip_score("a", [math.nan])]).value(0, 0, 0) is None


def test_intervals_are_those_of_a_mean_and_of_a_paired_ratio():
    random = np.random.default_rng(1)
    motion = random.gamma(4.0, 10.0, 200)  # how far each episode moves decides all errors
    clips = [
        clip_score(f"{n}", [0.5 * m], [m], [float(o)])
        for n, (m, o) in enumerate(zip(motion, motion[::-1], strict=True))
    ]
    summary = summarize(clips)
    value = summary.value(1, 0, 0)
    assert value is not None and value["mean"] == pytest.approx(motion.mean(), abs=1e-3)
    assert (value["high"] - value["low"]) / 2 == pytest.approx(1.96 * motion.std() / math.sqrt(200), rel=0.1)
    assert summary.share(0, 1, 0, 0) == {"ratio": 0.5, "low": 0.5, "high": 0.5}
    unpaired = summary.share(0, 2, 0, 0)
    assert unpaired is not None and unpaired["ratio"] == 0.5 and unpaired["low"] < 0.48 < 0.52 < unpaired["high"]


def scores_of(errors: dict[str, dict[str, list[float]]], horizons: list[float], tasks: list[str]) -> Scores:
    """One window of one clip per task, each with the same errors by method and measure."""
    scores = Scores(horizons)
    for number, task in enumerate(tasks):
        meta = ClipMeta.model_validate(moving_clip(number, frames=4, points=8).meta.model_dump() | {"task": task})
        rows: dict[str, Any] = {
            method: np.array([given.get(name, [math.nan] * len(horizons)) for name in MEASURES])
            for method, given in errors.items()
        }
        scores.add(number, (0, f"clip-{number}"), meta, 0.0, rows)
    return scores


def test_the_verdict_is_the_share_of_each_baseline():
    chamfer = {MODEL: [1.0, 5.0], NO_MOTION: [1.0, 20.0], "constant velocity": [1.0, 8.0]}
    errors = {method: {"chamfer_mm": c, "ade_mm": [c[0], 2 * c[1]]} for method, c in chamfer.items()}
    document = document_of(scores_of(errors, [0.1, 0.5], ["a", "b"]), stride=1, samples=1, nearest_neighbour=None)
    verdict = document["last_horizon"]["simulated"]
    assert verdict["chamfer_mm"] == 5.0 and verdict["ade_mm"] == 10.0 and verdict["fde_mm"] is None
    assert verdict["share_of"] == {NO_MOTION: 0.25, "constant velocity": 0.625}
    assert verdict["ade_share_of"][NO_MOTION] == {"ratio": 0.25, "low": 0.25, "high": 0.25}


def test_many_tasks_are_told_in_few_rows():
    errors = {method: {"ade_mm": [7.0]} for method in (MODEL, NO_MOTION)}
    tasks = [f"task {n:02d}" for n in range(30)] + ["task 07"]
    rows = document_of(scores_of(errors, [0.5], tasks), stride=1, samples=1, nearest_neighbour=None)["tasks"]
    assert len(rows) == 21 and rows[0]["task"] == "task 07" and rows[0]["clips"] == 2
    assert rows[-1]["task"] == "10 other tasks" and rows[-1]["clips"] == 10
    assert sum(row["windows"] for row in rows) == len(tasks)
    assert rows[-1]["ade_mm"][MODEL]["mean"] == 7.0
