"""A pretrained predictor as a feature extractor for other people's policies.

Shapes: B batch, L context tokens, H horizons, N points, W waypoints, D width, C image features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data.config import WindowConfig
from pretrain.model.modeling_kinecloud import KinecloudPredictor
from pretrain.prediction import PRESENT


@dataclass(frozen=True)
class Features:
    """What the predictor makes of a batch of windows. Metres, camera frame of the present image.

    context_BLD: tokens of instruction and image as the trunk is given them; None for the family ``full``, which keeps
    keys and values instead. image_BChw: the map of image features. motion_BHD: the tokens that future motion is read
    from, one per horizon. points_BHN3, grasp_BH3, opening_BH: the future. waypoints_BW4: places ahead and the openings
    there, or None.
    """

    context_BLD: Tensor | None
    image_BChw: Tensor
    motion_BHD: Tensor
    points_BHN3: Tensor
    grasp_BH3: Tensor
    opening_BH: Tensor
    waypoints_BW4: Tensor | None


class DynamicsPredictor(nn.Module):
    """A predictor whose thoughts other policies learn from. width: D.

    Frozen unless ``trainable``: in evaluation whatever ``train`` says, and without gradients.
    """

    def __init__(self, predictor: KinecloudPredictor, trainable: bool = False):
        super().__init__()
        self.trainable = trainable
        self.predictor = predictor.requires_grad_(trainable)
        self.width: int = predictor.trunk.width
        self.train(trainable)

    @classmethod
    def from_pretrained(
        cls, place: Path | str, trainable: bool = False, expect: Mapping[str, Any] | None = None
    ) -> DynamicsPredictor:
        """From a folder (RUN/pretrain/model) or a hub id. expect: values that config.json must hold, such as
        {"scene": "depth", "past_times": [-0.15, -0.1, -0.05, 0.0]}.

        Raises ValueError telling both sides of a value that differs.
        """
        made = cls(KinecloudPredictor.from_pretrained(place), trainable)
        told = made.predictor.config.to_dict()
        for name, value in (expect or {}).items():
            if name not in told:
                raise ValueError(f"{place}: config.json tells no {name}; you expect {value!r}")
            if told[name] != (list(value) if isinstance(value, tuple) else value):
                raise ValueError(f"{place}: {name} is {told[name]!r}; you expect {value!r}")
        return made

    def window(self, **more: Any) -> WindowConfig:
        """How ``data.loader.WindowDataset`` is to cut windows that fit. more: points, waypoint_m, action_chunk."""
        config = self.predictor.config
        return WindowConfig(
            past_s=config.past_times,
            horizons_s=config.horizons,
            image_size=config.image_size,
            scene=config.scene,
            **more,
        )

    def train(self, mode: bool = True) -> DynamicsPredictor:
        """Keeps a frozen predictor as it is."""
        return super().train(mode and self.trainable)

    def forward(self, window: Mapping[str, Any]) -> Features:
        """window: a batch as the loader makes it, or the arguments of ``KinecloudPredictor.forward`` by name. What it
        tells of the future is not read. A generative predictor samples one future, by ``window["seed"]``.

        Raises ValueError telling both sides where the window is not of the kind that the predictor learned from.
        """
        self._check(window)
        model, device = self.predictor, self.predictor.device
        seen = {name: window[name] for name in PRESENT if name in window}
        seen = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in seen.items()}
        seed, read = seen.pop("seed", None), []
        with torch.set_grad_enabled(self.trainable and torch.is_grad_enabled()):
            observed = model.observe(**seen)
            noised, tau = model.arrived(observed, seed)
            hook = model.motion.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
            try:
                prediction, _ = model.estimate(observed, noised, tau)
            finally:
                hook.remove()
        tokens = observed.context.tokens
        return Features(
            context_BLD=tokens if isinstance(tokens, Tensor) else None,
            image_BChw=observed.context.features_BCHW,
            motion_BHD=read[0],
            points_BHN3=prediction.points,
            grasp_BH3=prediction.grasp,
            opening_BH=prediction.opening,
            waypoints_BW4=prediction.waypoints,
        )

    def _check(self, window: Mapping[str, Any]) -> None:
        config = self.predictor.config
        for name, axis, wanted in (("image", -1, config.image_size), ("past", 1, len(config.past_times))):
            if window[name].shape[axis] != wanted:
                shape = list(window[name].shape)
                raise ValueError(f"{name} has shape {shape}; this predictor learned from {wanted} along axis {axis}")
        if config.depth and "depth" not in window:
            raise ValueError("depth is missing; this predictor learned from pictures with depth (config.depth)")
