"""Properties of the predictor and of the policy made from it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel

from align.export import AUTO_MAP
from align.origin import modelling_files
from data.letterbox import letterbox as loader_letterbox
from data.letterbox import letterbox_depth as loader_letterbox_depth
from pretrain.metrics import no_motion
from pretrain.model.configuration_kinecloud import KinecloudConfig
from pretrain.model.direct import BINS, BinnedHead, DirectHead, FlowHead, bins_of
from pretrain.model.geometry import rotation_matrix
from pretrain.model.modeling_kinecloud import KinecloudPredictor
from pretrain.model.observation import prepared
from pretrain.model.policy_kinecloud import KinecloudPolicy, wanted_of
from pretrain.model.square import letterbox, letterbox_depth

B, P, H, N, S = 3, 4, 5, 20, 32
OBSERVED = {"image", "intrinsics", "past", "past_visible", "past_valid", "past_opening", "text", "embodiment"}


def small_config(**changes: Any) -> KinecloudConfig:
    return KinecloudConfig(**{"image_size": S, "width": 32, "layers": 2, "heads": 2, "slots": 2, **changes})


def random_window(seed: int = 0, batch: int = B, points: int = N) -> dict[str, Any]:
    """Clouds that move at a constant velocity of some 0.2 m/s, about 0.7 m from the camera."""
    random = torch.Generator().manual_seed(seed)
    velocity = 0.2 * torch.randn(batch, 1, 1, 3, generator=random)
    body = 0.03 * torch.randn(batch, 1, points, 3, generator=random) + torch.tensor([0.0, 0.0, 0.7])
    past_times, future_times = torch.tensor([-0.15, -0.1, -0.05, 0.0]), torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])
    return {
        "image": torch.randint(0, 256, (batch, 3, S, S), generator=random, dtype=torch.uint8),
        "intrinsics": torch.tensor([[40.0, 0, S / 2], [0, 40.0, S / 2], [0, 0, 1]]).repeat(batch, 1, 1),
        "past": body + velocity * past_times[None, :, None, None],
        "past_visible": torch.ones(batch, P, points, dtype=torch.bool),
        "past_valid": torch.ones(batch, P, dtype=torch.bool),
        "past_opening": torch.full((batch, P), 0.05),
        "future": body + velocity * future_times[None, :, None, None],
        "future_visible": torch.ones(batch, H, points, dtype=torch.bool),
        "future_valid": torch.ones(batch, H, dtype=torch.bool),
        "future_opening": torch.full((batch, H), 0.05),
        "text": ["open the drawer", "", "push the red puck to the goal"][:batch],
        "embodiment": ["human-hand", "sawyer-gripper", "never seen"][:batch],
        "key": [f"clip-{n}" for n in range(batch)],
    }


def trained_like(model: torch.nn.Module, seed: int = 1) -> torch.nn.Module:
    """The model with all weights disturbed, so that nothing is zero by initialization."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=random)
    return model.eval()


@pytest.fixture(scope="module")
def predictor() -> KinecloudPredictor:
    torch.manual_seed(0)
    return trained_like(KinecloudPredictor(small_config()))  # pyright: ignore[reportReturnType]


@pytest.fixture(scope="module")
def policy(predictor: KinecloudPredictor) -> KinecloudPolicy:
    torch.manual_seed(0)
    return policy_of(predictor, action_spec={"rate_hz": 20})


def policy_of(predictor: KinecloudPredictor, **more: Any) -> KinecloudPolicy:
    """A policy whose actions are not all zero."""
    made = KinecloudPolicy.from_predictor(
        predictor,
        action_chunk=6,
        action_names=["dx", "dy", "dz"],
        proprio_names=["x", "y"],
        action_quantiles=([-1, -2, 0], [1, 2, 0]),
        proprio_quantiles=([0, 0], [2, 4]),
        **more,
    )
    assert isinstance(made.head, DirectHead)
    for layer in (made.head.action_out, made.head.action_mlp):
        trained_like(layer)
    return made.eval()


def without(window: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in window.items() if name not in names}


