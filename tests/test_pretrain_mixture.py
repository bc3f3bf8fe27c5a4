"""Properties of the mixture trunk: who sees whom, what is kept, and that it is transformers' pi0 inside."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModel, PI0Model

from align.export import AUTO_MAP
from align.origin import modelling_files
from pretrain.config import ObjectiveSettings
from pretrain.model.configuration_kinecloud import KinecloudConfig
from pretrain.model.mixture import MixtureTrunk, without_unread
from pretrain.model.modeling_kinecloud import KinecloudPredictor
from pretrain.model.policy_kinecloud import KinecloudPolicy
from pretrain.model.trunk import Context
from pretrain.objectives import loss_of, noised
from pretrain.randomness import WindowRandom
from tests.test_pretrain_model import B, S, act_inputs, policy_of, random_window, trained_like
from tests.tiny_encoders import TOKENS, gemma_tokenizer, pi0_config

SEGMENTS = [3, 5, 2]


def mixture(text: str = "gemma", **changes: Any) -> KinecloudPredictor:
    torch.manual_seed(0)
    sizes = {"image_size": S, "width": 32, "heads": 2, "slots": 2, "max_text_tokens": 24}
    predictor = KinecloudPredictor(KinecloudConfig(**{**sizes, "mixture": pi0_config(text).to_dict(), **changes}))
    predictor.reader.tokenizer = gemma_tokenizer()
    return predictor


@pytest.fixture(scope="module", params=["gemma", "gemma2"])
def predictor(request: pytest.FixtureRequest) -> KinecloudPredictor:
    """With the language model of PaliGemma, and with that of PaliGemma 2."""
    return trained_like(mixture(request.param))  # pyright: ignore[reportReturnType]


@pytest.fixture(scope="module")
def gemma() -> KinecloudPredictor:
    return trained_like(mixture())  # pyright: ignore[reportReturnType]


def read(predictor: KinecloudPredictor, window: dict[str, Any], present: list[bool] | None = None) -> Context:
    names = ("image", "intrinsics", "past", "past_visible", "past_valid", "past_opening", "text", "embodiment")
    seen = torch.tensor(present if present is not None else [True] * len(window["past"]))
    return predictor.observe(**{name: window[name] for name in names}, image_present=seen).context


def some_segments(batch: int = B, width: int = 32) -> list[Tensor]:
    random = torch.Generator().manual_seed(4)
    return [torch.randn(batch, length, width, generator=random) for length in SEGMENTS]


def turned(x: Tensor, position_BT: Tensor, theta: float = 10000.0) -> Tensor:
    """Rotary embedding of [B,heads,T,C], written out."""
    half = x.shape[-1] // 2
    angle = position_BT[:, None, :, None] / theta ** (torch.arange(half) / half)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)


def dense_reference(trunk: MixtureTrunk, context: Context, segments: list[Tensor]) -> list[Tensor]:
    """One sequence of context and segments with one mask over all of it; context and motion have their own weights."""
    parts = [context.tokens.embeds_BLE, torch.cat(segments, 1)]
    length, lengths = parts[0].shape[1], [s.shape[1] for s in segments]
    block_S = torch.tensor([0] * length + [n + 1 for n, count in enumerate(lengths) for _ in range(count)])
    real_BS = torch.cat([context.tokens.real_BL, torch.ones(len(parts[0]), sum(lengths), dtype=torch.bool)], 1)
    position_BS = real_BS.long().cumsum(1) - 1
    mask_BSS = (block_S[None, :] <= block_S[:, None]) & real_BS[:, None, :]
    context_layers, expert_layers = trunk.pi0.vlm.language_model.layers, trunk.pi0.dit.layers
    for context_layer, expert_layer in zip(context_layers, expert_layers, strict=True):
        last = context_layer is context_layers[-1]
        layers: list[Any] = [expert_layer] if last else [context_layer, expert_layer]
        normed = [layer.input_layernorm(x) for layer, x in zip((context_layer, expert_layer), parts, strict=True)]

        def heads(name: str, of: list[Any], inputs: list[Tensor]) -> Tensor:
            made = [getattr(layer.self_attn, name)(x) for layer, x in zip(of, inputs, strict=True)]
            return torch.cat([x.unflatten(-1, (-1, 16)).transpose(1, 2) for x in made], 2)

        keys = turned(heads("k_proj", [context_layer, expert_layer], normed), position_BS)
        values = heads("v_proj", [context_layer, expert_layer], normed)
        queries = turned(heads("q_proj", layers, normed[-len(layers) :]), position_BS[:, length * last :])
        scores = queries @ keys.transpose(2, 3) / 4
        allowed = mask_BSS[:, None, length * last :]
        mixed = scores.masked_fill(~allowed, -torch.inf).softmax(-1) @ values
        joined = mixed.transpose(1, 2).flatten(2).split([length, sum(lengths)] if not last else [sum(lengths)], 1)
        for number, layer in zip((1,) if last else (0, 1), layers, strict=True):
            x = parts[number] + layer.self_attn.o_proj(joined[0 if last else number])
            parts[number] = x + layer.mlp(layer.post_attention_layernorm(x))
    return list(trunk.pi0.dit.norm(parts[1]).split(lengths, 1))


@torch.no_grad()
def test_attention_is_that_of_one_long_sequence_with_a_mask_of_blocks(gemma):
    context, segments = read(gemma, random_window(), [True, False, True]), some_segments()
    for got, expected in zip(
        gemma.trunk.think(context, segments), dense_reference(gemma.trunk, context, segments), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_inside_it_is_the_pi0_of_transformers(gemma):
    """Its own forward, with one token of state and four of actions, on prompts of different lengths."""
    torch.manual_seed(0)
    oracle = PI0Model(pi0_config()).eval()
    trunk = MixtureTrunk(KinecloudConfig(image_size=S, max_text_tokens=24, mixture=pi0_config().to_dict()))
    trunk.tokenizer = gemma_tokenizer()
    torch.nn.init.zeros_(trunk.place.weight)
    torch.nn.init.zeros_(trunk.place.bias)
    state = oracle.state_dict()
    trunk.pi0.load_state_dict({name: state[name] for name in trunk.pi0.state_dict()})
    window = random_window()
    window["image"] = torch.nn.functional.interpolate(window["image"].float(), size=28).to(torch.uint8)
    texts = ["open", "", "push the red puck"]
    observed = gemma.observe(**{n: window[n] for n in window if n in gemma.observe.__code__.co_varnames})
    context = trunk.read(window["image"], torch.ones(B, dtype=torch.bool), observed.geometry, texts)
    segments = [torch.randn(B, 1, 32), torch.randn(B, 4, 32)]
    got = torch.cat(trunk.think(context, segments), 1)

    prompts = [[2, *gemma_tokenizer().encode(f"{text}\n", add_special_tokens=False)] for text in texts]
    longest = max(map(len, prompts))
    ids = torch.tensor([[TOKENS] * 4 + ids + [0] * (longest - len(ids)) for ids in prompts])
    mask = torch.tensor([[1] * (4 + len(ids)) + [0] * (longest - len(ids)) for ids in prompts])
    expected = oracle(
        action_embeds=torch.cat(segments, 1),
        input_ids=ids,
        pixel_values=(window["image"].float() / 127.5 - 1)[:, None],
        attention_mask=mask,
        pixel_attention_mask=torch.ones(B, 1, dtype=torch.bool),
    ).last_hidden_state
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_each_segment_sees_the_context_and_what_comes_before_and_nothing_later(predictor):
    context = read(predictor, random_window())
    embeds = context.tokens.embeds_BLE.detach().requires_grad_()
    inputs = [segment.requires_grad_() for segment in some_segments()]
    context = Context(context.features_BCHW.detach(), type(context.tokens)(embeds, context.tokens.real_BL))
    outputs = predictor.trunk.think(context, inputs)
    for number, output in enumerate(outputs):
        found = torch.autograd.grad(output.square().sum(), [embeds, *inputs], retain_graph=True, allow_unused=True)
        real = context.tokens.real_BL
        of_context, of_segments = found[0].norm(dim=-1), [g.norm(dim=-1) for g in found[1:]]
        assert (of_context[real] > 0).all() and (of_context[~real] == 0).all()
        assert all((of_segments[seen] > 0).all() for seen in range(number + 1))
        assert all((of_segments[later] == 0).all() for later in range(number + 1, len(inputs)))


def test_the_context_sees_all_of_itself(predictor):
    context = read(predictor, random_window())
    embeds = context.tokens.embeds_BLE.detach().requires_grad_()
    context = Context(context.features_BCHW.detach(), type(context.tokens)(embeds, context.tokens.real_BL))
    keys, _ = predictor.trunk.remember(context).memory[-1]
    first = torch.autograd.grad(keys[:, :, 0].square().sum(), embeds)[0].norm(dim=-1)
    real = context.tokens.real_BL
    assert (first[real] > 0).all() and (first[~real] == 0).all()


@torch.no_grad()
def test_a_remembered_context_is_the_same_and_does_not_grow(predictor):
    context, segments = read(predictor, random_window()), some_segments()
    expected = predictor.trunk.think(context, segments)
    remembered = predictor.trunk.remember(context)
    before = [(keys.clone(), values.clone()) for keys, values in remembered.memory]
    for _ in range(3):
        for got, wanted in zip(predictor.trunk.think(remembered, segments), expected, strict=True):
            torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)
    for kept, then in zip(remembered.memory, before, strict=True):
        assert torch.equal(kept[0], then[0]) and torch.equal(kept[1], then[1])


@torch.no_grad()
def test_neighbours_in_the_batch_and_the_length_of_their_texts_do_not_matter(predictor):
    window = random_window()
    alone = {name: value[1:2] for name, value in window.items()}
    torch.testing.assert_close(predictor(**alone).points, predictor(**window).points[1:2], rtol=0, atol=1e-5)
    long = window | {"text": [window["text"][0], window["text"][1], "push " * 30]}
    torch.testing.assert_close(predictor(**long).points[:2], predictor(**window).points[:2], rtol=0, atol=1e-5)
    other = window | {"text": ["close the drawer", *window["text"][1:]]}
    assert not torch.allclose(predictor(**other).points[0], predictor(**window).points[0], atol=1e-5)


@torch.no_grad()
def test_an_absent_image_is_as_if_there_were_none(predictor):
    window, other = random_window(), random_window(seed=5)
    context = read(predictor, window, [False] * B)
    patches = predictor.trunk.rows**2
    prefix = context.tokens
    text_only = Context(
        context.features_BCHW, type(prefix)(prefix.embeds_BLE[:, patches:], prefix.real_BL[:, patches:])
    )
    segments = some_segments()
    for got, expected in zip(
        predictor.trunk.think(context, segments), predictor.trunk.think(text_only, segments), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    absent = {"image_present": torch.zeros(B, dtype=torch.bool)}
    blind = [predictor(**window | absent | {"image": image}).points for image in (window["image"], other["image"])]
    assert torch.equal(*blind)
    assert not torch.allclose(predictor(**window).points, blind[0], atol=1e-5)


def test_recomputing_activations_changes_no_gradient(gemma):
    window = random_window()
    gradients = []
    for recompute in (False, True):
        model = trained_like(mixture())
        assert isinstance(model, KinecloudPredictor)
        if recompute:
            model.activation_checkpointing_enable()
        model.train()(**window).points.sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    assert all(gradient is not None for gradient in gradients[0].values())  # nothing is left that no result depends on
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=0, atol=0, msg=name)


def test_a_frozen_part_keeps_still_while_the_rest_learns():
    model = mixture()
    trunk: Any = model.trunk
    vlm = trunk.pi0.vlm
    vlm.requires_grad_(False)
    model.train()
    assert not any(module.training for module in vlm.modules())
    assert trunk.pi0.dit.training and model.training
    memory = model.trunk.remember(read(model, random_window())).memory
    # the place of patches learns still, and through it gradients pass the frozen context
    assert memory[-1][0].requires_grad
    model.trunk.place.requires_grad_(False)
    assert not model.trunk.remember(read(model, random_window())).memory[-1][0].requires_grad


@pytest.mark.parametrize("objective", ["chamfer", "flow_matching"])
def test_two_steps_of_training_lower_the_loss(objective: str):
    model = mixture(generative=objective == "flow_matching", delta_scale=[0.2, 0.4, 0.6, 0.8, 1.0]).train()
    terms = {"chamfer": 1, "tracked": 1} if objective == "chamfer" else {"chamfer": 0, "tracked": 0, objective: 1}
    weights = ObjectiveSettings.model_validate({"opening": 0, **terms})
    window = random_window() | {"seed": torch.arange(B)}
    window = noised(window, model, WindowRandom(window["seed"]))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(3):
        loss = loss_of(model(**window), window, weights)
        losses.append(float(loss.total.detach()))
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    assert losses[0] > losses[1] > losses[2]


def test_a_generative_mixture_reads_its_context_once(monkeypatch: pytest.MonkeyPatch):
    model = trained_like(mixture(generative=True))
    reads, remember = [], MixtureTrunk.remember

    def counted(self: MixtureTrunk, context: Context) -> Context:
        reads.append(context)
        return remember(self, context)

    monkeypatch.setattr(MixtureTrunk, "remember", counted)
    window = random_window() | {"seed": torch.arange(B)}
    points = model(**window).points
    assert len(reads) == 1 and torch.isfinite(points).all()
    torch.testing.assert_close(model(**window).points, points, rtol=0, atol=0)
    assert not torch.allclose(model(**window | {"seed": torch.arange(B) + 9}).points, points, atol=1e-5)


@torch.no_grad()
def test_a_saved_predictor_comes_back_with_its_tokenizer(gemma, tmp_path: Path):
    gemma.save_pretrained(tmp_path)
    loaded = KinecloudPredictor.from_pretrained(tmp_path).eval()
    window = random_window()
    torch.testing.assert_close(loaded(**window).points, gemma(**window).points, rtol=0, atol=1e-6)


@torch.no_grad()
def test_a_policy_from_a_mixture_acts_and_its_export_stands_alone(gemma, tmp_path: Path):
    policy = policy_of(gemma)
    window = random_window() | {"proprio": torch.rand(B, 2)}
    assert torch.equal(policy(**window).points, gemma(**window).points)
    inputs = act_inputs(random_window(batch=1))
    actions = policy.act(**inputs)
    assert actions.shape == (6, 3) and actions[:, 0].std() > 0
    policy.config.auto_map = AUTO_MAP
    policy.save_pretrained(tmp_path)
    for path in modelling_files():
        shutil.copy(path, tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path, trust_remote_code=True)
    assert type(loaded) is not KinecloudPolicy
    np.testing.assert_allclose(loaded.act(**inputs), actions, atol=1e-5)


def test_what_is_taken_out_is_what_nothing_reads():
    """The parameters left over by transformers' own forward pass are exactly those that are taken out."""
    model = PI0Model(pi0_config()).eval()
    whole = {name for name, _ in model.named_parameters()}
    model(
        action_embeds=torch.randn(1, 3, 32),
        input_ids=torch.tensor([[TOKENS] * 4 + [2, 5, 6]]),
        pixel_values=torch.randn(1, 1, 3, 28, 28),
        pixel_attention_mask=torch.ones(1, 1, dtype=torch.bool),
        attention_mask=torch.ones(1, 7, dtype=torch.long),
    ).last_hidden_state.sum().backward()
    read = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    left = {name for name, _ in without_unread(model).named_parameters()}
    assert left == read and len(left) < len(whole)


@torch.no_grad()
def test_reduced_precision_changes_the_motion_by_a_few_percent_at_most(predictor):
    window = random_window()
    expected = predictor(**window)
    with torch.autocast("cpu", torch.bfloat16):
        reduced = predictor(**window)
    assert reduced.points.dtype == torch.float32 and not torch.equal(reduced.points, expected.points)
    travelled = (expected.points - window["past"][:, -1:]).norm(dim=-1)
    assert ((reduced.points - expected.points).norm(dim=-1) < 0.001 + 0.04 * travelled).all()
