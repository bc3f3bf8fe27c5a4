"""Published encoders and contexts as parts of a predictor, loaded whole or refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PaliGemmaModel,
    PI0Config,
    PI0ForConditionalGeneration,
    PretrainedConfig,
)

from pipeline.errors import UserError
from pipeline.weights import Checkpoint, load_network
from pretrain.model.encoders import encoder_class
from pretrain.sources import locate

# what checkpoints hold beside the encoder: the other tower, projections to a common space, heads of other tasks
_BESIDE = r"(^|\.)(logit_scale|logit_bias|text_projection|visual_projection|cls|lm_head|head|pooler)\b"
_BESIDE_VISION, _BESIDE_TEXT = rf"{_BESIDE}|^text_model\.", rf"{_BESIDE}|^vision_model\."
# what nothing is computed from, so it may be missing: heads that summarise, the expert's own word table
_SUMMARY, _EXPERT_WORDS, _ACTIONS = (
    r"(^|\.)(head|pooler)\.",
    r"dit\.embed_tokens\.",
    r"^(embed_action_time|action_out_proj)\.",
)
_ABOUT_FILES = ("dtype", "torch_dtype", "transformers_version", "architectures", "_name_or_path", "auto_map")
_PALIGEMMA_PIXELS = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}


@dataclass
class Loaded:
    """A loaded network. config: its configuration as JSON values, for AutoModel or PI0Model. unread: names of
    parameters that no result depends on. notes: what a user should know of the loading."""

    config: dict[str, Any]
    module: nn.Module
    tokenizer: Any = None
    pixel_mean: list[float] = field(default_factory=list)
    pixel_std: list[float] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def load_vision(source: str, side: int | None = None) -> Loaded:
    """A vision Transformer with one size of patches: the checkpoint's own, or the image tower of SigLIP or CLIP.

    side: pixels that it will see; None = as it was trained. Raises UserError naming ``pretrain.model.vision``.
    """
    found = locate(source, "vision")
    config = _tower(found, "vision")
    if hasattr(config, "vision_use_head"):
        config.vision_use_head = False
    module = _encoder(found, "vision", config, _BESIDE_VISION)
    side, patch = side or getattr(config, "image_size", None), getattr(config, "patch_size", None)
    wanted = "Name a vision Transformer with square patches (SigLIP, DINOv2, DINOv3, CLIP, ViT)"
    if not isinstance(side, int) or not isinstance(patch, int) or side % patch:
        raise UserError(
            f"pretrain.model.vision: {found.folder} ({config.model_type}): patches of {patch} pixels do not tile an "
            f"image of {side}. {wanted}, or set pretrain.model.vision_size to a multiple."
        )
    states, unread = _tried(module, found, "vision", pixel_values=torch.zeros(1, 3, side, side))
    if states.ndim != 3 or states.shape[1] < (side // patch) ** 2:
        raise UserError(
            f"pretrain.model.vision: {found.folder} ({config.model_type}) makes {list(states.shape)} of an image of "
            f"{side} pixels, not a token for each of {(side // patch) ** 2} patches. {wanted}."
        )
    mean, std = _pixels(found, "vision", {})
    return Loaded(_plain(config), module, None, mean, std, unread)


def load_text(source: str) -> Loaded:
    """A text encoder with its tokenizer: the checkpoint's own, or the text tower of SigLIP or CLIP.

    Raises UserError naming ``pretrain.model.text``.
    """
    found = locate(source, "text")
    config = _tower(found, "text")
    module = _encoder(found, "text", config, _BESIDE_TEXT)
    tokenizer = _tokenizer(str(found.folder), "text")
    ids = torch.tensor([tokenizer("open the drawer")["input_ids"]])
    _, unread = _tried(module, found, "text", input_ids=ids, attention_mask=torch.ones_like(ids))
    return Loaded(_plain(config), module, tokenizer, unread=unread)


def load_context(source: str, tokenizer: str | None = None) -> Loaded:
    """The ``module`` is pi0's PI0Model where the checkpoint is one of pi0, and else PaliGemma's PaliGemmaModel;
    ``config`` is PI0Config's. tokenizer: where to find it when it is not beside the weights.

    Raises UserError naming ``pretrain.model.context``.
    """
    found = locate(source, "context")
    if found.model_type == "pi0" or found.config.get("type") == "pi0":  # the latter is how LeRobot names it
        config = _plain(_config(found, "context") if found.model_type == "pi0" else PI0Config())
        config["vlm_config"]["vision_config"]["vision_use_head"] = False
        whole = load_network(
            PI0ForConditionalGeneration, found, "pretrain.model.context", config=PI0Config.from_dict(config),
            may_lack=f"{_ACTIONS}|{_EXPERT_WORDS}", may_hold=r"(^|\.)lm_head\.",
        )  # fmt: skip
        module, note = whole.model, "context and expert are pi0's; its projections of states and actions are left out"
    elif found.model_type == "paligemma":
        context = _plain(_config(found, "context"))
        context["vision_config"]["vision_use_head"] = False
        expert = expert_of(context["text_config"])
        config = {"vlm_config": context, "dit_config": expert}
        module = load_network(
            PaliGemmaModel, found, "pretrain.model.context", config=PI0Config.from_dict(config).vlm_config,
            may_hold=r"(^|\.)lm_head\.",
        )  # fmt: skip
        sizes = "{num_hidden_layers} layers, width {hidden_size}, MLP {intermediate_size}".format(**expert)
        note = f"the context is PaliGemma's; the expert ({sizes}) starts from random weights"
    else:
        raise UserError(
            f"pretrain.model.context: {found.folder / 'config.json'}: model_type is {found.model_type!r}, not 'pi0' or "
            "'paligemma'. Name such a checkpoint, or set pretrain.model.family to compact."
        )
    reads = _tokenizer(tokenizer, "tokenizer") if tokenizer else _tokenizer(str(found.folder), "context")
    mean, std = _pixels(found, "context", _PALIGEMMA_PIXELS)
    return Loaded(config, module, reads, mean, std, notes=[note])


def expert_of(context: dict[str, Any]) -> dict[str, Any]:
    """The expert's configuration for a context's language model: as many layers, heads and channels per head, because
    it reads that one's keys and values; half its width and a quarter of its MLP. For PaliGemma 3B that is pi0's."""
    copied = (
        "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "rope_parameters",
        "max_position_embeddings", "rms_norm_eps",
    )  # fmt: skip
    sizes = {"hidden_size": context["hidden_size"] // 2, "intermediate_size": context["intermediate_size"] // 4}
    return {"model_type": "gemma", **{name: context[name] for name in copied if name in context}, **sizes}


def _config(found: Checkpoint, part: str) -> PretrainedConfig:
    try:
        return AutoConfig.from_pretrained(found.folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"pretrain.model.{part}: {found.folder / 'config.json'} is not understood ({error}). Name a checkpoint in "
            "the format of transformers."
        ) from None


def _tower(found: Checkpoint, part: str) -> Any:
    """The encoder's configuration; where the checkpoint has two towers, that of the wanted one."""
    config = _config(found, part)
    return getattr(config, f"{part}_config", config)


