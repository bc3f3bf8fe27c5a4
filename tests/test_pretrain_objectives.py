"""What the loss terms, the error measures and the baselines mean, on motions whose answer is known."""

from __future__ import annotations

import math

import pytest
import torch

from pretrain.augment import augment, change_camera
from pretrain.config import AugmentSettings, ObjectiveSettings
from pretrain.evaluate import ClipScore, evaluation_of, summarize
from pretrain.metrics import baselines, errors_mm
from pretrain.modeling_kinecloud import KinecloudPrediction
from pretrain.objectives import loss_of
from pretrain.randomness import WindowRandom
from pretrain.schedule import learning_rate
from tests.test_pretrain_model import B, random_window

HORIZONS, TIMES = [0.1, 0.2, 0.3, 0.4, 0.5], [-0.15, -0.1, -0.05, 0.0]
ALL = ObjectiveSettings()  # pyright: ignore[reportCallIssue]


def perfect(window):
    return KinecloudPrediction(points=window["future"].clone(), opening=window["future_opening"].clone())


def test_the_truth_costs_nothing_and_a_shift_costs_its_length():
    window = random_window()
    assert float(loss_of(perfect(window), window, ALL).total) < 1e-6
    shifted = perfect(window)
    shifted.points += torch.tensor([0.0, 0.03, 0.0])
    shifted.opening += 0.01
    terms = loss_of(shifted, window, ALL).terms
    assert float(terms["tracked"]) == pytest.approx(math.hypot(0.3, 0.02) - 0.02, rel=1e-4)  # units of 0.1 m
    assert float(terms["opening"]) == pytest.approx(0.1, rel=1e-4)
    assert 0 < float(terms["chamfer"]) < 0.3


def test_what_was_not_measured_does_not_count():
    window = random_window()
    window["future_visible"][0, :, 3:9] = False
    window["future_valid"][1, 2:] = False
    window["future_opening"][2] = float("nan")
    prediction = perfect(window)
    prediction.points[0, :, 3:9] += 5.0
    prediction.points[1, 2:] += 5.0
    prediction.points.requires_grad_()
    prediction.opening = prediction.opening.nan_to_num(7.0).requires_grad_()
    loss = loss_of(prediction, window, ALL)
    assert float(loss.total.detach()) < 1e-6
    loss.total.backward()
    for prediction_grad in (prediction.points.grad, prediction.opening.grad):
        assert prediction_grad is not None and torch.isfinite(prediction_grad).all()


def test_a_weight_of_zero_switches_a_term_off():
    window = random_window()
    only = ObjectiveSettings(chamfer=0, tracked=1, opening=0)
    assert list(loss_of(perfect(window), window, only).terms) == ["tracked"]


def test_a_window_that_breaks_the_loss_is_told_apart():
    window = random_window()
    prediction = perfect(window)
    prediction.points[1, 0, 0] = float("nan")
    assert torch.isfinite(loss_of(prediction, window, ALL).per_window_B).tolist() == [True, False, True]


def test_baselines_are_exact_on_the_motion_they_assume():
    window = random_window()
    predictions = baselines(window, HORIZONS, TIMES)
    for name in ("constant velocity", "least-squares velocity"):
        assert errors_mm(predictions[name], window)["displacement"].max() < 0.01, name
    moved = (window["future"] - window["past"][:, -1:]).norm(dim=-1).mean(-1) * 1000
    torch.testing.assert_close(errors_mm(predictions["no motion"], window)["displacement"], moved)


def test_baselines_stand_still_where_the_past_is_missing():
    window = random_window()
    window["past_valid"][:, :-1] = False
    window["past"][:, :-1] += 1.0
    predictions = baselines(window, HORIZONS, TIMES)
    for name, points in predictions.items():
        assert torch.equal(points, predictions["no motion"]), name


def test_errors_are_undefined_where_too_little_was_measured():
    window = random_window()
    window["future_visible"][0, 1, 5:] = False
    window["future_valid"][1, -1] = False
    for error_BH in errors_mm(window["future"], window).values():
        undefined = torch.isnan(error_BH)
        assert undefined.nonzero().tolist() == [[0, 1], [1, len(HORIZONS) - 1]]
        assert error_BH[~undefined].abs().max() < 1e-3


