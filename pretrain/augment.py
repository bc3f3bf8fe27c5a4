"""Random changes of training windows that keep them true, and inputs withheld so that none is relied upon alone.

Shapes: B windows, P past times, N points, S image side. What a window gets depends on its own random numbers only.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pretrain.appearance import disturbed, strength
from pretrain.config import AugmentSettings
from pretrain.model.configuration_kinecloud import UNKNOWN_EMBODIMENT
from pretrain.randomness import WindowRandom
from pretrain.viewpoint import about_z, change_camera, cropped, images_of, mirror, scale, zoomed


def augment(
    window: dict[str, Any], settings: AugmentSettings, random: WindowRandom, progress: float = 1.0
) -> dict[str, Any]:
    """A changed copy of a batch of windows, as ``random`` says. progress: share of the training that is done.

    Raises ValueError when windows with actions are to be mirrored or scaled: their actions would no longer be true.
    """
    if "actions" in window and (settings.flip or settings.scale):
        raise ValueError("augment.flip and augment.scale do not change actions; labelled windows do without them")
    window = dict(window)
    kinds = {name: window[name].dtype for name in images_of(window)}
    _change_view(window, settings, random)
    _change_look(window, settings, random, progress)
    for name, kind in kinds.items():
        if window[name].dtype != kind:  # only once: rounding takes as long as the changes
            window[name] = window[name].round_().clamp_(0, 255).to(kind)
    _blur_past(window, settings, random)
    _withhold(window, settings, random)
    return window


def _change_view(window: dict[str, Any], settings: AugmentSettings, random: WindowRandom) -> None:
    like, size = window["past"], window["image"].shape[-1]
    if settings.flip:
        mirror(window, (random.uniform(0, 1) < settings.flip).to(like.device))
    if settings.roll_deg or settings.zoom or settings.shift or settings.crop < 1:
        roll_B = random.uniform(-settings.roll_deg, settings.roll_deg).to(like) * (math.pi / 180)
        zoom_B = random.uniform(1 - settings.zoom, 1 + settings.zoom).to(like)
        shift_B2 = random.uniform(-settings.shift, settings.shift, 2).to(like) * size
        camera_B33 = zoomed(window["intrinsics"], zoom_B, shift_B2)
        if settings.crop < 1:
            keep_B3 = (about_z(roll_B) * window["past"][:, -1].mean(1)[:, None]).sum(-1)
            side_B, place_B2 = random.uniform(settings.crop, 1).to(like), random.uniform(0, 1, 2).to(like)
            camera_B33 = cropped(camera_B33, size, keep_B3, side_B, place_B2)
        for name in images_of(window):
            window[name] = window[name].float()
        change_camera(window, roll_B, camera_B33)
    if settings.scale:
        most = math.log(1 + settings.scale)
        scale(window, random.uniform(-most, most).exp().to(like))


def _change_look(window: dict[str, Any], settings: AugmentSettings, random: WindowRandom, progress: float) -> None:
    if settings.color:
        low, high = 1 - settings.color, 1 + settings.color
        gain_B3 = (random.uniform(low, high, 3) * random.uniform(low, high, 1)).to(window["past"].device)
        for name in images_of(window):
            window[name] = window[name].float() * gain_B3[..., None, None]
    amount = strength(settings.appearance, progress) if settings.appearance is not None else 0.0
    if settings.appearance is not None and amount > 0:
        window["image"] = disturbed(window["image"].float(), settings.appearance, amount, random)


def _blur_past(window: dict[str, Any], settings: AugmentSettings, random: WindowRandom) -> None:
    """Past clouds as a worse extraction, or a policy that has strayed, would have them; the future stays as it is."""
    offset_B3 = torch.zeros_like(window["past"][:, 0, 0])
    if settings.past_offset_m:
        offset_B3 = _across(window, settings.past_offset_m * random.normal(3).to(offset_B3), settings.past_offset_m)
    if settings.past_slow:
        slowed_B = random.uniform(0, 1) < settings.past_slow
        pace_B = torch.where(slowed_B, random.uniform(0, 1), torch.ones(())).to(window["past"])
        for name in (name for name in ("past", "past_grasp") if name in window):
            now = window[name][:, -1:]
            window[name] = now + pace_B.reshape(-1, *[1] * (now.ndim - 1)) * (window[name] - now)
    past_BPN3: Tensor = window["past"] + offset_B3[:, None, None]
    if "past_grasp" in window:
        window["past_grasp"] = window["past_grasp"] + offset_B3[:, None]
    if settings.past_jitter_m:
        past_BPN3 = past_BPN3 + settings.past_jitter_m * random.normal(*past_BPN3.shape[1:]).to(past_BPN3)
    window["past"] = past_BPN3


def _across(window: dict[str, Any], offset_B3: Tensor, size_m: float) -> Tensor:
    """The offset without its part along the motion, which would be earlier or later on the same path and only blur
    where a motion turns. Motion that is small beside ``size_m`` counts as rest."""
    before_B3, after_B3 = window["past"][:, -2:][:, 0].mean(1), window["future"][:, 0].mean(1)
    moved_B3 = torch.where(window["future_valid"][:, :1], after_B3 - before_B3, 0.0)
    along_B1 = (offset_B3 * moved_B3).sum(-1, keepdim=True) / (moved_B3.square().sum(-1, keepdim=True) + size_m**2)
    return offset_B3 - along_B1 * moved_B3


def _withhold(window: dict[str, Any], settings: AugmentSettings, random: WindowRandom) -> None:
    """Leaves no trace of what is withheld."""
    device = window["past"].device

    def drawn(share: float) -> Tensor:
        return random.uniform(0, 1) < share

    dropped_B = drawn(settings.drop_image).to(device)
    window["image_present"] = ~dropped_B
    if settings.drop_image:
        window["image"] = window["image"] * window["image_present"][:, None, None, None]
        if "depth" in window:
            window["depth"] = window["depth"] * window["image_present"][:, None, None]
    for field, share, empty in (
        ("text", settings.drop_text, ""),
        ("embodiment", settings.drop_embodiment, UNKNOWN_EMBODIMENT),
    ):
        dropped = drawn(share).tolist()
        window[field] = [empty if drop else value for value, drop in zip(window[field], dropped, strict=True)]
    if settings.drop_history:
        dropped_B = drawn(settings.drop_history).to(device)
        history = ("past", "past_visible", "past_opening", "past_grasp")
        for field in (name for name in history if name in window):  # as at the first frame of a clip
            now = window[field][:, -1:].expand_as(window[field])
            window[field] = torch.where(dropped_B.reshape(-1, *[1] * (now.ndim - 1)), now, window[field])
        before_P = torch.arange(window["past_valid"].shape[1], device=device) < window["past_valid"].shape[1] - 1
        window["past_valid"] = window["past_valid"] & ~(dropped_B[:, None] & before_P)
    if settings.drop_opening:
        dropped_B = drawn(settings.drop_opening).to(device)
        window["past_opening"] = window["past_opening"].masked_fill(dropped_B[:, None], float("nan"))