def test_before_training_the_prediction_is_half_the_constant_velocity():
    window = random_window()
    untrained = KinecloudPredictor(small_config())(**window)
    halfway = (no_motion(window, list(range(H))) + window["future"]) / 2
    torch.testing.assert_close(untrained.points, halfway, rtol=0, atol=1e-5)
    torch.testing.assert_close(untrained.opening, window["future_opening"], rtol=0, atol=1e-6)


def test_points_are_a_set(predictor):
    window = random_window()
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    shuffled = window | {"past": window["past"][:, :, order], "past_visible": window["past_visible"][:, :, order]}
    expected = predictor(**window).points[:, :, order]
    torch.testing.assert_close(predictor(**shuffled).points, expected, rtol=0, atol=1e-5)


def test_twice_the_points_give_the_same_motion(predictor):
    window = random_window()
    doubled = window | {name: window[name].repeat_interleave(2, 2) for name in ("past", "past_visible")}
    expected = predictor(**window).points.repeat_interleave(2, 2)
    torch.testing.assert_close(predictor(**doubled).points, expected, rtol=0, atol=1e-5)


def test_a_window_does_not_depend_on_its_neighbours_in_the_batch(predictor):
    window = random_window()
    alone = {name: value[1:2] for name, value in window.items()}
    torch.testing.assert_close(predictor(**alone).points, predictor(**window).points[1:2], rtol=0, atol=1e-5)


def test_every_input_matters_and_what_is_absent_does_not(predictor):
    window = random_window()
    base = predictor(**window).points
    other = random_window(seed=5)
    changes = {name: other[name] for name in ("image", "intrinsics")}
    changes |= {"intrinsics": window["intrinsics"] * torch.tensor([1.2, 1.2, 1.0])[:, None], "text": ["close"] * B}
    changes |= {"embodiment": ["sawyer-gripper"] * B, "past_opening": window["past_opening"] * 0.3}
    for name, value in changes.items():
        assert not torch.allclose(predictor(**window | {name: value}).points, base, atol=1e-5), name
    absent = torch.zeros(B, dtype=torch.bool)
    blind = [
        predictor(**window | {"image": im, "image_present": absent}).points for im in (window["image"], other["image"])
    ]
    assert torch.equal(*blind)
    beginning = torch.tensor([[False, False, True, True]]).expand(B, -1)
    garbage = window["past"].clone()
    garbage[:, :2] = 9.0
    expected = predictor(**window | {"past_valid": beginning}).points
    torch.testing.assert_close(predictor(**window | {"past_valid": beginning, "past": garbage}).points, expected)
    unknown = torch.full((B, P), float("nan"))
    assert torch.isfinite(predictor(**window | {"past_opening": unknown}).points).all()


def test_words_may_come_as_numbers(predictor):
    window = random_window()
    numbers = {"text": predictor.trunk.text.ids(window["text"]), "embodiment": torch.tensor([1, 2, 0])}
    torch.testing.assert_close(predictor(**window | numbers).points, predictor(**window).points)
    other = numbers | {"embodiment": torch.tensor([1, 1, 0])}
    changed = (predictor(**window | other).points != predictor(**window).points).flatten(1).any(1)
    assert changed.tolist() == [False, True, False]


def test_a_grasp_point_that_is_not_told_is_the_middle_of_what_is_seen_now(predictor):
    window = random_window()
    window["past_visible"][:, -1, ::3] = False
    seen = window["past_visible"][:, -1]
    middle = torch.stack([cloud[:, keep].mean(1) for cloud, keep in zip(window["past"], seen, strict=True)])
    told = predictor(**window, past_grasp=middle)
    torch.testing.assert_close(told.points, predictor(**window).points, rtol=0, atol=1e-6)


def test_reduced_precision_changes_the_motion_by_a_few_percent_at_most(predictor):
    window = random_window()
    expected = predictor(**window)
    with torch.autocast("cpu", torch.bfloat16):
        reduced = predictor(**window)
    assert reduced.points.dtype == torch.float32 and not torch.equal(reduced.points, expected.points)
    travelled = (expected.points - window["past"][:, -1:]).norm(dim=-1)
    allowed = 0.0005 + 0.02 * travelled
    assert ((reduced.points - expected.points).norm(dim=-1) < allowed).all()


