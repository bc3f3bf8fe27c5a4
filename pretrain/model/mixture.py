"""The mixture trunk: PaliGemma as context, its expert as predictor, both of transformers' PI0Model.

The context is image patches and instruction; it is read by PaliGemma once. Motion tokens are those of the expert, a
smaller Gemma with as many layers, each of which also reads the keys and values of the same layer of the context
(Black et al. 2024, "pi0"; mixture of Transformers). Within the context everything sees everything.

Shapes: B batch, S image side, L context tokens, T motion tokens, D width of the expert, E width of the context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PI0Config, PI0Model
from transformers.cache_utils import Cache, DynamicLayer
from transformers.masking_utils import create_causal_mask
from transformers.models.gemma.modeling_gemma import apply_rotary_pos_emb

from .configuration_kinecloud import KinecloudConfig
from .encoders import prepared
from .geometry import CloudGeometry, place_size
from .layers import KeysValues, zero
from .trunk import Context, Text, Trunk


@dataclass
class Prefix:
    """The context before PaliGemma has read it. embeds: [B,L,E]. real: bool [B,L], false for an absent image and for
    the padding of texts, which nothing sees and which take no position."""

    embeds_BLE: Tensor
    real_BL: Tensor


class MixtureTrunk(Trunk):
    """See ``Trunk``. The predictor's image side is free; the vision tower sees it at its own size."""

    def __init__(self, config: KinecloudConfig):
        super().__init__()
        assert config.mixture is not None
        self.pi0 = without_unread(PI0Model(PI0Config.from_dict(config.mixture)))
        vision = self.pi0.vlm.vision_tower.config
        self.side, self.rows = vision.image_size, vision.image_size // vision.patch_size
        self.width, self.channels = self.pi0.dit.config.hidden_size, vision.hidden_size
        self.max_tokens = config.max_text_tokens
        self.pixels = list(zip(config.pixel_mean, config.pixel_std, strict=True))
        self.place = zero(nn.Linear(place_size(config), self.pi0.vlm.language_model.config.hidden_size))
        self.tokenizer: Any = None  # given by the model that holds this trunk
        for layer in [*self.pi0.dit.layers, *self.pi0.vlm.language_model.layers]:
            layer._can_checkpoint_with_cache = True  # reading twice is harmless, and so is writing: see _Written

    def read(self, image_B3SS: Tensor, present_B: Tensor, geometry: CloudGeometry, text: Text) -> Context:
        vlm = self.pi0.vlm
        patches_BTC = vlm.vision_tower(prepared(image_B3SS, self.side, self.pixels)).last_hidden_state
        places = geometry.patch_places(self.rows, self.rows, image_B3SS.shape[-1])
        image_BTE = vlm.multi_modal_projector(patches_BTC)
        image_BTE = image_BTE + self.place(places).to(image_BTE)
        ids_BL, real_BL = self._tokens(text, image_BTE.device)
        text_BLE = vlm.language_model.embed_tokens(ids_BL).to(image_BTE)
        seen_BT = present_B[:, None].expand(-1, image_BTE.shape[1])
        features = patches_BTC.transpose(1, 2).unflatten(2, (self.rows, self.rows)) * present_B[:, None, None, None]
        return Context(features, Prefix(torch.cat([image_BTE, text_BLE], 1), torch.cat([seen_BT, real_BL], 1)))

    def remember(self, context: Context) -> Context:
        prefix: Prefix = context.tokens
        language = self.pi0.vlm.language_model
        mask: Any = self._mask(language.config, prefix.embeds_BLE, prefix.real_BL)
        if getattr(language.config, "sliding_window", None):  # far longer than any context here
            mask = {"full_attention": mask, "sliding_attention": mask}
        written = [_Written() for _ in language.layers]
        language(
            inputs_embeds=prefix.embeds_BLE,
            attention_mask=mask,
            position_ids=(prefix.real_BL.long().cumsum(1) - 1).clamp(min=0),
            past_key_values=Cache(layers=list(written)),
            use_cache=False,  # nothing is to be handed back
        )
        return Context(context.features_BCHW, prefix, [layer.take() for layer in written])

    def think(self, context: Context, segments: Sequence[Tensor]) -> list[Tensor]:
        if context.memory is None:
            context = self.remember(context)
        real_BL = context.tokens.real_BL
        lengths = [segment.shape[1] for segment in segments]
        x_BTD = torch.cat(list(segments), 1)
        cache = Cache(layers=[_Shown(keys, values) for keys, values in context.memory])
        expert = self.pi0.dit
        x_BTD = expert(
            inputs_embeds=x_BTD,
            attention_mask=self._mask(expert.config, x_BTD, real_BL, lengths, cache),
            position_ids=real_BL.sum(1, keepdim=True) + torch.arange(x_BTD.shape[1], device=x_BTD.device),
            past_key_values=cache,
            use_cache=False,
        ).last_hidden_state
        return list(x_BTD.split(lengths, 1))

    def _tokens(self, text: Text, device: torch.device) -> tuple[Tensor, Tensor]:
        """Ids and which are real, each [B,L]; a prompt is as PaliGemma and pi0 were taught: bos, text, newline. Of ids
        that are given none is padding."""
        if isinstance(text, Tensor):
            return text, torch.ones_like(text, dtype=torch.bool)
        end = self.tokenizer.encode("\n", add_special_tokens=False)
        room = self.max_tokens - 1 - len(end)
        lines = [" ".join(line.replace("_", " ").split()) for line in text]
        coded = [self.tokenizer.encode(line, add_special_tokens=False)[:room] for line in lines]
        prompts = [[self.tokenizer.bos_token_id, *ids, *end] for ids in coded]
        length = max(map(len, prompts))
        ids_BL = torch.tensor([ids + [0] * (length - len(ids)) for ids in prompts])
        real_BL = torch.arange(length) < torch.tensor([len(ids) for ids in prompts])[:, None]
        return ids_BL.to(device), real_BL.to(device)

    @staticmethod
    def _mask(
        config: Any, x_BTD: Tensor, context_BL: Tensor, lengths: Sequence[int] = (), cache: Cache | None = None
    ) -> Tensor:
        """What tokens x see, in the form that the chosen implementation of attention wants: of the context what is
        real, and of the segments after it (of ``lengths``) their own and those before."""
        known = context_BL.shape[1]
        place_S = torch.arange(known + sum(lengths), device=x_BTD.device)
        starts = [known + sum(lengths[:number]) for number in range(len(lengths))]
        blocks_S = sum(((place_S >= start).long() for start in starts), torch.zeros_like(place_S))
        motion_BT = context_BL.new_ones(len(context_BL), sum(lengths))
        return create_causal_mask(
            config,
            inputs_embeds=x_BTD,
            attention_mask=torch.cat([context_BL, motion_BT], 1),
            past_key_values=cache,
            block_sequence_ids=blocks_S.expand(len(context_BL), -1),
        )  # pyright: ignore[reportReturnType]


