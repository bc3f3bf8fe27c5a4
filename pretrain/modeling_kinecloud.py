"""Kinecloud's predictor of hand and gripper motion, and the policy made from it. One file that stands alone.

It needs torch, transformers and numpy only; an exported policy carries a copy of it and loads with
``AutoModel.from_pretrained(folder, trust_remote_code=True)``.

The predictor reads one image, an instruction, the embodiment and P past clouds of points on the effector, and gives the
cloud at H later times. Geometry: camera frame of the "now" image, OpenCV axes (x right, y down, z forward), metres;
the centre of pixel (row r, column c) is at (u, v) = (c + 0.5, r + 0.5).

Shapes: B batch, P past clouds, N points, H horizons, S image side, D width, K actions in a chunk, A action dimensions,
Q proprioception dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils.generic import ModelOutput

UNKNOWN_EMBODIMENT = "unknown"
_TEXT_START, _TEXT_PAD = 256, 257


class KinecloudConfig(PretrainedConfig):
    """Sizes and meanings of inputs and outputs.

    past_times: seconds before now, ascending, the last is 0. horizons: seconds after now.
    embodiments: known names; any other shares the slot of the unknown. length_unit_m: the network works in this unit.
    For a policy: action_chunk (K), action_names, proprio_names, action_spec (what the numbers mean, free form).
    """

    model_type = "kinecloud"

    def __init__(
        self,
        image_size: int = 128,
        past_times: Sequence[float] = (-0.15, -0.10, -0.05, 0.0),
        horizons: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5),
        embodiments: Sequence[str] = ("human-hand", "sawyer-gripper"),
        width: int = 128,
        layers: int = 4,
        heads: int = 4,
        mlp_ratio: int = 3,
        slots: int = 8,
        text_tokens: int = 4,
        max_text_bytes: int = 128,
        length_unit_m: float = 0.1,
        action_chunk: int = 0,
        action_names: Sequence[str] = (),
        proprio_names: Sequence[str] = (),
        action_spec: dict[str, Any] | None = None,
        **kwargs: Any,
    ):
        self.image_size = image_size
        self.past_times = list(past_times)
        self.horizons = list(horizons)
        self.embodiments = list(embodiments)
        self.width, self.layers, self.heads, self.mlp_ratio = width, layers, heads, mlp_ratio
        self.slots, self.text_tokens, self.max_text_bytes = slots, text_tokens, max_text_bytes
        self.length_unit_m = length_unit_m
        self.action_chunk = action_chunk
        self.action_names, self.proprio_names = list(action_names), list(proprio_names)
        self.action_spec = action_spec
        super().__init__(**kwargs)


@dataclass
class KinecloudPrediction(ModelOutput):
    """points: f32 [B,H,N,3] metres. opening: f32 [B,H] metres. actions: f32 [B,K,A], normalised; policies only."""

    points: Tensor = None  # pyright: ignore[reportAssignmentType]  (ModelOutput wants defaults)
    opening: Tensor = None  # pyright: ignore[reportAssignmentType]
    actions: Tensor = None  # pyright: ignore[reportAssignmentType]


@dataclass
class _Geometry:
    """What is computed from clouds and camera before any weight is applied (lengths in the network's unit)."""

    centre_B3: Tensor  # centroid of the points seen now, metres
    offsets_BPN3: Tensor  # past clouds about that centroid
    velocity_B3: Tensor  # of the centroid, per second, least squares over the valid past
    path_BP3: Tensor  # past centroids about the present one
    extent_B3: Tensor  # standard deviation of the present cloud
    valid_BP: Tensor
    visible_BPN: Tensor
    opening_BP: Tensor
    opening_known_BP: Tensor


@dataclass
class _Encoded:
    """State between the stages of the predictor."""

    tokens_BTD: Tensor
    points_BND: Tensor
    geometry: _Geometry
    horizon_slice: slice


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width)

    def _split(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(
        self, query_BTD: Tensor, context_BLD: Tensor, mask_BL: Tensor | None = None, own: int | None = None
    ) -> Tensor:
        """own: the first ``own`` queries see only the first ``own`` context tokens, the rest see all of them."""
        q = self._split(self.query(query_BTD))
        k, v = (self._split(t) for t in self.key_value(context_BLD).chunk(2, -1))
        if own is not None:
            first = F.scaled_dot_product_attention(q[:, :, :own], k[:, :, :own], v[:, :, :own])
            mixed = torch.cat([first, F.scaled_dot_product_attention(q[:, :, own:], k, v)], 2)
        else:
            mask = None if mask_BL is None else mask_BL[:, None, None, :]
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.output(mixed.transpose(1, 2).flatten(2))


class _Block(nn.Module):
    """Pre-norm Transformer block (Xiong et al. 2020)."""

    def __init__(self, width: int, heads: int, mlp_ratio: int):
        super().__init__()
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = _Attention(width, heads)
        self.mlp = _mlp(width, mlp_ratio * width, width)

    def forward(self, x_BTD: Tensor, own: int | None = None) -> Tensor:
        normed_BTD = self.norm_attention(x_BTD)
        x_BTD = x_BTD + self.attention(normed_BTD, normed_BTD, own=own)
        return x_BTD + self.mlp(self.norm_mlp(x_BTD))


class _TextEncoder(nn.Module):
    """UTF-8 bytes -> a few tokens. Learned from scratch; the result does not depend on the padding."""

    def __init__(self, config: KinecloudConfig):
        super().__init__()
        width = config.width
        self.max_bytes = config.max_text_bytes
        self.bytes = nn.Embedding(258, width)
        self.positions = nn.Embedding(config.max_text_bytes + 1, width)
        self.near = nn.Conv1d(width, width, 5, padding=2)
        self.wide = nn.Conv1d(width, width, 5, padding=2)
        self.queries = nn.Parameter(torch.empty(config.text_tokens, width))
        self.pool = _Attention(width, config.heads)

    def forward(self, text: Sequence[str]) -> Tensor:
        device = self.queries.device
        codes = [[_TEXT_START, *line.strip().lower().encode()[: self.max_bytes]] for line in text]
        length = max(map(len, codes))
        ids_BL = torch.tensor([c + [_TEXT_PAD] * (length - len(c)) for c in codes], device=device)
        real_BL = ids_BL != _TEXT_PAD
        x_BLD = self.bytes(ids_BL) + self.positions.weight[:length]
        for layer in (self.near, self.wide):
            x_BDL = layer((x_BLD * real_BL[..., None]).transpose(1, 2))
            x_BLD = x_BLD + F.gelu(x_BDL.transpose(1, 2))
        return self.pool(self.queries.expand(len(codes), -1, -1), x_BLD, mask_BL=real_BL)


class _ImageEncoder(nn.Module):
    """Image -> (S/16)^2 tokens that know where they look, in rays and relative to the effector."""

    channels = (24, 48, 96)

    def __init__(self, config: KinecloudConfig):
        super().__init__()
        a, b, c = self.channels
        self.unit = config.length_unit_m
        self.side = config.image_size // 16
        self.to_2 = nn.Conv2d(3, a, 3, 2, 1)
        self.to_4 = nn.Conv2d(a, b, 3, 2, 1)
        self.to_8 = nn.Conv2d(b, c, 3, 2, 1)
        self.norm_8 = nn.GroupNorm(8, c)
        self.to_16 = nn.Conv2d(c, config.width, 3, 2, 1)
        self.place = nn.Linear(6 + 6 * 8, config.width)
        self.missing = nn.Parameter(torch.empty(config.width))

    def forward(
        self, image_B3SS: Tensor, intrinsics_B33: Tensor, centre_B3: Tensor, present_B: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Returns tokens [B,(S/16)^2,D] and the feature map at S/8 [B,C,S/8,S/8]; both ignore an absent image."""
        x = (image_B3SS.to(self.place.weight.dtype) / 255 - 0.5) / 0.25
        x = x.contiguous(memory_format=torch.channels_last)
        x = F.gelu(self.to_4(F.gelu(self.to_2(x))))
        eighth = F.gelu(self.norm_8(self.to_8(x))) * present_B[:, None, None, None]
        seen_BTD = self.to_16(eighth).flatten(2).transpose(1, 2)
        tokens_BTD = torch.where(present_B[:, None, None], seen_BTD, self.missing)
        return tokens_BTD + self.place(self._places(image_B3SS.shape[-1], intrinsics_B33, centre_B3)), eighth

    def _places(self, size: int, intrinsics_B33: Tensor, centre_B3: Tensor) -> Tensor:
        along = (torch.arange(self.side, device=centre_B3.device, dtype=centre_B3.dtype) + 0.5) * (size / self.side)
        pixel_T2 = torch.cartesian_prod(along, along).flip(-1)
        focal_B2 = torch.stack([intrinsics_B33[:, 0, 0], intrinsics_B33[:, 1, 1]], -1)
        ray_BT2 = (pixel_T2 - intrinsics_B33[:, None, :2, 2]) / focal_B2[:, None]
        depth_B11 = centre_B3[:, None, 2:].clamp(min=1e-3)
        from_effector_BT2 = ray_BT2 - centre_B3[:, None, :2] / depth_B11
        beside_BT2 = from_effector_BT2 * depth_B11 / self.unit  # offset if the patch were at the effector's depth
        place_BT6 = torch.cat([ray_BT2, from_effector_BT2, beside_BT2 / 4], -1)
        return torch.cat([place_BT6, _waves(place_BT6)], -1)


class KinecloudPredictor(PreTrainedModel):
    """Image, instruction, embodiment and past clouds -> future clouds and openings.

    Future cloud = present cloud, rotated about its centroid, moved by a gated constant velocity plus a learned
    translation, plus a small displacement per point. The learned parts start at zero, so training starts from a damped
    constant velocity. Points enter as a set and attend to nothing, so their number and order are free.
    """

    config_class = KinecloudConfig
    base_model_prefix = "predictor"
    main_input_name = "image"

    def __init__(self, config: KinecloudConfig):
        super().__init__(config)
        width, past, horizons = config.width, len(config.past_times), len(config.horizons)
        self.text = _TextEncoder(config)
        self.image = _ImageEncoder(config)
        self.embodiment = nn.Embedding(len(config.embodiments) + 1, width)
        self.situation = _mlp(10 + 9 * past, 2 * width, width)
        self.horizon_queries = nn.Parameter(torch.empty(horizons, width))
        self.point = _mlp(5 * past + 3 + _ImageEncoder.channels[-1], width, width)
        self.slots = nn.Parameter(torch.empty(config.slots, width))
        self.gather = _Attention(width, config.heads)
        self.blocks = nn.ModuleList(_Block(width, config.heads, config.mlp_ratio) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.motion = _zero(nn.Linear(width, 3 + 3 + 1 + 1))  # translation, rotation, velocity gate, opening
        self.point_norm = nn.LayerNorm(width)
        self.point_of = nn.Linear(width, width // 2)
        self.horizon_of = nn.Linear(width, width // 2)
        self.displacement = _zero(nn.Linear(width // 2, 3))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d)):
            if getattr(module, "starts_at_zero", False):
                nn.init.zeros_(module.weight)
            else:
                nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.5)
        elif isinstance(module, (nn.LayerNorm, nn.GroupNorm)):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        else:
            for parameter in module.parameters(recurse=False):  # learned tokens
                nn.init.normal_(parameter, std=0.5)

    def forward(
        self,
        image: Tensor,
        intrinsics: Tensor,
        past: Tensor,
        past_visible: Tensor,
        past_valid: Tensor,
        past_opening: Tensor,
        text: Sequence[str],
        embodiment: Sequence[str],
        image_present: Tensor | None = None,
        **unused: Any,
    ) -> KinecloudPrediction:
        """image: u8 [B,3,S,S] RGB. intrinsics: f32 [B,3,3], pixels of that image. past: f32 [B,P,N,3] metres.
        past_visible: bool [B,P,N]. past_valid: bool [B,P]. past_opening: f32 [B,P] metres, NaN = unknown.
        text, embodiment: B strings; empty text and unknown names are allowed. image_present: bool [B], default all.
        Other fields of a training window are ignored.
        """
        encoded = self.encode(
            image, intrinsics, past, past_visible, past_valid, past_opening, text, embodiment, image_present
        )
        return self.decode(encoded, self.think(encoded.tokens_BTD), past[:, -1])[0]

    def encode(
        self,
        image: Tensor,
        intrinsics: Tensor,
        past: Tensor,
        past_visible: Tensor,
        past_valid: Tensor,
        past_opening: Tensor,
        text: Sequence[str],
        embodiment: Sequence[str],
        image_present: Tensor | None = None,
    ) -> _Encoded:
        """Inputs -> tokens in the order situation, horizons, slots, text, image; and one token per point."""
        batch = len(past)
        if image_present is None:
            image_present = torch.ones(batch, dtype=torch.bool, device=past.device)
        geometry = self._geometry(past, past_visible, past_valid, past_opening)
        image_BTD, features = self.image(image, intrinsics, geometry.centre_B3, image_present)
        points_BND = self.point(self._point_features(geometry, features, intrinsics, past[:, -1], image.shape[-1]))
        names = {name: slot for slot, name in enumerate(self.config.embodiments, start=1)}
        slots_B = torch.tensor([names.get(name, 0) for name in embodiment], device=past.device)
        body_B1D = self.embodiment(slots_B)[:, None]
        situation_B1D = self.situation(self._situation(geometry, intrinsics, image.shape[-1]))[:, None] + body_B1D
        slots_BLD = self.slots.expand(batch, -1, -1)
        slots_BLD = slots_BLD + self.gather(slots_BLD, points_BND)
        horizons_BHD = self.horizon_queries + situation_B1D
        tokens_BTD = torch.cat([situation_B1D, horizons_BHD, slots_BLD, self.text(text), image_BTD], 1)
        return _Encoded(tokens_BTD, points_BND, geometry, slice(1, 1 + horizons_BHD.shape[1]))

    def think(self, tokens_BTD: Tensor, own: int | None = None) -> Tensor:
        """The trunk. Tokens after the first ``own`` see all tokens and are not seen by the first ``own``."""
        for block in self.blocks:
            tokens_BTD = block(tokens_BTD, own)
        return self.norm(tokens_BTD)

    def decode(self, encoded: _Encoded, tokens_BTD: Tensor, now_BN3: Tensor) -> tuple[KinecloudPrediction, Tensor]:
        """Trunk output -> prediction and its rigid plan [B,H,7]: translation, rotation, opening, in the length unit."""
        unit, geometry = self.config.length_unit_m, encoded.geometry
        horizon_BHD = tokens_BTD[:, encoded.horizon_slice]
        # positions are computed at full precision whatever autocast does to the network
        motion_BH8 = self.motion(horizon_BHD).to(now_BN3.dtype)
        translation_BH3, rotation_BH3, gate_BH1, opening_BH1 = motion_BH8.split([3, 3, 1, 1], -1)
        times_H1 = torch.tensor(self.config.horizons, device=now_BN3.device, dtype=now_BN3.dtype)[:, None]
        coasting_BH3 = torch.sigmoid(gate_BH1) * times_H1 * geometry.velocity_B3[:, None]
        translation_BH3 = translation_BH3 + coasting_BH3
        points_BN1D = self.point_of(self.point_norm(encoded.points_BND))
        hidden_BHND = F.gelu(points_BN1D[:, None] + self.horizon_of(horizon_BHD)[:, :, None])
        own_BHN3 = self.displacement(hidden_BHND).to(now_BN3.dtype)
        rotated_BHN3 = _transformed(rotation_matrix(rotation_BH3)[:, :, None], geometry.offsets_BPN3[:, None, -1])
        moved_BHN3 = rotated_BHN3 + translation_BH3[:, :, None] + own_BHN3
        points_BHN3 = geometry.centre_B3[:, None, None] + unit * moved_BHN3
        opening_BH = geometry.opening_BP[:, -1:] + opening_BH1[..., 0]
        plan_BH7 = torch.cat([translation_BH3, rotation_BH3, opening_BH[..., None]], -1)
        return KinecloudPrediction(points=points_BHN3, opening=unit * opening_BH), plan_BH7

    def _geometry(self, past: Tensor, visible: Tensor, valid: Tensor, opening: Tensor) -> _Geometry:
        unit = self.config.length_unit_m
        seen_BN1 = visible[:, -1, :, None].to(past.dtype)
        seen_BN1 = torch.where(seen_BN1.sum(1, keepdim=True) > 0, seen_BN1, torch.ones_like(seen_BN1))
        centres_BP3 = (past * seen_BN1[:, None]).sum(2) / seen_BN1.sum(1)[:, None]
        centre_B3 = centres_BP3[:, -1]
        past = torch.where(valid[..., None, None], past, past[:, -1:])  # what is not valid stands still
        path_BP3 = torch.where(valid[..., None], centres_BP3 - centre_B3[:, None], torch.zeros_like(centres_BP3)) / unit
        offsets_BPN3 = (past - centre_B3[:, None, None]) / unit
        weight_BP1 = valid[..., None].to(past.dtype)
        time_P1 = torch.tensor(self.config.past_times, device=past.device, dtype=past.dtype)[:, None]
        count_B11 = weight_BP1.sum(1, keepdim=True).clamp(min=1)
        time_BP1 = weight_BP1 * (time_P1 - (weight_BP1 * time_P1).sum(1, keepdim=True) / count_B11)
        velocity_B3 = (time_BP1 * path_BP3).sum(1) / time_BP1.square().sum(1).clamp(min=1e-6)
        spread_BN3 = offsets_BPN3[:, -1]
        extent_B3 = ((seen_BN1 * spread_BN3.square()).sum(1) / seen_BN1.sum(1)).clamp(min=1e-8).sqrt()
        known_BP = torch.isfinite(opening) & valid
        opening_BP = torch.where(known_BP, opening, torch.zeros_like(opening)) / unit
        return _Geometry(
            centre_B3, offsets_BPN3, velocity_B3, path_BP3, extent_B3, valid, visible, opening_BP, known_BP
        )

    def _situation(self, g: _Geometry, intrinsics_B33: Tensor, size: int) -> Tensor:
        depth_B1 = g.centre_B3[:, 2:].clamp(min=1e-3)
        focal_B2 = torch.stack([intrinsics_B33[:, 0, 0], intrinsics_B33[:, 1, 1]], -1)
        steps_BP3 = torch.diff(g.path_BP3, dim=1, prepend=torch.zeros_like(g.path_BP3[:, :1]))
        parts = [
            g.centre_B3[:, :2] / depth_B1, depth_B1.log(), size / focal_B2, g.extent_B3, 1 / depth_B1 / 4,
            g.path_BP3.flatten(1), 3 * steps_BP3.flatten(1), g.valid_BP, g.opening_BP, g.opening_known_BP,
            g.valid_BP.to(depth_B1.dtype).mean(1, keepdim=True),
        ]  # fmt: skip
        return torch.cat([part.to(depth_B1.dtype) for part in parts], -1)

    def _point_features(
        self, g: _Geometry, features: Tensor, intrinsics_B33: Tensor, now_BN3: Tensor, size: int
    ) -> Tensor:
        offsets_BN_P3 = g.offsets_BPN3.transpose(1, 2)
        relative_BN_P3 = offsets_BN_P3 - offsets_BN_P3[:, :, -1:]
        uvw_BN3 = _transformed(intrinsics_B33[:, None], now_BN3)
        grid_BN2 = uvw_BN3[..., :2] / uvw_BN3[..., 2:].clamp(min=1e-3) * (2 / size) - 1
        here_BNC = F.grid_sample(
            features, grid_BN2[:, :, None].clamp(-2, 2), padding_mode="border", align_corners=False
        )[..., 0].transpose(1, 2)
        parts = [
            offsets_BN_P3[:, :, -1], 3 * relative_BN_P3.flatten(2), g.visible_BPN.transpose(1, 2),
            (g.valid_BP[:, None].expand(-1, now_BN3.shape[1], -1)), here_BNC,
        ]  # fmt: skip
        return torch.cat([part.to(now_BN3.dtype) for part in parts], -1)


class KinecloudPolicy(PreTrainedModel):
    """The predictor with all its weights, plus new projections: proprioception in, a chunk of actions out.

    Proprioception and action queries are tokens of the same trunk that see everything and are seen by nothing, so the
    predicted clouds are exactly those of the predictor. Each action also reads the predicted motion itself, as an
    inverse-dynamics model would. Actions and proprioception are normalised so that their 1 % and 99 % quantiles are -1
    and 1; the quantiles are buffers of the model.
    """

    config_class = KinecloudConfig
    base_model_prefix = "policy"
    main_input_name = "image"

    def __init__(self, config: KinecloudConfig):
        super().__init__(config)
        width, actions, proprio = config.width, len(config.action_names), len(config.proprio_names)
        plan = 7 * len(config.horizons) + 4 * len(config.past_times) + proprio
        self.predictor = KinecloudPredictor(config)
        self.proprio_in = nn.Linear(proprio, width)
        self.action_queries = nn.Parameter(torch.empty(config.action_chunk, width))
        self.plan_in = _mlp(plan, 2 * width, width)
        self.action_mlp = _mlp(width, 2 * width, width)
        self.action_out = _zero(nn.Linear(width, actions))
        self.register_buffer("action_q01", torch.full((actions,), -1.0))
        self.register_buffer("action_q99", torch.full((actions,), 1.0))
        self.register_buffer("proprio_q01", torch.full((proprio,), -1.0))
        self.register_buffer("proprio_q99", torch.full((proprio,), 1.0))
        self.post_init()

    _init_weights = KinecloudPredictor._init_weights

    @classmethod
    def from_predictor(
        cls,
        predictor: KinecloudPredictor,
        *,
        action_chunk: int,
        action_names: Sequence[str],
        proprio_names: Sequence[str],
        action_quantiles: tuple[Any, Any],
        proprio_quantiles: tuple[Any, Any],
        action_spec: dict[str, Any] | None = None,
    ) -> KinecloudPolicy:
        """A policy that starts from a predictor; quantiles are pairs (1 %, 99 %) of [A] and [Q] physical values."""
        config = KinecloudConfig.from_dict(
            predictor.config.to_dict()
            | {
                "action_chunk": action_chunk,
                "action_names": list(action_names),
                "proprio_names": list(proprio_names),
                "action_spec": action_spec,
            }
        )
        policy = cls(config)
        policy.predictor.load_state_dict(predictor.state_dict())
        for name, values in (("action", action_quantiles), ("proprio", proprio_quantiles)):
            for quantile, value in zip(("q01", "q99"), values, strict=True):
                buffer = policy.get_buffer(f"{name}_{quantile}")
                buffer.copy_(torch.as_tensor(np.asarray(value), dtype=buffer.dtype).reshape(buffer.shape))
        return policy

    def forward(self, past: Tensor, proprio: Tensor, **window: Any) -> KinecloudPrediction:
        """A training window with ``proprio`` f32 [B,Q] in physical units; see KinecloudPredictor.forward."""
        inputs = {name: window[name] for name in _WINDOW_FIELDS if name in window}
        encoded = self.predictor.encode(past=past, **inputs)
        state_BQ = self.normalize(proprio, "proprio")
        own = encoded.tokens_BTD.shape[1]
        queries_BKD = self.action_queries + encoded.tokens_BTD[:, :1]
        extra_BED = torch.cat([self.proprio_in(state_BQ)[:, None], queries_BKD], 1)
        tokens_BTD = self.predictor.think(torch.cat([encoded.tokens_BTD, extra_BED], 1), own)
        prediction, plan_BH7 = self.predictor.decode(encoded, tokens_BTD[:, :own], past[:, -1])
        g = encoded.geometry
        plan_BF = torch.cat([plan_BH7.flatten(1), g.path_BP3.flatten(1), g.opening_BP, state_BQ], -1)
        action_BKD = tokens_BTD[:, own + 1 :] + self.plan_in(plan_BF)[:, None]
        prediction.actions = self.action_out(F.gelu(action_BKD + self.action_mlp(action_BKD)))
        return prediction

    def normalize(self, values: Tensor, kind: str) -> Tensor:
        """Physical -> normalised; kind is ``action`` or ``proprio``. A dimension that never varied gives 0."""
        low, high = self.get_buffer(f"{kind}_q01"), self.get_buffer(f"{kind}_q99")
        span = (high - low) / 2
        return torch.where(span > 1e-8, (values - (low + high) / 2) / span.clamp(min=1e-8), torch.zeros_like(values))

    def denormalize(self, values: Tensor, kind: str) -> Tensor:
        """Inverse of ``normalize``."""
        low, high = self.get_buffer(f"{kind}_q01"), self.get_buffer(f"{kind}_q99")
        return values * (high - low) / 2 + (low + high) / 2

    def act(self, *observation: Any, **more: Any) -> np.ndarray:
        """One observation -> the next K actions, f32 [K,A], in the physical units of ``config.action_spec``.

        Takes the arguments of ``predict`` and raises what it raises.
        """
        prediction = self.predict(*observation, **more)
        return self.denormalize(prediction.actions, "action")[0].float().cpu().numpy()

    @torch.no_grad()
    def predict(
        self,
        image_u8_HW3: np.ndarray,
        instruction: str,
        past_clouds_PN3: np.ndarray,
        past_valid: np.ndarray,
        intrinsics_33: np.ndarray,
        proprio: np.ndarray,
        embodiment: str,
        past_visible_PN: np.ndarray | None = None,
        past_opening_P: np.ndarray | None = None,
    ) -> KinecloudPrediction:
        """One observation -> predicted clouds, openings and normalised actions, with a batch dimension of 1.

        image_u8_HW3: u8 RGB of any size; intrinsics_33: its pixels. past_clouds_PN3: metres, camera frame of this
        image, at ``config.past_times``; past_valid: bool [P]. proprio: [Q] as ``config.proprio_names``, physical units.
        embodiment: one of ``config.embodiments``, or ``unknown``. past_visible_PN: default all. past_opening_P: metres,
        default unknown.
        Raises ValueError naming the argument that does not fit and what was expected.
        """
        image_u8_HW3, clouds = np.asarray(image_u8_HW3), np.asarray(past_clouds_PN3, np.float32)
        past = len(self.config.past_times)
        if past_visible_PN is None:
            past_visible_PN = np.ones(clouds.shape[:2], bool)
        if past_opening_P is None:
            past_opening_P = np.full(past, np.nan)
        if image_u8_HW3.dtype != np.uint8:
            raise ValueError(f"image_u8_HW3 has dtype {image_u8_HW3.dtype}; expected uint8, RGB from 0 to 255")
        _expect("image_u8_HW3", image_u8_HW3, (None, None, 3))
        _expect("past_clouds_PN3", clouds, (past, None, 3))
        _expect("past_valid", past_valid, (past,))
        _expect("past_visible_PN", past_visible_PN, clouds.shape[:2])
        _expect("past_opening_P", past_opening_P, (past,))
        _expect("intrinsics_33", intrinsics_33, (3, 3))
        _expect("proprio", proprio, (len(self.config.proprio_names),), f" ({', '.join(self.config.proprio_names)})")
        for name, values in (("past_clouds_PN3", clouds), ("proprio", proprio), ("intrinsics_33", intrinsics_33)):
            if not np.isfinite(np.asarray(values, np.float64)).all():
                raise ValueError(f"{name} holds values that are not finite; mark missing clouds in past_valid instead")
        known = [*self.config.embodiments, UNKNOWN_EMBODIMENT]
        if embodiment not in known:
            raise ValueError(f"embodiment is {embodiment!r}; this policy knows: {', '.join(known)}")
        image, intrinsics = letterbox(image_u8_HW3, np.asarray(intrinsics_33), self.config.image_size)

        def tensor(values: Any, dtype: torch.dtype) -> Tensor:
            return torch.as_tensor(np.ascontiguousarray(values), device=self.device).to(dtype)[None]

        return self(
            image=tensor(image.transpose(2, 0, 1), torch.uint8),
            intrinsics=tensor(intrinsics, torch.float32),
            past=tensor(clouds, torch.float32),
            past_visible=tensor(past_visible_PN, torch.bool),
            past_valid=tensor(past_valid, torch.bool),
            past_opening=tensor(past_opening_P, torch.float32),
            text=[instruction],
            embodiment=[embodiment],
            proprio=tensor(proprio, torch.float32),
        )


_WINDOW_FIELDS = (
    "image", "intrinsics", "past_visible", "past_valid", "past_opening", "text", "embodiment", "image_present",
)  # fmt: skip


def letterbox(image_u8_HW3: np.ndarray, intrinsics_33: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Scales an image so that its longer side is ``size`` and pads it centrally with black; intrinsics follow.

    The same bytes as the training loader, which resizes with Pillow. Returns u8 [size,size,3] and f32 [3,3].
    """
    height, width = image_u8_HW3.shape[:2]
    scale = size / max(height, width)
    new_width, new_height = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (size - new_width) // 2, (size - new_height) // 2
    resized = _resample_axis(_resample_axis(image_u8_HW3, 1, new_width), 0, new_height)
    square = np.zeros((size, size, 3), np.uint8)
    square[top : top + new_height, left : left + new_width] = resized
    square_from_image = np.array([[new_width / width, 0, left], [0, new_height / height, top], [0, 0, 1]])
    return square, (square_from_image @ intrinsics_33).astype(np.float32)


def _resample_axis(image_u8: np.ndarray, axis: int, size: int) -> np.ndarray:
    """Pillow's antialiased bilinear resize along one axis, in its fixed-point arithmetic (weights of 22 bits)."""
    length = image_u8.shape[axis]
    if length == size:
        return image_u8
    support = max(length / size, 1.0)
    weights = np.zeros((size, length))
    for out in range(size):
        centre = (out + 0.5) * length / size
        first, last = max(int(centre - support + 0.5), 0), min(int(centre + support + 0.5), length)
        kernel = np.maximum(1 - np.abs((np.arange(first, last) - centre + 0.5) / support), 0)
        weights[out, first:last] = np.floor(kernel / kernel.sum() * (1 << 22) + 0.5)
    sums = np.tensordot(weights, image_u8.astype(np.float64), (1, axis))  # integers below 2^53: exact
    values = np.clip(np.floor((sums + (1 << 21)) / (1 << 22)), 0, 255).astype(np.uint8)
    return np.moveaxis(values, 0, axis)


def rotation_matrix(rotation_3: Tensor) -> Tensor:
    """Rotation vectors [...,3] (radians) -> matrices [...,3,3], by Rodrigues' formula; smooth at zero."""
    square = rotation_3.square().sum(-1)[..., None, None]
    angle = square.clamp(min=1e-8).sqrt()
    small = square < 1e-6
    first = torch.where(small, 1 - square / 6, angle.sin() / angle)
    second = torch.where(small, 0.5 - square / 24, (1 - angle.cos()) / angle.square())
    x, y, z = rotation_3.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    eye = torch.eye(3, dtype=rotation_3.dtype, device=rotation_3.device)
    cross_twice = (
        rotation_3[..., :, None] * rotation_3[..., None, :] - rotation_3.square().sum(-1)[..., None, None] * eye
    )
    return eye + first * cross + second * cross_twice


def _transformed(matrix_33: Tensor, points_3: Tensor) -> Tensor:
    """[...,3,3] times [...,3], without the reduced precision that a matrix product may have."""
    return (matrix_33 * points_3[..., None, :]).sum(-1)


def _waves(x: Tensor) -> Tensor:
    """[...,C] -> [...,8C]: sine and cosine at four octaves."""
    octaves = math.pi * 2.0 ** torch.arange(4, device=x.device, dtype=x.dtype)
    angles = (x[..., None] * octaves).flatten(-2)
    return torch.cat([angles.sin(), angles.cos()], -1)


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs))


def _zero(layer: nn.Linear) -> nn.Linear:
    layer.starts_at_zero = True  # pyright: ignore[reportArgumentType]
    return layer


def _expect(name: str, value: Any, shape: tuple[int | None, ...], meaning: str = "") -> None:
    found = np.shape(value)
    if len(found) != len(shape) or any(want not in (None, got) for want, got in zip(shape, found, strict=True)):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{name} has shape {list(found)}; expected [{wanted}]{meaning}")
