"""What the loss terms mean, on motions whose answer is known."""

from __future__ import annotations

import math

import pytest
import torch

from pretrain.config import ObjectiveSettings
from pretrain.model.modeling_kinecloud import KinecloudPrediction
from pretrain.objectives import loss_of
from pretrain.schedule import learning_rate
from tests.test_pretrain_model import random_window

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
    only = ObjectiveSettings(chamfer=0, tracked=1, opening=0)  # pyright: ignore[reportCallIssue]
    assert list(loss_of(perfect(window), window, only).terms) == ["tracked"]


def test_a_window_that_breaks_the_loss_is_told_apart():
    window = random_window()
    prediction = perfect(window)
    prediction.points[1, 0, 0] = float("nan")
    assert torch.isfinite(loss_of(prediction, window, ALL).per_window_B).tolist() == [True, False, True]


def test_the_learning_rate_warms_up_and_decays():
    rates = [learning_rate(step, 100, 1e-3, 10, 0.1) for step in range(100)]
    assert rates[:11] == sorted(rates[:11]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert max(rates) == pytest.approx(1e-3) and rates[-1] == pytest.approx(1e-4) and rates[0] > 0


def test_a_broken_clip_is_told_apart_as_well():
    window = random_window()
    window["future"][1, 2, 3] = float("nan")
    loss = loss_of(perfect(random_window()), window, ALL)
    assert torch.isfinite(loss.per_window_B).tolist() == [True, False, True] and not torch.isfinite(loss.total)
