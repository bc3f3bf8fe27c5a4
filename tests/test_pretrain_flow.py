"""Flow matching: the path between noise and data, and predictors that sample the future."""

from __future__ import annotations

import torch

from pretrain.config import ObjectiveSettings
from pretrain.model.configuration_kinecloud import KinecloudConfig
from pretrain.model.flow import S, arrival, integrate, path, shrinkage, training_time
from pretrain.model.modeling_kinecloud import KinecloudPredictor
from pretrain.model.policy_kinecloud import KinecloudPolicy
from pretrain.objectives import loss_of, noised
from pretrain.randomness import WindowRandom
from tests.test_pretrain_model import B, H, N, random_window, small_config, trained_like

FLOW = ObjectiveSettings(chamfer=0, tracked=0, opening=0, flow_matching=1)  # pyright: ignore[reportCallIssue]


def generative(**changes) -> KinecloudPredictor:
    torch.manual_seed(0)
    return KinecloudPredictor(small_config(generative=True, delta_scale=[0.2, 0.4, 0.6, 0.8, 1.0], **changes))


def test_the_path_leads_from_noise_to_data_along_its_velocity():
    clean, noise = torch.randn(4, 5), torch.randn(4, 5)
    start, velocity = path(clean, noise, torch.zeros(4))
    end, _ = path(clean, noise, torch.ones(4))
    torch.testing.assert_close(start, noise)
    torch.testing.assert_close(end, clean + S * noise)
    torch.testing.assert_close(start + velocity, end)
    part, velocity = path(clean, noise, torch.full((4,), 0.3))
    torch.testing.assert_close(arrival(part, velocity, torch.full((4,), 0.3)), clean + S * noise)


def test_euler_follows_a_straight_path_exactly():
    clean, noise = torch.randn(3, 7), torch.randn(3, 7)
    found = integrate(lambda x, tau_B: clean - (1 - S) * noise, noise, 10)
    torch.testing.assert_close(found, clean + S * noise)


def test_shrinkage_is_the_best_linear_guess_of_the_velocity():
    random = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 200_000, generator=random).double()
    for tau in (0.0, 0.25, 0.5, 0.9):
        x, u = path(clean[None], noise[None], torch.tensor([tau]))
        slope = (x * u).sum() / x.square().sum()
        torch.testing.assert_close(
            shrinkage(torch.ones(1, 1).double(), torch.tensor([tau]))[0, 0], slope, rtol=0, atol=0.01
        )


def test_training_times_are_early_more_often_than_late():
    tau = training_time(WindowRandom(torch.arange(4000)).beta(1.5, 1.0))
    assert float(tau.min()) >= 0 and float(tau.max()) < 1
    assert abs(float(tau.mean()) - 0.4) < 0.02  # 1 - 1.5 / 2.5


def test_samples_depend_on_the_seed_of_their_window_alone():
    model = trained_like(generative())
    window = random_window() | {"seed": torch.tensor([3, 4, 3])}
    points = model(**window).points
    assert torch.equal(points, model(**window).points)
    alone = {name: value[1:2] for name, value in window.items()}
    torch.testing.assert_close(model(**alone).points, points[1:2], rtol=0, atol=1e-5)
    assert not torch.allclose(points, model(**window | {"seed": window["seed"] + 1}).points, atol=1e-3)


def test_a_sample_begins_with_the_noise_that_is_given():
    model, window = trained_like(generative()), random_window()
    draws = [torch.randn(H, N, 3, generator=torch.Generator().manual_seed(seed)) for seed in (3, 4, 3)]
    expected = model(**window, seed=torch.tensor([3, 4, 3])).points
    torch.testing.assert_close(model(**window, noise=torch.stack(draws)).points, expected, rtol=0, atol=0)


def test_a_sampled_future_leads_a_head_that_inverts_motion():
    config = generative().config.to_dict() | {
        "action_chunk": 2, "action_names": ["x"], "proprio_names": ["q"], "head": "inverse_dynamics",
    }  # fmt: skip
    policy = trained_like(KinecloudPolicy(KinecloudConfig.from_dict(config)))
    policy.get_buffer("head.linear").normal_(generator=torch.Generator().manual_seed(0))
    policy.get_buffer("proprio_q99").fill_(1)
    window = random_window()
    first, second = (policy(**window, proprio=torch.zeros(B, 1), seed=torch.full((B,), seed)) for seed in (0, 1))
    assert torch.isfinite(first.actions).all() and not torch.allclose(first.actions, second.actions)


def test_a_fork_in_the_road_is_sampled_not_averaged():
    """The cloud goes left or right, and nothing tells which: regression stands still, samples take one of the ways."""
    model, batch = generative(layers=1), 32
    one = random_window(batch=1)
    window = {
        name: value.repeat(batch, *[1] * (value.ndim - 1)) if isinstance(value, torch.Tensor) else value * batch
        for name, value in one.items()
    }
    window["past"] = window["past"][:, -1:].expand(-1, 4, -1, -1).clone()
    side = torch.where(torch.arange(batch) % 2 == 0, 0.1, -0.1)
    times = torch.linspace(0.2, 1.0, H)
    window["future"] = window["past"][:, -1:] + torch.tensor([1.0, 0, 0]) * (side[:, None] * times)[..., None, None]
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(250):
        seeded = window | {"seed": torch.arange(batch) + batch * step}
        seeded = noised(seeded, model, WindowRandom(seeded["seed"]))
        optimizer.zero_grad()
        loss_of(model(**seeded), seeded, FLOW).total.backward()
        optimizer.step()
    sampled = model(**window | {"seed": torch.arange(batch) + 10**6}).points - window["past"][:, -1:]
    ends = sampled[:, -1, :, 0].mean(-1)
    assert (ends.abs() > 0.06).float().mean() > 0.9, "most samples go all the way"
    assert 0.2 < (ends > 0).float().mean() < 0.8, "and both ways are taken"


def test_other_terms_can_be_added_to_flow_matching():
    model = generative()
    window = random_window() | {"seed": torch.arange(B)}
    window = noised(window, model, WindowRandom(window["seed"]))
    both = ObjectiveSettings(chamfer=1, tracked=1, opening=0.3, flow_matching=1)  # pyright: ignore[reportCallIssue]
    loss = loss_of(model(**window), window, both)
    assert set(loss.terms) == {"chamfer", "tracked", "flow_matching", "opening"}
    loss.total.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)


def test_a_regressing_predictor_needs_no_noise():
    window = random_window() | {"seed": torch.arange(B)}
    assert noised(window, KinecloudPredictor(small_config()), WindowRandom(window["seed"])) is window


def test_in_two_dimensions_depth_is_neither_seen_nor_moved():
    torch.manual_seed(0)
    model = trained_like(KinecloudPredictor(small_config(dimensions=2)))
    window = random_window()
    points = model(**window).points
    torch.testing.assert_close(points[..., 2], window["past"][:, -1:, :, 2].expand(-1, H, -1), rtol=0, atol=1e-6)
    stretch = torch.linspace(0.5, 2.0, N)[:, None]  # every point somewhere else along its ray
    elsewhere = model(**window | {"past": window["past"] * stretch, "past_opening": window["past_opening"] + 1}).points
    torch.testing.assert_close(elsewhere, points * stretch, rtol=1e-4, atol=1e-5)
    tracks = ObjectiveSettings(chamfer=0, tracked=0, opening=0, tracks2d=1)  # pyright: ignore[reportCallIssue]
    apart = window | {"future": points.detach() * 1.7}
    assert float(loss_of(model(**window), apart, tracks).total.detach()) < 1e-5, "the same picture costs nothing"
