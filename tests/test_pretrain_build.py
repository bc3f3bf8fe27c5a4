"""Published networks become parts of a predictor: whole, in their place, frozen as configured; or refused by name."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoTokenizer, BertModel, Dinov2Model, PI0ForConditionalGeneration, SiglipModel

from data.config import WindowConfig
from pipeline.config import load
from pipeline.errors import Refused, UserError
from pretrain.build import groups_of, new_predictor, pretrained_parts
from pretrain.config import ModelSettings, PretrainConfig
from pretrain.model.encoders import prepared
from pretrain.model.modeling_kinecloud import KinecloudPredictor
from pretrain.sources import pretrained_sha256
from pretrain.train import pretrain
from tests import tiny_encoders
from tests.pretrain_clips import write_clips
from tests.test_pretrain_model import random_window, trained_like
from tests.test_pretrain_train import config_file
from tests.tiny_models import rewrite_json

WINDOW = WindowConfig(image_size=32)  # pyright: ignore[reportCallIssue]
WEIGHTS = "model.safetensors"
KINDS = ("pi0", "paligemma", "siglip", "dinov2", "minilm")


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One checkpoint of each kind."""
    folder = tmp_path_factory.mktemp("networks")
    return {name: getattr(tiny_encoders, f"tiny_{name}")(folder / name) for name in KINDS}


