"""Features of a pretrained predictor: what they are, that they are frozen or learn, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from data.loader import WindowDataset, collate
from pretrain.features import DynamicsPredictor
from pretrain.model.modeling_kinecloud import KinecloudPredictor
from tests.align_runs import command, pretrained
from tests.test_pretrain_model import B, H, N, random_window, small_config, trained_like

FAMILIES: dict[str, dict[str, Any]] = {
    "plain": {},
    "waypoints": {"waypoints": 3},
    "generative": {"generative": True, "delta_scale": [0.2, 0.3, 0.4, 0.5, 0.6]},
    "latent": {"latent_action": True},
}


def features_of(trainable: bool = False, **changes: Any) -> DynamicsPredictor:
    torch.manual_seed(0)
    predictor = trained_like(KinecloudPredictor(small_config(**changes)))
    assert isinstance(predictor, KinecloudPredictor)
    return DynamicsPredictor(predictor, trainable)


@pytest.mark.parametrize("family", FAMILIES)
def test_motion_tokens_are_what_the_prediction_is_read_from(family: str) -> None:
    extractor, window = features_of(**FAMILIES[family]), random_window()
    features = extractor(window)
    assert features.motion_BHD.shape == (B, H, extractor.width) and features.points_BHN3.shape == (B, H, N, 3)
    assert features.context_BLD is not None and features.context_BLD.shape[::2] == (B, extractor.width)
    assert (features.waypoints_BW4 is not None) == ("waypoints" in FAMILIES[family])
    if family != "generative":
        torch.testing.assert_close(features.points_BHN3, extractor.predictor(**window).points)
    opening_BH = extractor.predictor.motion(features.motion_BHD)[..., -1]
    assert not torch.allclose(opening_BH[0], opening_BH[1])
    other = extractor(window | {"image": window["image"].flip(-1)})
    assert not torch.allclose(other.motion_BHD, features.motion_BHD)


def test_the_future_is_not_read() -> None:
    extractor, window = features_of(waypoints=3), random_window()
    shifted = window | {name: window[name] + 1 for name in ("future", "future_opening")}
    torch.testing.assert_close(extractor(shifted).motion_BHD, extractor(window).motion_BHD, rtol=0, atol=0)


def test_a_frozen_predictor_stays_as_it_is_and_a_trainable_one_learns() -> None:
    frozen, open_ = features_of(), features_of(trainable=True)
    policy = torch.nn.ModuleDict({"frozen": frozen, "open": open_}).train()
    assert not frozen.predictor.training and open_.predictor.training
    assert not frozen(random_window()).motion_BHD.requires_grad
    policy["open"](random_window()).motion_BHD.sum().backward()
    gradients = [p.grad is not None and bool(p.grad.any()) for p in open_.predictor.trunk.parameters()]
    assert sum(gradients) > len(gradients) / 2 and not any(p.requires_grad for p in frozen.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"image": torch.zeros(B, 3, 48, 48, dtype=torch.uint8)},
            "image has shape [3, 3, 48, 48]; this",
        ),
        ({"past": torch.zeros(B, 2, N, 3)}, "past has shape [3, 2, 20, 3]; this predictor learned from 4 along axis 1"),
        ({}, "depth is missing; this predictor learned from pictures with depth (config.depth)"),
    ],
)
def test_windows_of_another_kind_are_refused(change: dict[str, Any], message: str) -> None:
    extractor = features_of(depth=True, scene="depth")
    with pytest.raises(ValueError, match=re.escape(message)):
        extractor(random_window() | change)


def test_an_outside_policy_learns_from_a_saved_predictor(tmp_path: Path) -> None:
    run = pretrained(tmp_path).folder("pretrain") / "model"
    with pytest.raises(ValueError, match=r"scene is 'none'; you expect 'depth'"):
        DynamicsPredictor.from_pretrained(run, expect={"scene": "depth"})
    with pytest.raises(ValueError, match=r"config.json tells no colour; you expect 'red'"):
        DynamicsPredictor.from_pretrained(run, expect={"colour": "red"})
    past = tuple(DynamicsPredictor.from_pretrained(run).predictor.config.past_times)
    extractor = DynamicsPredictor.from_pretrained(run, expect={"image_size": 32, "past_times": past})
    shards = sorted((tmp_path / "clips").glob("*.tar"))
    windows = WindowDataset(shards, extractor.window(points=12))
    assert extractor(collate([windows[(0, 0)], windows[(1, 1)]])).points_BHN3.shape[2:] == (12, 3)
    done = command("docs/examples/outside_policy.py", run, tmp_path / "clips", PYTHONPATH=".")
    assert done.returncode == 0, done.stderr
    policy, mean = (sum(map(float, re.findall(r"\d\S*\d", line))) for line in done.stdout.splitlines())
    assert policy < 0.7 * mean