def clip_score(group: str, method: str, errors: list[float]) -> ClipScore:
    return ClipScore(group, "human-hand", True, method, "chamfer", torch.tensor(errors).numpy())


def test_episodes_weigh_the_same_however_many_clips_they_gave():
    scores = [clip_score("a", "predictor", [1.0, 4.0]), clip_score("a", "predictor", [3.0, math.nan])]
    scores += [clip_score("b", "predictor", [6.0, math.nan])]
    first, second = summarize(scores)["predictor"]
    assert first is not None and first["mean"] == 4.0 and 2.0 <= first["low"] < 4.0 < first["high"] <= 6.0
    assert second is not None and second["mean"] == 4.0 and second["episodes"] == 1


def test_the_verdict_is_the_share_of_each_baseline():
    errors = {"predictor": 5.0, "no motion": 20.0, "constant velocity": 8.0}
    scores = [clip_score("a", method, [1.0, error]) for method, error in errors.items()]
    verdict = evaluation_of(scores, 3, [0.1, 0.5])["last_horizon"]["simulated"]
    assert verdict == {"chamfer_mm": 5.0, "share_of": {"no motion": 0.25, "constant velocity": 0.625}}


def test_a_changed_camera_still_sees_the_points_where_they_are():
    window = random_window(points=1)
    size = window["image"].shape[-1]

    def pixel_of_the_point() -> torch.Tensor:
        uvw = torch.einsum("bij,bj->bi", window["intrinsics"], window["past"][:, -1, 0])
        return uvw[:, :2] / uvw[:, 2:]

    window["past"][:, -1, 0] = torch.tensor([[0.05, 0.02, 0.6], [-0.1, 0.0, 0.8], [0.0, 0.08, 0.7]])
    rows, columns = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    u_B, v_B = pixel_of_the_point().T
    distance = torch.hypot(columns - u_B[:, None, None], rows - v_B[:, None, None])
    window["image"] = (255 * torch.exp(-(distance**2) / 4)).to(torch.uint8)[:, None].repeat(1, 3, 1, 1)
    change_camera(
        window, torch.tensor([0.3, -0.2, 0.0]), torch.tensor([1.2, 0.8, 1.0]), torch.tensor([[2.0, -1], [0, 3], [1, 1]])
    )
    weight = window["image"][:, 0].double()
    mass = weight.sum((1, 2))
    seen = torch.stack([(weight * columns).sum((1, 2)) / mass, (weight * rows).sum((1, 2)) / mass], -1)
    torch.testing.assert_close(seen.float(), pixel_of_the_point(), rtol=0, atol=0.3)


def test_augmentation_depends_on_its_generator_alone_and_leaves_the_batch_as_it_was():
    window = random_window()
    before = {name: value.clone() for name, value in window.items() if isinstance(value, torch.Tensor)}
    settings = AugmentSettings(drop_text=0.5)  # pyright: ignore[reportCallIssue]
    first, second = (augment(window, settings, WindowRandom(torch.arange(B))) for _ in range(2))
    other = augment(window, settings, WindowRandom(torch.arange(B) + B))
    for name, value in first.items():
        same = torch.equal(value, second[name]) if isinstance(value, torch.Tensor) else value == second[name]
        assert same, name
    assert not torch.equal(first["past"], other["past"]) and not torch.equal(first["image"], other["image"])
    assert all(torch.equal(window[name], value) for name, value in before.items())
    lengths = [w["past"][:, :, 0].norm(dim=-1) for w in (first, window)]
    torch.testing.assert_close(*lengths)


def test_dropped_modalities_are_dropped():
    settings = AugmentSettings(drop_text=1, drop_image=1, drop_embodiment=1)  # pyright: ignore[reportCallIssue]
    window = augment(random_window(), settings, WindowRandom(torch.arange(B)))
    assert window["text"] == [""] * B and window["embodiment"] == ["unknown"] * B and not window["image_present"].any()


def test_the_learning_rate_warms_up_and_decays():
    rates = [learning_rate(step, 100, 1e-3, 10, 0.1) for step in range(100)]
    assert rates[:11] == sorted(rates[:11]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert max(rates) == pytest.approx(1e-3) and rates[-1] == pytest.approx(1e-4) and rates[0] > 0