@pytest.fixture
def copy_of(networks: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a checkpoint that a test may spoil."""
    return lambda name: Path(shutil.copytree(networks[name], tmp_path / name))


def settings_of(**values: Any) -> ModelSettings:
    values = {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}
    return ModelSettings.model_validate({"width": 32, "heads": 2, "layers": 1, "slots": 2, **values})


def built(seed: int = 0, said: list[str] | None = None, **values: Any) -> KinecloudPredictor:
    said = [] if said is None else said
    return new_predictor(settings_of(**values), WINDOW, ["human-hand"], seed, said.append)


def full(context: Path, **values: Any) -> dict[str, Any]:
    return {"family": "full", "context": context, **values}


def learned(module: nn.Module) -> set[str]:
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


def holds(module: nn.Module, tensors: dict[str, Tensor], prefix: str) -> None:
    assert module.state_dict()
    for name, value in module.state_dict().items():
        assert torch.equal(value, tensors[prefix + name]), name


def pi0_tensors(folder: Path) -> dict[str, Tensor]:
    return PI0ForConditionalGeneration.from_pretrained(folder).state_dict()


@torch.no_grad()
def test_the_towers_of_siglip_see_and_read_as_they_did(networks):
    parts = pretrained_parts(built(vision=networks["siglip"], text=networks["siglip"]))
    oracle = SiglipModel.from_pretrained(networks["siglip"]).eval()
    pixels = prepared(random_window()["image"], 32, [(0.5, 0.5)] * 3)
    ids = torch.tensor([[2, 5, 7, 3]])
    for got, expected in (
        (parts["vision"](pixel_values=pixels), oracle.vision_model(pixel_values=pixels)),
        (parts["text"](input_ids=ids), oracle.text_model(input_ids=ids)),
    ):
        torch.testing.assert_close(got.last_hidden_state, expected.last_hidden_state, rtol=0, atol=1e-6)


@torch.no_grad()
def test_dinov2_sees_its_own_pixels_at_another_size_and_patches_lie_where_they_look(networks):
    """A bright square in one corner changes the features of that corner most."""
    model = built(vision=networks["dinov2"], vision_size=28)
    vision: Any = model.trunk.vision
    oracle = Dinov2Model.from_pretrained(networks["dinov2"]).eval()
    dark, bright = (torch.zeros(1, 3, 32, 32, dtype=torch.uint8) for _ in range(2))
    bright[..., 16:, :16] = 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    window = random_window(batch=1)
    geometry = model.observe(**{n: window[n] for n in window if n in _OBSERVED}).geometry
    maps = []
    for image in (dark, bright):
        small = nn.functional.interpolate(image.float(), size=(28, 28), mode="bilinear", antialias=True) / 255
        expected = oracle((small - mean[:, None, None]) / std[:, None, None]).last_hidden_state[:, 1:]
        _, features = vision(image, torch.ones(1, dtype=torch.bool), geometry)
        torch.testing.assert_close(features.flatten(2).transpose(1, 2), expected, rtol=0, atol=1e-5)
        maps.append(features)
    change = (maps[1] - maps[0]).norm(dim=1)[0]
    assert change.argmax() == 2 and change.shape == (2, 2)  # lower left


_OBSERVED = (
    "image", "intrinsics", "past", "past_visible", "past_valid", "past_opening", "text", "embodiment", "image_present",
)  # fmt: skip


@torch.no_grad()
def test_minilm_reads_its_own_tokens_and_the_padding_of_others_does_not_matter(networks):
    model = built(text=networks["minilm"])
    text: Any = model.trunk.text
    lines = ["open the drawer", "push", ""]
    assert text.tokenizer(lines)["input_ids"] == AutoTokenizer.from_pretrained(networks["minilm"])(lines)["input_ids"]
    holds(text.model, BertModel.from_pretrained(networks["minilm"]).state_dict(), "")
    torch.testing.assert_close(text(lines)[1:2], text(["push"]), rtol=0, atol=1e-5)
    assert not torch.allclose(text(["push the red puck"]), text(["open the drawer"]), atol=1e-4)


def test_pi0_gives_context_and_expert_and_says_what_it_leaves_out(networks):
    said: list[str] = []
    model = built(said=said, **full(networks["pi0"]))
    holds(model.trunk.pi0, pi0_tensors(networks["pi0"]), "model.")  # pyright: ignore[reportArgumentType]
    assert any("projections of states and actions are left out" in line for line in said)
    assert torch.isfinite(model(**random_window()).points).all()


def test_paligemma_gives_the_context_and_the_expert_is_in_the_shape_of_pi0s(networks):
    said: list[str] = []
    model = built(said=said, **full(networks["paligemma"]))
    trunk: Any = model.trunk
    tensors = load_file(networks["paligemma"] / WEIGHTS)
    layers = trunk.pi0.vlm.language_model.layers
    found = [value for name, value in tensors.items() if name.endswith("layers.0.mlp.up_proj.weight")]
    assert torch.equal(layers[0].mlp.up_proj.weight, found[0])
    expert = trunk.pi0.dit.config
    assert (expert.num_hidden_layers, expert.head_dim) == (2, 16) and expert.hidden_size == 64 // 2
    assert any("starts from random weights" in line for line in said)
    other = built(seed=1, **full(networks["paligemma"]))
    weights = [m.state_dict()["trunk.pi0.dit.layers.0.mlp.up_proj.weight"] for m in (model, other)]
    assert not torch.equal(*weights)


def test_weights_that_are_not_loaded_depend_on_the_seed_alone(networks):
    torch.manual_seed(99)
    first = built(text=networks["minilm"]).state_dict()
    torch.manual_seed(5)
    torch.randn(7)
    second, third = built(text=networks["minilm"]).state_dict(), built(seed=1, text=networks["minilm"]).state_dict()
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert not torch.equal(first["point.0.weight"], third["point.0.weight"])


def test_frozen_parts_stay_as_they_are_and_in_evaluation_mode(networks):
    model = built(vision=networks["siglip"], text=networks["minilm"])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(groups_of(model, settings_of(), 0.05), lr=1e-2)
    window = random_window()
    for _ in range(2):
        optimizer.zero_grad()
        (model(**window).points - window["future"]).square().sum().backward()
        optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    parts = pretrained_parts(model)
    assert not any(module.training for part in parts.values() for module in part.modules())
    assert changed and not any(name.startswith(("trunk.vision.model.", "trunk.text.model.")) for name in changed)
    twice = [model.trunk.text(["push"]) for _ in range(2)]  # pyright: ignore[reportCallIssue]
    assert torch.equal(*twice)  # no dropout


def test_pretrained_parts_that_learn_do_so_slowly_and_only_where_something_reads_them(networks):
    values = {"vision": networks["dinov2"], "text": networks["minilm"], "freeze": [], "pretrained_rate": 0.25}
    model: Any = trained_like(built(**values)).train()
    model(**random_window()).points.square().sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    parts = pretrained_parts(model)
    assert "pooler.dense.weight" not in learned(parts["text"]) and "embeddings.mask_token" not in learned(
        parts["vision"]
    )
    slow = {id(p) for part in parts.values() for p in part.parameters() if p.requires_grad}
    groups = groups_of(model, settings_of(**values), 0.05)
    found = {id(p): group.get("lr_scale", 1.0) for group in groups for p in group["params"]}
    assert set(found) == {id(p) for p in model.parameters() if p.requires_grad}
    assert all(scale == (0.25 if parameter in slow else 1.0) for parameter, scale in found.items())


@pytest.mark.parametrize("freeze", [(), ("vision", "text"), ("context",)])
def test_of_the_full_family_what_is_frozen_gets_no_gradient_and_all_else_does(networks, freeze):
    model = trained_like(built(**full(networks["pi0"], freeze=freeze))).train()
    model(**random_window()).points.square().sum().backward()
    got = {name for name, p in model.named_parameters() if p.grad is not None}
    assert got == learned(model)
    vision, words, layers = (
        any(f"trunk.pi0.vlm.{part}" in name for name in got)
        for part in ("vision_tower", "language_model.embed_tokens", "language_model.layers")
    )
    assert any(name.startswith("trunk.pi0.dit.") for name in got)
    assert (vision, words) == ((True, True) if not freeze else (False, False)) and layers == ("context" not in freeze)


def test_the_bytes_that_were_loaded_are_known(networks):
    expected = hashlib.sha256((networks["minilm"] / WEIGHTS).read_bytes()).hexdigest()
    assert pretrained_sha256(settings_of(text=networks["minilm"])) == {"text": {f"bert/{WEIGHTS}": expected}}
    assert pretrained_sha256(settings_of()) == {}


def spoil(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})


@pytest.mark.parametrize("kind", ["pi0", "paligemma", "siglip", "minilm"])
def test_a_network_that_would_be_partly_random_is_refused(copy_of, kind: str):
    folder, part = copy_of(kind), {"siglip": "vision", "minilm": "text"}.get(kind, "context")
    of_other_tower = "text_model" if part == "vision" else "vision_model.encoder"
    spoil(
        folder,
        lambda tensors: tensors.pop(
            next(n for n in tensors if ("layers.1." in n or "layer.1." in n) and of_other_tower not in n)
        ),
    )
    with pytest.raises(
        UserError, match=rf"pretrain\.model\.{part}: .*{kind}: 1 parameters of .* are not in its weights"
    ):
        built(**full(folder) if part == "context" else {part: folder})


@pytest.mark.parametrize("kind", ["pi0", "paligemma", "minilm"])
def test_weights_that_have_no_place_are_not_passed_over(copy_of, kind: str):
    folder, part = copy_of(kind), "text" if kind == "minilm" else "context"
    spoil(folder, lambda tensors: tensors.update({"encoder.layer.0.adapter.weight": torch.zeros(2)}))
    with pytest.raises(UserError, match=r"1 tensors in its weights are no parameters of .*adapter\.weight"):
        built(**full(folder) if part == "context" else {part: folder})


def test_what_cannot_be_used_names_setting_value_and_remedy(networks, copy_of):
    with pytest.raises(UserError, match=r"pretrain\.model\.vision: nowhere is neither a folder nor an id"):
        built(vision="nowhere")
    with pytest.raises(UserError, match=r"(?s)pretrain\.model\.text: .*dinov2 has no tokenizer"):
        built(text=networks["dinov2"])
    with pytest.raises(UserError, match=r"pretrain\.model\.context: .*model_type is 'bert'.*family to compact"):
        built(**full(networks["minilm"]))
    with pytest.raises(UserError, match=r"patches of 14 pixels do not tile an image of 32.*vision_size"):
        built(vision=networks["dinov2"], vision_size=32)
    silent = copy_of("siglip")
    (silent / "preprocessor_config.json").unlink()
    with pytest.raises(UserError, match=r"does not say how its pixels are normalised.*preprocessor_config\.json"):
        built(vision=silent)
    for values in ({"family": "full"}, {"family": "full", "context": "a/b", "vision": "c/d"}, {"context": "a/b"}):
        with pytest.raises(ValidationError):
            settings_of(**values)


def test_a_pi0_checkpoint_without_a_tokenizer_is_given_one(networks, copy_of, tmp_path: Path):
    bare = copy_of("pi0")
    for path in bare.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(UserError, match=r"(?s)no tokenizer .*pretrain\.model\.tokenizer"):
        built(**full(bare))
    words = tmp_path / "words"
    tiny_encoders.gemma_tokenizer().save_pretrained(words)
    window = random_window()
    expected = built(**full(networks["pi0"])).eval()(**window).points
    assert torch.equal(built(**full(bare, tokenizer=words)).eval()(**window).points, expected)


def test_a_run_starts_from_a_context_goes_on_only_with_the_same_bytes_and_publishes_its_tokenizer(copy_of, tmp_path):
    shards = write_clips(tmp_path / "clips", train=4, val=1)
    context = copy_of("pi0")
    model = {"family": "full", "context": str(context), "slots": 2}
    objective = {"flow_matching": 1.0, "chamfer": 0.0, "tracked": 0.0}
    more = {"model": model, "objective": objective, "steps": 2, "checkpoint_every": 1, "batch_size": 2}
    config = load(config_file(tmp_path, shards, validation_windows=2, evaluation_stride=20, **more))
    pretrain(config, resume=True)
    folder = config.folder("pretrain") / "model"
    published = KinecloudPredictor.from_pretrained(folder).eval()
    assert torch.isfinite(published(**random_window()).points).all()
    tensors = pi0_tensors(context)
    holds(published.trunk.pi0.vlm.vision_tower, tensors, "model.vlm.vision_tower.")  # pyright: ignore
    assert not list(folder.glob("optimizer*"))
    spoil(context, lambda tensors: next(iter(tensors.values())).add_(1))
    rewrite_json(context / "config.json", touched=True)
    changed = load(config_file(tmp_path, shards, validation_windows=2, evaluation_stride=20, **more | {"steps": 3}))
    with pytest.raises(Refused, match="pretrained_sha256"):
        pretrain(changed, resume=True)


def test_the_settings_in_the_documentation_are_settings():
    text = (Path(__file__).parents[1] / "docs" / "models.md").read_text().partition("## Predictors")[2]
    sections = list(yaml.safe_load_all(text.partition("```yaml")[2].partition("```")[0]))
    families = [PretrainConfig.model_validate(section["pretrain"]).model.family for section in sections]
    assert families == ["compact", "full"]