class _Written(DynamicLayer):
    """Takes down the keys and values that one layer of the context makes; what recomputation writes is ignored."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = False

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> KeysValues:
        if not self.taken:
            self.keys, self.values, self.is_initialized = key_states, value_states, True
        return key_states, value_states

    def take(self) -> KeysValues:
        assert self.keys is not None and self.values is not None
        taken, self.taken, self.keys, self.values = (self.keys, self.values), True, None, None
        return taken


class _Shown(DynamicLayer):
    """Shows one layer of the expert the keys and values of the context; nothing is added, so memory does not grow."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.keys, self.values, self.is_initialized = keys, values, True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> KeysValues:
        assert self.keys is not None and self.values is not None
        return torch.cat([self.keys, key_states], 2), torch.cat([self.values, value_states], 2)


class _LastLayer(nn.Module):
    """The last layer of the context, of which only keys and values are read. Its weights keep their names."""

    def __init__(self, layer: Any):
        super().__init__()
        self.input_layernorm = layer.input_layernorm
        self.self_attn = layer.self_attn
        del self.self_attn.q_proj, self.self_attn.o_proj

    def forward(
        self, x_BLE: Tensor, position_embeddings: tuple[Tensor, Tensor], past_key_values: Cache, **_: Any
    ) -> Tensor:
        attention: Any = self.self_attn
        normed_BLE = self.input_layernorm(x_BLE)
        keys, values = (
            projection(normed_BLE).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
            for projection in (attention.k_proj, attention.v_proj)
        )
        _, keys = apply_rotary_pos_emb(keys, keys, *position_embeddings)
        past_key_values.update(keys, values, attention.layer_idx)
        return x_BLE


def without_unread(pi0: PI0Model) -> PI0Model:
    """Takes out of a PI0Model, in place, what no result depends on: 372 of 3498 million parameters at full size."""
    context_without_unread(pi0.vlm)
    pi0.dit.embed_tokens = None  # the expert is given embeddings
    return pi0


def context_without_unread(vlm: Any) -> Any:
    """The same for its PaliGemmaModel: of the last layer only keys and values are read, of images only patches."""
    language, tower = vlm.language_model, vlm.vision_tower
    language.layers[-1] = _LastLayer(language.layers[-1])
    language.norm = nn.Identity()
    if getattr(tower, "use_head", False):
        tower.use_head = False
        del tower.head
    return vlm