def test_rotation_matrices_are_rotations_with_a_finite_gradient_at_zero():
    vectors = torch.tensor([[0.0, 0, 0], [1e-5, 0, 0], [0, 0, torch.pi / 2], [2.0, -1.0, 0.5]]).requires_grad_()
    matrices = rotation_matrix(vectors)
    torch.testing.assert_close(matrices @ matrices.transpose(1, 2), torch.eye(3).expand(4, 3, 3), rtol=0, atol=1e-5)
    torch.testing.assert_close(matrices[2] @ torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0]), rtol=0, atol=1e-6)
    matrices[:, 2, 1].sum().backward()
    assert vectors.grad is not None and torch.isfinite(vectors.grad).all() and vectors.grad[0, 0] == 1


def test_the_policy_keeps_the_predictor_whole(predictor, policy):
    window = random_window() | {"proprio": torch.rand(B, 2)}
    prediction = policy(**window)
    expected = predictor(**window)
    assert torch.equal(prediction.points, expected.points) and torch.equal(prediction.opening, expected.opening)
    assert prediction.actions.shape == (B, 6, 3)
    kept = {name.removeprefix("predictor."): value for name, value in policy.state_dict().items()}
    assert all(torch.equal(value, kept[name]) for name, value in predictor.state_dict().items())
    moved = policy(**window | {"proprio": window["proprio"] + 1})
    assert torch.equal(moved.points, prediction.points) and not torch.allclose(moved.actions, prediction.actions)


def test_bins_cover_the_normalised_range_and_hold_what_is_beyond():
    assert bins_of(torch.tensor([-2.0, -1.0, -0.001, 0.001, 0.999, 1.0, 5.0])).tolist() == [
        0,
        0,
        127,
        128,
        255,
        255,
        255,
    ]


def test_a_head_of_bins_believes_what_is_near_its_linear_map_and_gives_the_mean(predictor):
    policy = policy_of(predictor, head="direct_binned")
    assert isinstance(policy.head, BinnedHead)
    policy.head.action_out.weight.data.zero_()
    policy.head.action_out.bias.data.zero_()
    policy.head.straight.bias.data[:] = torch.linspace(-0.6, 0.6, 18)
    found = policy(**random_window() | {"proprio": torch.rand(B, 2)})
    assert found.action_logits.shape == (B, 6, 3, BINS)
    expected = torch.linspace(-0.6, 0.6, 18).reshape(6, 3).expand(B, 6, 3)
    assert torch.equal(found.action_logits.argmax(-1), bins_of(expected))
    within = (policy.head.get_buffer("centres") - expected[..., None]).abs() < 0.2  # a standard deviation
    torch.testing.assert_close(
        (found.action_logits.softmax(-1) * within).sum(-1)[:, :, 1], torch.full((B, 6), 0.683), atol=0.02, rtol=0
    )
    policy.head.log_precision.weight.data[:] = 4
    found = policy(**random_window() | {"proprio": torch.rand(B, 2)})
    torch.testing.assert_close(found.actions, expected, rtol=0, atol=1e-3)


def test_a_head_that_flows_arrives_where_it_believes_the_actions_to_be(predictor):
    policy = policy_of(predictor, head="direct_flow_matching")
    assert isinstance(policy.head, FlowHead)
    window = random_window() | {"proprio": torch.rand(B, 2)}
    sampled = policy(**window)
    assert torch.equal(sampled.actions, policy(**window).actions)
    noised, tau = torch.randn(B, 6, 3), torch.full((B,), 0.5)
    told = policy(**window, noised_actions=noised, action_tau=tau).actions
    assert not torch.allclose(told, policy(**window, noised_actions=noised + 1, action_tau=tau).actions)
    policy.head.noise_in.weight.data.zero_()  # then it believes the same, whatever the noise
    believed = policy(**window, noised_actions=noised, action_tau=tau).actions
    torch.testing.assert_close(policy(**window).actions, believed, rtol=0, atol=1e-5)


def test_normalization_maps_quantiles_to_one_and_back(policy):
    values = torch.tensor([[-1.0, -2.0, 0.0], [1.0, 2.0, 0.0], [0.5, 1.0, 0.0]])
    normalized = policy.normalize(values, "action")
    torch.testing.assert_close(normalized, torch.tensor([[-1.0, -1, 0], [1, 1, 0], [0.5, 0.5, 0]]))
    torch.testing.assert_close(policy.denormalize(normalized, "action"), values)


