"""Sizes and meanings of the predictor and of a policy made from it; travels in config.json.

The files of this folder need torch, transformers and numpy only and import each other relatively: an exported policy
carries a copy of them and loads with ``AutoModel.from_pretrained(folder, trust_remote_code=True)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PretrainedConfig

UNKNOWN_EMBODIMENT = "unknown"


class KinecloudConfig(PretrainedConfig):
    """past_times: seconds before now, ascending, the last is 0. horizons: seconds after now.
    embodiments: known names; any other shares the slot of the unknown. length_unit_m: the network works in this unit.
    dimensions: 3, or 2 for a predictor that sees and moves points in the image plane only.
    generative: future clouds are sampled by flow matching instead of regressed; delta_scale: then the typical
    displacement at each horizon in length units, with which the noise is mixed.
    latent_action: the future passes through a discrete code (see latent.py).
    waypoints: how many places where the effector will be, whenever that is, are found in the picture and lead the
    predicted motion; 0 = none. scene: what the picture shows, see ``WindowConfig.scene``; depth: it comes with measured
    depth. blind: the picture is never looked at.
    objective: settings of the loss that it was trained with, by name.

    vision, text: configurations of transformers models in the place of the small encoders (any that AutoModel makes);
    vision_size: pixels of the side that the vision model sees, 0 = its own. pixel_mean, pixel_std: how it wants them.
    mixture: configuration of transformers' PI0Model; the context is
    then PaliGemma and the predictor its expert, and width, layers, heads, vision and text are those of the mixture.

    For a policy: action_chunk (K), action_names, proprio_names, action_spec (what the numbers mean, free form); head:
    one of those that heads.py names, remembered: recorded windows that ``inverse_dynamics`` compares with; separate:
    a direct head thinks with a trunk of its own and has of the predictor its predictions alone; asks_as: embodiment as
    which the predictor is asked (borrowed.py), default the one that an observation tells.
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
        max_text_tokens: int = 48,
        length_unit_m: float = 0.1,
        dimensions: int = 3,
        generative: bool = False,
        flow_steps: int = 10,
        delta_scale: Sequence[float] | None = None,
        latent_action: bool = False,
        waypoints: int = 0,
        scene: str = "none",
        depth: bool = False,
        blind: bool = False,
        objective: dict[str, float | None] | None = None,
        vision: dict[str, Any] | None = None,
        text: dict[str, Any] | None = None,
        vision_size: int = 0,
        pixel_mean: Sequence[float] = (0.5, 0.5, 0.5),
        pixel_std: Sequence[float] = (0.5, 0.5, 0.5),
        mixture: dict[str, Any] | None = None,
        action_chunk: int = 0,
        action_names: Sequence[str] = (),
        proprio_names: Sequence[str] = (),
        action_spec: dict[str, Any] | None = None,
        head: str = "direct",
        remembered: int = 0,
        separate: bool = False,
        asks_as: str | None = None,
        **kwargs: Any,
    ):
        self.image_size = image_size
        self.past_times = list(past_times)
        self.horizons = list(horizons)
        self.embodiments = list(embodiments)
        self.width, self.layers, self.heads, self.mlp_ratio = width, layers, heads, mlp_ratio
        self.slots, self.text_tokens, self.max_text_bytes = slots, text_tokens, max_text_bytes
        self.max_text_tokens = max_text_tokens
        self.length_unit_m = length_unit_m
        self.dimensions = dimensions
        self.generative, self.flow_steps = generative, flow_steps
        self.delta_scale = [1.0] * len(self.horizons) if delta_scale is None else list(delta_scale)
        self.latent_action = latent_action
        self.waypoints, self.scene, self.depth, self.blind = waypoints, scene, depth, blind
        self.objective = objective or {}
        self.vision, self.text, self.mixture = vision, text, mixture
        self.vision_size = vision_size
        self.pixel_mean, self.pixel_std = list(pixel_mean), list(pixel_std)
        self.action_chunk = action_chunk
        self.action_names, self.proprio_names = list(action_names), list(proprio_names)
        self.action_spec = action_spec
        self.head, self.remembered, self.separate, self.asks_as = head, remembered, separate, asks_as
        super().__init__(**kwargs)
