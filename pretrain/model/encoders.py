"""Encoders of image and instruction: small ones that learn from scratch, and any that transformers has.

Shapes: B batch, S image side, T image tokens, L text tokens, D width of the trunk, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn
from transformers import MODEL_MAPPING, AutoConfig

from .configuration_kinecloud import KinecloudConfig
from .geometry import CloudGeometry, place_size
from .layers import Attention, zero

_TEXT_START, _TEXT_PAD = 256, 257


class SmallVision(nn.Module):
    """A few convolutions: (S/16)^2 tokens that know where they look, in rays and relative to the effector. They see the
    picture and how it differs from its surroundings: small things need not stand out from what is far away.

    A predictor that points into the picture gets a finer map of features, in which coarse ones are brought back up, and
    looks at the picture with the instruction in mind (feature-wise modulation, Perez et al. 2018).
    """

    stages = (24, 48, 96)
    fine = 64

    def __init__(self, config: KinecloudConfig):
        super().__init__()
        a, b, c = self.stages
        self.points, self.relief = config.waypoints > 0, config.depth
        self.channels = self.fine if self.points else c
        self.to_2 = nn.Conv2d(6 + 3 * config.depth, a, 3, 2, 1)
        self.to_4 = nn.Conv2d(a, b, 3, 2, 1)
        self.to_8 = nn.Conv2d(b, c, 3, 2, 1)
        self.norm_8 = nn.GroupNorm(8, c)
        self.more_4, self.more_8 = Residual(b), Residual(c)
        self.to_16 = nn.Conv2d(c, config.width, 3, 2, 1)
        self.place = nn.Linear(place_size(config), config.width)
        self.missing = nn.Parameter(torch.empty(config.width))
        if self.points:
            self.told = zero(nn.Linear(config.width, 2 * c))
            self.up = nn.ModuleList(nn.Conv2d(channels, self.fine, 1) for channels in (b, c, config.width))
            self.mix, self.norm_fine = nn.Conv2d(self.fine, self.fine, 3, 1, 1), nn.GroupNorm(8, self.fine)

    def forward(
        self, image_B3SS: Tensor, present_B: Tensor, geometry: CloudGeometry, gist_BD: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Tokens [B,T,D] and the feature map, [B,C,S/4,S/4] to point into, else [B,C,S/8,S/8]; both ignore an absent
        image. gist_BD: of the instruction."""
        x = (image_B3SS.to(self.place.weight.dtype) / 255 - 0.5) / 0.25
        x = torch.cat([x, contrast(x)], 1)
        if self.relief:
            assert geometry.depth_BSS is not None
            x = torch.cat([x, relief(geometry.depth_BSS).to(x)], 1)
        x = x.contiguous(memory_format=torch.channels_last)
        quarter = self.more_4(F.gelu(self.to_4(F.gelu(self.to_2(x)))))
        present_B111 = present_B[:, None, None, None]
        eighth = self.norm_8(self.to_8(quarter))
        if self.points and gist_BD is not None:
            gain_BC, bias_BC = self.told(gist_BD).chunk(2, -1)
            eighth = eighth * (1 + gain_BC[..., None, None]) + bias_BC[..., None, None]
        eighth = self.more_8(F.gelu(eighth)) * present_B111
        sixteenth = self.to_16(eighth)
        tokens_BTD = torch.where(present_B[:, None, None], sixteenth.flatten(2).transpose(1, 2), self.missing)
        rows, columns = sixteenth.shape[2:]
        places = geometry.patch_places(rows, columns, image_B3SS.shape[-1])
        features = self._fine(quarter, eighth, sixteenth) * present_B111 if self.points else eighth
        return tokens_BTD + self.place(places), features

    def _fine(self, *maps: Tensor) -> Tensor:
        quarter, *coarse = (up(x) for up, x in zip(self.up, maps, strict=True))
        for number, x in enumerate(coarse, start=1):
            quarter = quarter + F.interpolate(x, scale_factor=2.0**number)
        return F.gelu(self.norm_fine(self.mix(F.gelu(quarter))))


class Residual(nn.Module):
    """Two convolutions on top of what is there (He et al. 2016)."""

    def __init__(self, channels: int):
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3, 1, 1) for _ in range(2))
        self.norm_first, self.norm_second = (nn.GroupNorm(8, channels) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x + self.norm_second(self.second(F.gelu(self.norm_first(self.first(x))))))