@pytest.mark.parametrize("shape", [(48, 64), (64, 48), (32, 32), (20, 24), (480, 640), (31, 97)])
def test_letterbox_is_the_loaders_to_the_byte(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    intrinsics = np.array([[50.0, 0, shape[1] / 2], [0, 55.0, shape[0] / 2], [0, 0, 1]])
    ours, expected = letterbox(image, intrinsics, 32), loader_letterbox(image, intrinsics, 32)
    assert np.array_equal(ours[0], expected[0])
    assert np.array_equal(ours[1], expected[1]) and ours[1].dtype == expected[1].dtype
    assert np.array_equal(letterbox_depth(image[..., 0], 32), loader_letterbox_depth(image[..., 0], 32))


def act_inputs(window: dict[str, Any]) -> dict[str, Any]:
    return {
        "image_u8_HW3": np.random.default_rng(3).integers(0, 256, (48, 64, 3), dtype=np.uint8),
        "instruction": "open the drawer",
        "past_clouds_PN3": window["past"][0].numpy(),
        "past_valid": np.array([False, True, True, True]),
        "intrinsics_33": np.array([[80.0, 0, 32], [0, 80, 24], [0, 0, 1]]),
        "proprio": np.array([0.3, 0.4]),
        "embodiment": "human-hand",
    }


def test_acting_is_the_forward_pass_in_physical_units(policy):
    window = random_window(batch=1)
    inputs = act_inputs(window)
    image, intrinsics = loader_letterbox(inputs["image_u8_HW3"], inputs["intrinsics_33"], S)
    batch = window | {
        "image": torch.from_numpy(image).permute(2, 0, 1)[None],
        "intrinsics": torch.from_numpy(intrinsics)[None],
        "past_valid": torch.from_numpy(inputs["past_valid"])[None],
        "past_opening": torch.full((1, P), float("nan")),
        "text": [inputs["instruction"]],
        "proprio": torch.tensor([[0.3, 0.4]]),
    }
    expected = policy.denormalize(policy(**batch).actions, "action")[0].detach().numpy()
    actions = policy.act(**inputs)
    np.testing.assert_allclose(actions, expected, atol=1e-6)
    assert actions.shape == (6, 3) and (actions[:, 2] == 0).all() and actions[:, 1].std() > 0


def test_acting_names_the_argument_that_does_not_fit(policy):
    inputs = act_inputs(random_window(batch=1))
    with pytest.raises(ValueError, match=r"past_clouds_PN3 has shape \[3, 20, 3\]; expected \[4, any, 3\]"):
        policy.act(**inputs | {"past_clouds_PN3": inputs["past_clouds_PN3"][:3]})


def sees(config: KinecloudConfig, **changes: Any) -> dict[str, Any]:
    """What a policy of this configuration is given for an observation."""
    observation = act_inputs(random_window(batch=1)) | {"proprio": np.zeros(0), "depth_HW": np.ones((48, 64))}
    return prepared(wanted_of(config), **observation | changes)


def with_one(value: float, shape: tuple[int, ...], at: tuple[int, ...]) -> np.ndarray:
    array = np.ones(shape)
    array[at] = value
    return array


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"past_clouds_PN3": np.zeros((P, 0, 3))}, r"past_clouds_PN3 has shape \[4, 0, 3\], which holds nothing"),
        (
            {"past_clouds_PN3": np.full((P, N, 3), 1e39)},
            "past_clouds_PN3 holds values .* mark missing clouds in past_v",
        ),
        ({"image_u8_HW3": np.zeros((0, 64, 3), np.uint8), "depth_HW": np.zeros((0, 64))}, "image_u8_HW3 has shape .*0"),
        (
            {"intrinsics_33": np.diag([80.0, 0, 1])},
            r"intrinsics_33 has focal lengths \[80.0, 0.0\]; expected more than 0",
        ),
        ({"depth_HW": with_one(np.nan, (48, 64), (3, 5))}, "depth_HW holds values .* finite; put 0 where nothing was"),
        ({"depth_HW": with_one(np.inf, (48, 64), (3, 5))}, "depth_HW holds values .* finite; put 0 where nothing was"),
        ({"depth_HW": with_one(-0.2, (48, 64), (3, 5))}, "depth_HW holds negative values, down to -0.2 m; put 0 where"),
        ({"past_grasp_P3": with_one(np.nan, (P, 3), (1, 2))}, "past_grasp_P3 holds values .* finite; leave it out"),
        ({"past_grasp_P3": with_one(np.inf, (P, 3), (P - 1, 0))}, "past_grasp_P3 holds values .* finite; leave it out"),
    ],
)
def test_what_would_give_actions_of_nothing_is_refused_with_a_remedy(changes, message):
    assert sees(small_config(depth=True))
    with pytest.raises(ValueError, match=message):
        sees(small_config(depth=True), **changes)


