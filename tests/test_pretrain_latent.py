"""The latent-action baseline: what it learns from, and what must not leak."""

from __future__ import annotations

import torch

from pretrain.config import ObjectiveSettings
from pretrain.model.latent import Q, Z
from pretrain.model.modeling_kinecloud import KinecloudPredictor
from pretrain.objectives import loss_of
from tests.test_pretrain_model import B, S, random_window, small_config, trained_like

S_HALF = S // 2
OBJECTIVE = ObjectiveSettings(chamfer=0, tracked=1, latent_action=1, opening=0)  # pyright: ignore[reportCallIssue]


def predictor() -> KinecloudPredictor:
    torch.manual_seed(0)
    return trained_like(KinecloudPredictor(small_config(latent_action=True)))  # pyright: ignore[reportReturnType]


def with_later() -> dict:
    return random_window() | {"image_later": random_window(seed=9)["image"]}


def test_the_clouds_teach_the_readout_only():
    model = predictor()
    window = with_later()
    loss_of(model(**window), window, ObjectiveSettings(chamfer=0, tracked=1, opening=0)).total.backward()  # pyright: ignore[reportCallIssue]
    taught = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum()}
    assert "trunk" not in taught and {"latent", "motion", "displacement"} <= taught
    inner = {n for n, p in model.latent.named_parameters() if p.grad is not None and p.grad.abs().sum()}
    assert {name.split(".")[0] for name in inner} == {"queries", "readout"}


def test_images_teach_code_and_trunk():
    model, window = predictor(), with_later()
    model(**window).latent.sum().backward()
    taught = {name.split(".")[0] for name, p in model.latent.named_parameters() if p.grad is not None}
    assert taught == {"inverse", "see", "act", "make", "guess"}
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.trunk.parameters())


def test_the_later_image_decides_the_code_in_training_and_is_not_there_in_use():
    model, window = predictor(), with_later()
    told = model(**window).points
    assert not torch.allclose(told, model(**window | {"image_later": 255 - window["image_later"]}).points)
    guessed = model(**random_window())
    assert guessed.latent is None and guessed.points.shape == told.shape


def test_the_code_carries_what_only_the_later_image_knows():
    """Motion is left or right by a coin that the present image does not show; the code must tell it."""
    torch.manual_seed(0)
    model = KinecloudPredictor(small_config(latent_action=True))
    window = random_window(batch=B)
    side = torch.tensor([1.0, -1.0, 1.0])
    window["past"][:] = window["past"][:1, -1:]
    window["future"] = window["past"][:, -1:] + torch.tensor([0.1, 0, 0]) * side[:, None, None, None]
    window["image"][:] = 100
    window["text"], window["embodiment"] = [""] * B, ["human-hand"] * B
    window["image_later"] = window["image"].clone()
    window["image_later"][side > 0, :, :, S_HALF:] = 250
    window["image_later"][side < 0, :, :, :S_HALF] = 250
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(80):
        optimizer.zero_grad()
        loss_of(model(**window), window, OBJECTIVE).total.backward()
        optimizer.step()
    moved = (model(**window).points - window["past"][:, -1:])[..., -1, :, 0].mean(1)
    assert torch.equal(moved.sign(), side) and (moved.abs() > 0.05).all()
    without = {name: value for name, value in window.items() if name != "image_later"}
    blind = model(**without).points
    assert torch.allclose(blind[0], blind[1], atol=1e-3), "without the later image both futures look alike"


def test_codes_are_whole_numbers_about_zero():
    from pretrain.model.latent import _rounded, quantised

    raw = torch.linspace(-4, 4, 4 * Z).reshape(4, Z).requires_grad_()
    code = _rounded(raw)
    assert torch.equal(code, code.round()) and code.abs().max() == (Q - 1) / 2
    code.sum().backward()
    assert raw.grad is not None and (raw.grad > 0).all()
    assert torch.equal(quantised(torch.arange(Q)), torch.tensor([-2.0, -1, 0, 1, 2]))
