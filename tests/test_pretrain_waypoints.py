"""Places that are found in the picture: what they are measured by, and that they are found and lead the motion."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from pretrain.config import ObjectiveSettings, PretrainConfig
from pretrain.model.configuration_kinecloud import KinecloudConfig
from pretrain.model.geometry import flattened
from pretrain.model.modeling_kinecloud import KinecloudPrediction, KinecloudPredictor
from pretrain.objectives import at_present_depth, grasp_term, heatmap_term, in_picture, loss_of, waypoints_term
from tests.test_pretrain_model import policy_of, small_config, trained_like

S, B, W = 32, 24, 3
HORIZONS = (0.1, 0.2)
F = 40.0  # focal length, pixels


def dots(seed: int, batch: int = B) -> dict[str, Any]:
    """A bright dot somewhere on a wall 0.8 m away, to which the effector will go at 0.4 m/s."""
    random = torch.Generator().manual_seed(seed)
    pixel_B2 = 4 + (S - 8) * torch.rand(batch, 2, generator=random)
    place_B3 = torch.cat([(pixel_B2 - S / 2) / F, torch.ones(batch, 1)], 1) * 0.8
    start_B3 = 0.1 * torch.randn(batch, 3, generator=random) + torch.tensor([0, 0, 0.7])
    way_B3 = place_B3 - start_B3
    grid = torch.arange(S) + 0.5
    apart = (grid - pixel_B2[:, :1])[:, None] ** 2 + ((grid - pixel_B2[:, 1:]) ** 2)[:, :, None]
    speed_B1 = (0.4 / way_B3.norm(dim=-1, keepdim=True)).clamp(max=5)
    grasp_BH3 = torch.stack([start_B3 + way_B3 * speed_B1 * h for h in HORIZONS], 1)
    body_BN3 = 0.02 * torch.randn(batch, 6, 3, generator=random)
    waypoints_BW3 = place_B3[:, None].expand(-1, W, -1)
    return {
        "image": (200 * torch.exp(-apart / 6))[:, None].expand(-1, 3, -1, -1).to(torch.uint8).contiguous(),
        "depth": torch.full((batch, S, S), 0.8),
        "intrinsics": torch.tensor([[F, 0, S / 2], [0, F, S / 2], [0, 0, 1]]).repeat(batch, 1, 1),
        "past": (start_B3[:, None] + body_BN3)[:, None],
        "past_visible": torch.ones(batch, 1, 6, dtype=torch.bool),
        "past_valid": torch.ones(batch, 1, dtype=torch.bool),
        "past_opening": torch.full((batch, 1), 0.05),
        "past_grasp": start_B3[:, None],
        "future": grasp_BH3[:, :, None] + body_BN3[:, None],
        "future_visible": torch.ones(batch, 2, 6, dtype=torch.bool),
        "future_valid": torch.ones(batch, 2, dtype=torch.bool),
        "future_opening": torch.full((batch, 2), 0.05),
        "future_grasp": grasp_BH3,
        "waypoints": torch.cat([waypoints_BW3, torch.full((batch, W, 1), 0.05)], -1),
        "waypoints_valid": torch.ones(batch, W, dtype=torch.bool),
        "text": ["go there"] * batch,
        "embodiment": ["hand"] * batch,
        "key": ["dot"] * batch,
    }


def pixels_of(window: dict[str, Any]) -> torch.Tensor:
    """Where the dots are, [B,2]."""
    place_BW3 = window["waypoints"][..., :3]
    return (place_BW3[..., :2] / place_BW3[..., 2:] * F + S / 2)[:, 0]


def config(**changes: Any) -> KinecloudConfig:
    return small_config(past_times=(0.0,), horizons=HORIZONS, waypoints=W, depth=True, **changes)


@pytest.fixture(scope="module")
def taught() -> KinecloudPredictor:
    torch.manual_seed(0)
    model = KinecloudPredictor(config())
    terms = {"chamfer": 0, "tracked": 1, "grasp": 1, "waypoints": 1, "heatmap": 0.2}
    weights = ObjectiveSettings.model_validate(terms)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(200):
        window = dots(step)
        optimizer.zero_grad()
        loss_of(model(**window), window, weights).total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval()


def found(model: KinecloudPredictor, window: dict[str, Any]) -> tuple[float, float]:
    """Median distance, metres, of waypoints and of the grasp point 0.2 s ahead from where they are."""
    with torch.no_grad():
        prediction = model(**window)
    assert prediction.waypoints is not None
    apart = [prediction.waypoints[..., :3] - window["waypoints"][..., :3], prediction.grasp - window["future_grasp"]]
    return float(apart[0].norm(dim=-1).median()), float(apart[1][:, -1].norm(dim=-1).median())


def test_what_the_picture_shows_is_found_and_leads_the_motion(taught: KinecloudPredictor) -> None:
    window = dots(10_000, 64)
    shuffled = window | {"image": window["image"].roll(1, 0)}
    place, ahead = found(taught, window)
    elsewhere, astray = found(taught, shuffled)
    assert place < 0.03 and ahead < 0.02
    assert elsewhere > 0.1 and astray > 2 * ahead  # it is the picture that tells


def test_the_heatmap_is_warmest_where_the_waypoints_are(taught: KinecloudPredictor) -> None:
    window = dots(10_000, 64)
    with torch.no_grad():
        heatmap = taught(**window).heatmap
    assert heatmap is not None
    torch.testing.assert_close(heatmap.exp().sum((2, 3)), torch.ones(64, W))
    cells = torch.stack(torch.unravel_index(heatmap.flatten(2).argmax(-1), heatmap.shape[2:]), -1).flip(-1)
    at = in_picture(window["waypoints"][..., :3], window["intrinsics"], S) * heatmap.shape[-1] - 0.5
    assert (cells - at).norm(dim=-1).median() < 1.0


def test_places_are_where_depth_says_and_without_it_where_the_network_thinks() -> None:
    model, window = trained_like(KinecloudPredictor(config())), dots(1, 4)
    near = window | {"depth": window["depth"] * 0.5}
    unknown = window | {"depth": torch.zeros(4, S, S)}
    with torch.no_grad():
        places = [model(**each).waypoints[..., 2] for each in (window, near, unknown)]
    assert (places[0] - places[1] > 0.05).all()  # further away is further away
    assert torch.isfinite(places[2]).all() and not torch.allclose(places[0], places[2])


@pytest.mark.parametrize("blind", [True, False])
def test_who_does_not_see_the_picture_knows_nothing_of_its_depth(blind: bool) -> None:
    model, window = trained_like(KinecloudPredictor(config(blind=blind))), dots(2, 4)
    hidden = {} if blind else {"image_present": torch.zeros(4, dtype=torch.bool)}
    other = {"image": dots(3, 4)["image"]}
    nearer = {"depth": window["depth"] * torch.linspace(0.2, 0.8, S)}
    with torch.no_grad():
        shown = model(**window, **hidden).points
        for change in (other, nearer):
            torch.testing.assert_close(model(**(window | change), **hidden).points, shown, rtol=0, atol=0)
            if not blind:
                assert not torch.allclose(model(**(window | change)).points, shown)


def test_a_policy_that_learned_with_depth_asks_for_it() -> None:
    policy = policy_of(trained_like(KinecloudPredictor(config())))  # pyright: ignore[reportArgumentType]
    window = dots(4, 1)
    observation = [
        window["image"][0].permute(1, 2, 0).numpy(), "go there", window["past"][0].numpy(), [True],
        window["intrinsics"][0].numpy(), [0.0, 0.0], "unknown",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="depth_HW is missing; this policy learned from pictures with depth"):
        policy.act(*observation)
    with pytest.raises(ValueError, match=r"depth_HW has shape \[3, 4\]; expected \[32, 32\] \(as the image\)"):
        policy.act(*observation, depth_HW=torch.ones(3, 4).numpy())
    with pytest.raises(ValueError, match=r"past_grasp_P3 has shape \[3\]; expected \[1, 3\]"):
        policy.act(*observation, depth_HW=window["depth"][0].numpy(), past_grasp_P3=[0, 0, 1])
    assert policy.act(*observation, depth_HW=window["depth"][0].numpy()).shape == (6, 3)


def told(window: dict[str, Any], shift_m: float) -> KinecloudPrediction:
    return KinecloudPrediction(
        points=window["future"], grasp=window["future_grasp"] + torch.tensor([shift_m, 0, 0]),
        waypoints=window["waypoints"] + torch.tensor([shift_m, 0, 0, 0]),
    )  # fmt: skip


def test_terms_are_distances_in_tenths_of_a_metre_of_what_is_known() -> None:
    window = dots(5, 4)
    for term, known in ((grasp_term, "future_valid"), (waypoints_term, "waypoints_valid")):
        assert term(told(window, 0.0), window).max() < 1e-6
        assert term(told(window, 0.2), window) == pytest.approx([2.0] * 4, abs=0.05)
        nothing = window | {known: torch.zeros_like(window[known])}
        assert term(told(window, 0.2), nothing).tolist() == [0.0] * 4
    unknown = window | {"waypoints": window["waypoints"].clone()}
    unknown["waypoints"][..., 3] = float("nan")
    assert waypoints_term(told(window, 0.0), unknown).max() < 1e-6


def test_a_heatmap_is_held_against_a_spot_around_what_the_picture_shows() -> None:
    window = dots(7, 4)
    at = in_picture(window["waypoints"][..., :3], window["intrinsics"], S)
    torch.testing.assert_close(at[:, 0] * S, pixels_of(window), rtol=0, atol=1e-3)

    def cost(heatmap: torch.Tensor, **changes: torch.Tensor) -> torch.Tensor:
        return heatmap_term(KinecloudPrediction(heatmap=heatmap), window | {"waypoints_at": at} | changes)

    cells = torch.arange(8) + 0.5
    away = (at[..., :1] * 8 - cells).square()[:, :, None] + (at[..., 1:] * 8 - cells).square()[..., None]
    spot = torch.log_softmax(-away.flatten(2) / 2, -1).unflatten(-1, (8, 8))
    even = torch.full_like(spot, -math.log(64))
    assert cost(spot).abs().max() < 1e-5
    assert (cost(even) > 1).all() and (cost(spot.roll(3, -1)) > cost(spot.roll(1, -1))).all()
    behind = window["waypoints"][..., :3] * torch.tensor([1, 1, -1])
    for elsewhere in (at + 1, in_picture(behind, window["intrinsics"], S)):
        assert cost(even, waypoints_at=elsewhere).tolist() == [0.0] * 4
    assert cost(even, waypoints_valid=torch.zeros(4, W, dtype=torch.bool)).tolist() == [0.0] * 4


def test_who_sees_no_picture_learns_nothing_from_where_it_looks() -> None:
    model, window = trained_like(KinecloudPredictor(config())), dots(8, 4)
    weights = ObjectiveSettings.model_validate({"waypoints": 1, "heatmap": 1})
    loss = loss_of(model(**window, image_present=torch.zeros(4, dtype=torch.bool)), window, weights)
    loss.total.backward()
    gradient = model.get_parameter("pointing.key.weight").grad
    assert loss.terms["heatmap"] > 1 and gradient is not None and gradient.abs().max() == 0


def test_in_two_dimensions_what_lies_ahead_lies_at_the_present_depth_where_the_image_shows_it() -> None:
    window = dots(6, 4)
    flat = at_present_depth(window)
    depth_B1 = window["past_grasp"][:, -1:, 2]
    for name in ("future_grasp", "waypoints"):
        torch.testing.assert_close(flat[name][..., 2], depth_B1.expand_as(flat[name][..., 2]))
        torch.testing.assert_close(flattened(flat[name][..., :3]), flattened(window[name][..., :3]))
    torch.testing.assert_close(flat["waypoints"][..., 3], window["waypoints"][..., 3])


@pytest.mark.parametrize(
    ("objective", "message"),
    [({"latent_action": 1, "waypoints": 1}, "set objective.waypoints to 0"),
     ({"flow_matching": 1, "grasp": 1}, "set objective.grasp to 0"),
     ({"heatmap": 1}, "set waypoints above 0 or heatmap to 0")],
)  # fmt: skip
def test_objectives_that_do_not_go_together_are_refused(objective: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PretrainConfig.model_validate({"objective": objective})
