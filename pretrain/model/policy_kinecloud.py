"""The policy made from a predictor: a head that gives actions, all its weights kept.

Shapes: B batch, P past clouds, N points, H horizons, D width, K actions in a chunk, A action dimensions,
Q proprioception dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from .borrowed import Borrowed
from .configuration_kinecloud import UNKNOWN_EMBODIMENT, KinecloudConfig
from .direct import DirectHead
from .heads import head_of
from .layers import init_weights
from .modeling_kinecloud import KinecloudPrediction, KinecloudPredictor
from .observation import Wanted, prepared
from .tokenizer import Tokenizing


@dataclass
class PolicyPrediction(KinecloudPrediction):
    """What a policy predicts. action_logits: f32 [B,K,A,C], one per bin of an action; policies with bins only."""

    action_logits: Tensor | None = None


class KinecloudPolicy(Tokenizing, PreTrainedModel):
    """The predictor with all its weights, plus a head (heads.py): proprioception in, a chunk of actions out.

    Actions and proprioception are normalised so that their 1 % and 99 % quantiles are -1 and 1; the quantiles are
    buffers of the model.
    """

    config_class = KinecloudConfig
    base_model_prefix = "policy"
    main_input_name = "image"

    def __init__(self, config: KinecloudConfig):
        super().__init__(config)
        self.predictor = KinecloudPredictor(config)
        self.own = KinecloudPredictor(config) if config.separate else None
        actions, proprio = len(config.action_names), len(config.proprio_names)
        self.head = head_of(config, self.predictor.trunk.width)
        self.register_buffer("action_q01", torch.full((actions,), -1.0))
        self.register_buffer("action_q99", torch.full((actions,), 1.0))
        self.register_buffer("proprio_q01", torch.full((proprio,), -1.0))
        self.register_buffer("proprio_q99", torch.full((proprio,), 1.0))
        if config.asks_as is not None:
            self.register_buffer("offset", torch.zeros(3))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        init_weights(module)

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
        head: str = "direct",
        remembered: int = 0,
        separate: bool = False,
        asks_as: str | None = None,
        offset_m: Sequence[float] = (0.0, 0.0, 0.0),
    ) -> KinecloudPolicy:
        """A policy that starts from a predictor; quantiles are pairs (1 %, 99 %) of [A] and [Q] physical values. head,
        remembered, separate, asks_as: see KinecloudConfig. offset_m: of a policy that asks as another embodiment, see
        Borrowed."""
        config = KinecloudConfig.from_dict(
            predictor.config.to_dict()
            | {
                "action_chunk": action_chunk,
                "action_names": list(action_names),
                "proprio_names": list(proprio_names),
                "action_spec": action_spec,
                "head": head,
                "remembered": remembered,
                "separate": separate,
                "asks_as": asks_as,
            }
        )
        policy = cls(config)
        policy.predictor.load_state_dict(predictor.state_dict())
        if asks_as is not None:
            policy.get_buffer("offset").copy_(torch.tensor(offset_m))
        if predictor.reader is not None:
            policy.read_with(predictor.reader.tokenizer)
        for name, values in (("action", action_quantiles), ("proprio", proprio_quantiles)):
            for quantile, value in zip(("q01", "q99"), values, strict=True):
                buffer = policy.get_buffer(f"{name}_{quantile}")
                buffer.copy_(torch.as_tensor(np.asarray(value), dtype=buffer.dtype).reshape(buffer.shape))
        return policy

    def forward(
        self,
        past: Tensor,
        proprio: Tensor,
        seed: Tensor | None = None,
        noise: Tensor | None = None,
        noised: Tensor | None = None,
        tau: Tensor | None = None,
        follow: KinecloudPrediction | None = None,
        noised_actions: Tensor | None = None,
        action_tau: Tensor | None = None,
        untaught: Tensor | None = None,
        **window: Any,
    ) -> PolicyPrediction:
        """A training window with ``proprio`` f32 [B,Q] in physical units; see KinecloudPredictor.forward.

        follow: points, opening and grasp that the head is to follow instead of the predicted ones. noised_actions:
        f32 [B,K,A], normalised, and action_tau f32 [B], for a head that learns by flow matching; its actions are then
        those it believes to be behind the noise. Without action_tau it samples, from there on. untaught: bool [B], in
        training, windows whose actions the tokens of a direct head are not taught.
        With a generative predictor the actions read one sampled future, as if it stood at the end of the path.
        """
        predictor, borrowed = self.predictor, self.borrowed()
        window["past"] = past
        if borrowed is not None:
            window = borrowed.asked(window)
            follow = None if follow is None else borrowed.followed(follow)
        seen = {name: window[name] for name in _OBSERVED if name in window}
        observed = predictor.observe(**seen)
        if noised is None:
            noised, tau = predictor.arrived(observed, seed, noise)
        state_BQ = self.normalize(proprio, "proprio")
        thinks_of = observed if self.own is None else self.own.observe(**seen)
        later = [self.head.tokens(thinks_of, state_BQ)] if isinstance(self.head, DirectHead) else []
        prediction, thought = predictor.estimate(observed, noised, tau, later if self.own is None else ())
        if self.own is not None:
            _, thought = self.own.think(thinks_of, noised, tau, later)
        prediction = prediction if follow is None else follow
        decided = self.head(
            prediction, observed, state_BQ, *thought, untaught_B=untaught, noised_BKA=noised_actions, tau_B=action_tau
        )
        prediction = prediction if borrowed is None else borrowed.answered(prediction)
        return PolicyPrediction(**prediction, **decided)

    def borrowed(self) -> Borrowed | None:
        """How the predictor is asked as another embodiment; None for a policy that asks as the one that it is told."""
        if self.config.asks_as is None:
            return None
        return Borrowed(self.config.embodiments.index(self.config.asks_as) + 1, self.get_buffer("offset"))

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

        Takes the arguments of ``prepared`` (observation.py) after the first, and raises what it raises.
        """
        prediction = self.predict(*observation, **more)
        return self.denormalize(prediction.actions, "action")[0].float().cpu().numpy()

    @torch.no_grad()
    def predict(self, *observation: Any, follow: KinecloudPrediction | None = None, **more: Any) -> KinecloudPrediction:
        """One observation -> predicted clouds, openings and normalised actions, with a batch dimension of 1.

        Arguments and errors as of ``act``; follow: as of ``forward``.
        """
        return self(**batch_of([prepared(wanted_of(self.config), *observation, **more)], self.device), follow=follow)


def wanted_of(config: KinecloudConfig) -> Wanted:
    """What a policy of this configuration reads."""
    known = [*config.embodiments, UNKNOWN_EMBODIMENT]
    return Wanted(len(config.past_times), config.image_size, config.proprio_names, known, config.depth)


def batch_of(windows: Sequence[dict[str, Any]], device: torch.device | str) -> dict[str, Any]:
    """Observations, ``prepared`` and of one kind, as arguments of ``KinecloudPolicy.forward``."""
    columns = {name: [window[name] for window in windows] for name in windows[0]}
    return {
        name: torch.from_numpy(np.stack(column)).to(device) if isinstance(column[0], np.ndarray) else column
        for name, column in columns.items()
    }


_OBSERVED = (
    "past", "image", "intrinsics", "past_visible", "past_valid", "past_opening", "text", "embodiment", "image_present",
    "past_grasp", "depth",
)  # fmt: skip