def test_what_is_not_known_may_be_left_unknown():
    nowhere = np.zeros((48, 64))
    assert (sees(small_config(depth=True), depth_HW=nowhere)["depth"] == 0).all()
    assert np.isnan(sees(small_config(), past_opening_P=np.full(P, np.nan))["past_opening"]).all()
    assert "past_grasp" not in sees(small_config())
    assert "depth" not in sees(small_config(), depth_HW=nowhere + np.nan)  # a policy that knows no depth


def test_a_grasp_point_of_a_time_that_is_not_valid_says_nothing(policy):
    inputs, grasp = act_inputs(random_window(batch=1)), 0.5 + 0.01 * np.arange(P * 3.0).reshape(P, 3)
    assert not inputs["past_valid"][0]
    told = [{**inputs, "past_grasp_P3": np.concatenate([np.full((1, 3), v), grasp[1:]])} for v in (0.4, np.nan)]
    np.testing.assert_array_equal(policy.act(**told[1]), policy.act(**told[0]))
    assert np.isfinite(prepared(wanted_of(policy.config), **told[1])["past_grasp"]).all()  # what a graph needs to see


def test_a_saved_policy_loads_from_its_own_copy_of_the_files(policy, tmp_path: Path):
    policy.config.auto_map = AUTO_MAP
    policy.save_pretrained(tmp_path)
    for path in modelling_files():
        shutil.copy(path, tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path, trust_remote_code=True)
    inputs = act_inputs(random_window(batch=1))
    assert type(loaded) is not KinecloudPolicy
    np.testing.assert_allclose(loaded.act(**inputs), policy.act(**inputs), atol=1e-5)
    assert loaded.config.action_spec == {"rate_hz": 20}


@pytest.mark.parametrize("changes", [{}, {"generative": True}])
def test_a_context_that_is_remembered_gives_the_same_thoughts(changes):
    torch.manual_seed(0)
    model: Any = trained_like(KinecloudPredictor(small_config(**changes)))
    inputs = {name: value for name, value in random_window().items() if name in OBSERVED}
    observed = model.observe(**inputs)
    segments = [observed.present_BTD, model.horizon_queries + observed.present_BTD[:, :1]]
    afresh = model.trunk.think(observed.context, segments)
    kept = model.trunk.remember(observed.context)
    for _ in range(2):
        for expected, found in zip(afresh, model.trunk.think(kept, segments), strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_what_comes_later_is_not_seen():
    torch.manual_seed(0)
    model: Any = trained_like(KinecloudPredictor(small_config()))
    observed = model.observe(**{name: value for name, value in random_window().items() if name in OBSERVED})
    first = observed.present_BTD
    second, third = torch.randn(B, 5, 32), torch.randn(B, 3, 32)
    thoughts = model.trunk.think(observed.context, [first, second, third])
    changed_last = model.trunk.think(observed.context, [first, second, -third])
    changed_middle = model.trunk.think(observed.context, [first, -second, third])
    for number in (0, 1):
        torch.testing.assert_close(changed_last[number], thoughts[number], rtol=0, atol=1e-6)
    torch.testing.assert_close(changed_middle[0], thoughts[0], rtol=0, atol=1e-6)
    assert not torch.allclose(changed_middle[2], thoughts[2], atol=1e-3)


def test_weights_of_another_version_are_not_made_up(predictor, tmp_path):
    predictor.save_pretrained(tmp_path)
    config = KinecloudConfig.from_pretrained(tmp_path)
    config.latent_action = True
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"weights are missing, the first is .*; it was made by another version"):
        KinecloudPredictor.from_pretrained(tmp_path)
