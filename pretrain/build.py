"""The untrained predictor of a configuration: sizes, pretrained parts, and which of them stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PaliGemmaModel, PI0Model

from data.config import WindowConfig
from pretrain.config import ModelSettings
from pretrain.loop import parameter_groups
from pretrain.model.configuration_kinecloud import KinecloudConfig
from pretrain.model.mixture import MixtureTrunk, context_without_unread, without_unread
from pretrain.model.modeling_kinecloud import KinecloudPredictor
from pretrain.pretrained import Loaded, load_context, load_text, load_vision
from pretrain.sources import sources

_NOT_OF_THE_NETWORK = {"family", "vision", "vision_size", "text", "context", "tokenizer", "freeze", "pretrained_rate"}


def new_predictor(
    settings: ModelSettings,
    window: WindowConfig,
    embodiments: Sequence[str],
    seed: int,
    say: Callable[[str], None] = lambda _: None,
    **more: Any,
) -> KinecloudPredictor:
    """A predictor with its pretrained parts loaded and frozen as configured, in training mode.

    What is not loaded depends on the seed alone. more: further values of KinecloudConfig. say: is told what was loaded.
    Raises UserError when a part cannot be loaded.
    """
    loaded = _load(settings)
    size: dict[str, Any] = settings.model_dump(exclude=_NOT_OF_THE_NETWORK) | {"embodiments": list(embodiments)}
    size |= _sizes_of(loaded, settings) | more
    torch.manual_seed(seed)
    predictor = KinecloudPredictor(
        KinecloudConfig(
            image_size=window.image_size, past_times=window.past_s, horizons=window.horizons_s, **size
        )
    )  # fmt: skip
    for part, found in loaded.items():
        _put(predictor, part, found)
        for note in found.notes:
            say(f"{part}: {note}")
    frozen = freeze(predictor, settings.freeze)
    if loaded:
        say(f"pretrained: {', '.join(sources(settings).values())}; frozen: {', '.join(frozen) or 'nothing'}")
    return predictor.train()


def _load(settings: ModelSettings) -> dict[str, Loaded]:
    loaders: dict[str, Callable[[str], Loaded]] = {
        "vision": lambda source: load_vision(source, settings.vision_size),
        "text": load_text,
        "context": lambda source: load_context(source, settings.tokenizer),
    }
    return {part: loaders[part](source) for part, source in sources(settings).items()}


def _sizes_of(loaded: dict[str, Loaded], settings: ModelSettings) -> dict[str, Any]:
    """Values of KinecloudConfig that follow from what was loaded."""
    values: dict[str, Any] = {}
    for part, found in loaded.items():
        if found.pixel_mean:
            values |= {"pixel_mean": found.pixel_mean, "pixel_std": found.pixel_std}
        if part == "context":
            expert = found.config["dit_config"]
            values["mixture"] = found.config
            values |= {"width": expert["hidden_size"], "heads": expert["num_attention_heads"]}
            values["layers"] = expert["num_hidden_layers"]
        else:
            values[part] = found.config
        if part == "vision" and settings.vision_size:
            values["vision_size"] = settings.vision_size
        if part == "text":
            longest = found.config.get("max_position_embeddings", settings.max_text_tokens)
            values["max_text_tokens"] = min(settings.max_text_tokens, longest)
    return values


def _put(predictor: KinecloudPredictor, part: str, found: Loaded) -> None:
    """Weights and tokenizer of a loaded part take their places; what nothing reads is not learned either."""
    module: nn.Module = found.module
    if isinstance(module, PI0Model):
        module = without_unread(module)
    elif isinstance(module, PaliGemmaModel):
        module = context_without_unread(module)
    place = _place(predictor, part, module)
    place.load_state_dict(module.state_dict(), assign=True)
    for name in found.unread:
        place.get_parameter(name).requires_grad_(False)
    if found.tokenizer is not None:
        predictor.read_with(found.tokenizer)


def _place(predictor: KinecloudPredictor, part: str, module: nn.Module) -> nn.Module:
    """The part of the predictor that has the weights of a loaded module."""
    trunk: Any = predictor.trunk
    if part != "context":
        return getattr(trunk, part).model
    return trunk.pi0 if isinstance(module, PI0Model) else trunk.pi0.vlm


def pretrained_parts(predictor: KinecloudPredictor) -> dict[str, nn.Module]:
    """By the names that can be frozen, the modules whose weights come from a published network.

    Of the full family, text is the context's table of words, a fifth of it, and context is all of it. The expert counts
    as new, also where it is pi0's: it is given other tokens than it knew.
    """
    trunk: Any = predictor.trunk
    if isinstance(trunk, MixtureTrunk):
        vlm: Any = trunk.pi0.vlm
        return {"vision": vlm.vision_tower, "text": vlm.language_model.embed_tokens, "context": vlm}
    named = {"vision": predictor.config.vision and trunk.vision, "text": predictor.config.text and trunk.text}
    return {part: module.model for part, module in named.items() if module}


def freeze(predictor: KinecloudPredictor, parts: Sequence[str]) -> list[str]:
    """Parameters of these pretrained parts are not learned; returns which of the parts there are."""
    found = {part: module for part, module in pretrained_parts(predictor).items() if part in parts}
    for module in found.values():
        module.requires_grad_(False)
    trunk = predictor.trunk
    if "context" in found and isinstance(trunk, MixtureTrunk):
        trunk.place.requires_grad_(False)  # it alone would need all gradients of the frozen context behind it
    return list(found)


def groups_of(predictor: KinecloudPredictor, settings: ModelSettings, weight_decay: float) -> list[dict[str, Any]]:
    """AdamW groups: pretrained parts that are not frozen change at ``pretrained_rate`` of the learning rate."""
    old = {p for module in pretrained_parts(predictor).values() for p in module.parameters()}
    groups = parameter_groups((p for p in predictor.parameters() if p not in old), weight_decay)
    if any(p.requires_grad for p in old):
        learned = (p for p in predictor.parameters() if p in old)
        groups += parameter_groups(learned, weight_decay, lr_scale=settings.pretrained_rate)
    return groups