def _encoder(found: Checkpoint, part: str, config: Any, may_hold: str) -> nn.Module:
    model_class = encoder_class(config)
    if model_class is None:
        raise UserError(
            f"pretrain.model.{part}: {found.folder}: transformers has no {part} encoder for {config.model_type!r}. "
            "Name another checkpoint."
        )
    return load_network(
        model_class, found, f"pretrain.model.{part}", config=config, may_lack=_SUMMARY, may_hold=may_hold
    )


def _tried(module: nn.Module, found: Checkpoint, part: str, **given: Tensor) -> tuple[Tensor, list[str]]:
    """Token states for a made-up input, and the names of the parameters that they do not depend on: on several ranks,
    what gets no gradient may not count as learned."""
    try:
        with torch.enable_grad():
            states = module(**given).last_hidden_state
            states.sum().backward()
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"pretrain.model.{part}: {found.folder} ({type(module).__name__}) cannot be used as a {part} encoder: "
            f"{error}. Name another checkpoint."
        ) from None
    unread = [name for name, parameter in module.named_parameters() if parameter.grad is None]
    module.zero_grad(set_to_none=True)
    return states.detach(), unread


def _tokenizer(source: str, part: str) -> Any:
    """From a folder or the hub. Raises UserError when it cannot be had or makes nothing of a text."""
    name, _, revision = source.partition("@")
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision or "main")
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"pretrain.model.{part}: {source} has no tokenizer that transformers can load ({error}). Put "
            "tokenizer.json and tokenizer_config.json there, or, for a context, name a folder that has them in "
            "pretrain.model.tokenizer."
        ) from None
    return tokenizer


def _pixels(found: Checkpoint, part: str, otherwise: dict[str, Any]) -> tuple[list[float], list[float]]:
    processing = otherwise | found.image_processing()
    values = [processing.get(name) for name in ("image_mean", "image_std")]
    if not all(isinstance(value, list) and len(value) == 3 for value in values):
        raise UserError(
            f"pretrain.model.{part}: {found.folder} does not say how its pixels are normalised. Put a "
            "preprocessor_config.json with image_mean and image_std (3 numbers each) there."
        )
    mean, std = values
    return mean, std  # pyright: ignore[reportReturnType]


def _plain(config: Any) -> dict[str, Any]:
    """A configuration as JSON values, without what is about files or their precision."""

    def without(values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {name: without(value) for name, value in values.items() if name not in _ABOUT_FILES}

    return without(config.to_dict())