def contrast(x_B3SS: Tensor) -> Tensor:
    """How a picture differs from its surroundings (a sixteenth of its side), whatever the light; about 1."""
    side = max(1, x_B3SS.shape[-1] // 16)
    mean, square = F.avg_pool2d(x_B3SS, side), F.avg_pool2d(x_B3SS.square(), side)
    spread = (square - mean.square()).clamp(min=0).mean(1, keepdim=True).add(0.02**2).sqrt()
    around = F.interpolate(torch.cat([mean, spread], 1), x_B3SS.shape[2:], mode="bilinear")
    return ((x_B3SS - around[:, :3]) / around[:, 3:]).clamp(-3, 3)


def relief(depth_BSS: Tensor) -> Tensor:
    """What depth adds to a picture, wherever it was taken from: slopes across and down, at most 5 cm between the pixels
    on either side, and where depth is unknown; [B,3,S,S], about 1."""
    across = F.pad(depth_BSS[:, :, 2:] - depth_BSS[:, :, :-2], (1, 1))
    down = F.pad(depth_BSS[:, 2:] - depth_BSS[:, :-2], (0, 0, 1, 1))
    slopes = [slope.clamp(-0.05, 0.05) * 40 for slope in (across, down)]
    return torch.stack([*slopes, (depth_BSS <= 0).to(depth_BSS.dtype)], 1)


def encoder_class(config: Any) -> Any:
    """The bare model of a configuration, or None. AutoModel's mapping leaves out some towers, as SigLIP's for text."""
    name = type(config).__name__.removesuffix("Config") + "Model"
    return MODEL_MAPPING.get(type(config), getattr(transformers, name, None))


def made_of(values: dict[str, Any]) -> Any:
    """A model with random weights from its configuration as JSON values."""
    config = AutoConfig.for_model(**values)
    found = encoder_class(config)
    assert found is not None, values["model_type"]
    return found(config)


class PretrainedVision(nn.Module):
    """A vision Transformer of transformers (SigLIP, DINOv2, ...): its patches, told where they look."""

    def __init__(self, config: KinecloudConfig):
        super().__init__()
        assert config.vision is not None
        self.model = made_of(config.vision)
        self.side: int = config.vision_size or self.model.config.image_size
        self.pixels = list(zip(config.pixel_mean, config.pixel_std, strict=True))
        self.channels: int = self.model.config.hidden_size
        self.project = nn.Linear(self.channels, config.width)
        self.place = zero(nn.Linear(place_size(config), config.width))
        self.missing = nn.Parameter(torch.empty(config.width))

    def forward(
        self, image_B3SS: Tensor, present_B: Tensor, geometry: CloudGeometry, gist_BD: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Tokens [B,T,D] and the patches as a map [B,C,h,w]; both ignore an absent image."""
        found_BTC = self.model(pixel_values=prepared(image_B3SS, self.side, self.pixels)).last_hidden_state
        rows = self.side // self.model.config.patch_size
        patches_BTC = found_BTC[:, found_BTC.shape[1] - rows * rows :]  # class and register tokens come first
        tokens_BTD = torch.where(present_B[:, None, None], self.project(patches_BTC), self.missing)
        places = geometry.patch_places(rows, rows, image_B3SS.shape[-1])
        features = patches_BTC.transpose(1, 2).unflatten(2, (rows, rows)) * present_B[:, None, None, None]
        return tokens_BTD + self.place(places), features


def prepared(image_B3SS: Tensor, side: int, pixels: Sequence[tuple[float, float]]) -> Tensor:
    """u8 RGB -> f32 [B,3,side,side] as a pretrained vision model wants it. pixels: mean and standard deviation per
    channel, of values from 0 to 1."""
    image = image_B3SS.to(torch.float32)
    if image.shape[-1] != side:
        image = F.interpolate(image, size=(side, side), mode="bilinear", antialias=True)
    channels = [(image[:, c] / 255 - mean) / std for c, (mean, std) in enumerate(pixels)]
    return torch.stack(channels, 1)


class ByteText(nn.Module):
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
        self.pool = Attention(width, config.heads)

    def forward(self, text: Sequence[str] | Tensor) -> Tensor:
        """[B,L,D]. text: lines, or what ``ids`` makes of them."""
        if isinstance(text, Tensor):
            return self.read(text)
        lines, places_B = _distinct(text)
        device = self.queries.device
        return self.read(self.ids(lines).to(device))[places_B.to(device)]

    def ids(self, lines: Sequence[str]) -> Tensor:
        """i64 [B,L], padded."""
        codes = [[_TEXT_START, *line.strip().lower().encode()[: self.max_bytes]] for line in lines]
        length = max(map(len, codes))
        return torch.tensor([c + [_TEXT_PAD] * (length - len(c)) for c in codes])

    def read(self, ids_BL: Tensor) -> Tensor:
        """[B,L,D]"""
        real_BL = ids_BL != _TEXT_PAD
        x_BLD = self.bytes(ids_BL) + self.positions.weight[: ids_BL.shape[1]]
        for layer in (self.near, self.wide):
            x_BDL = layer((x_BLD * real_BL[..., None]).transpose(1, 2))
            x_BLD = x_BLD + F.gelu(x_BDL.transpose(1, 2))
        return self.pool(self.queries.expand(len(ids_BL), -1, -1), x_BLD, mask_BL=real_BL)


class PretrainedText(nn.Module):
    """A text encoder of transformers (MiniLM, BERT, SigLIP's, ...) whose token states are pooled to a few tokens."""

    def __init__(self, config: KinecloudConfig):
        super().__init__()
        assert config.text is not None
        self.model = made_of(config.text)
        self.max_tokens = config.max_text_tokens
        self.project = nn.Linear(self.model.config.hidden_size, config.width)
        self.queries = nn.Parameter(torch.empty(config.text_tokens, config.width))
        self.pool = Attention(config.width, config.heads)
        self.tokenizer: Any = None  # given by the model that holds this encoder

    def forward(self, text: Sequence[str] | Tensor) -> Tensor:
        """[B,L,D]. text: lines, or their ids, i64 [B,L], none of them padding."""
        if isinstance(text, Tensor):
            return self.read(text, torch.ones_like(text))
        lines, places_B = _distinct(text)
        device = self.queries.device
        coded = self.tokenizer(
            lines, padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt",
            return_attention_mask=True,
        ).to(device)  # fmt: skip
        return self.read(coded["input_ids"], coded["attention_mask"])[places_B.to(device)]

    def read(self, ids_BL: Tensor, real_BL: Tensor) -> Tensor:
        """[B,L,D]"""
        states = self.model(input_ids=ids_BL, attention_mask=real_BL).last_hidden_state
        return self.pool(self.queries.expand(len(ids_BL), -1, -1), self.project(states), mask_BL=real_BL.bool())


def _distinct(text: Sequence[str]) -> tuple[list[str], Tensor]:
    """The different instructions of a batch, which are few, and for each window the place of its own, i64 [B]."""
    lines = list(dict.fromkeys(text))
    return lines, torch.tensor([lines.index(line) for line in text])
