"""A Kinecloud policy with the calls of lerobot's policies.

Shapes: B batch, K actions in a chunk, A action dimensions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from lerobot.policies.pretrained import PreTrainedPolicy  # pyright: ignore[reportMissingImports]
from torch import Tensor
from transformers import AutoTokenizer

from align.config import ActionLoss
from align.lerobot_plugin.configuration_kinecloud import LeRobotKinecloudConfig
from align.lerobot_plugin.fits import data_set_problems
from align.lerobot_plugin.names import ACTION, PAD
from align.lerobot_plugin.rows import Row, rows_of
from align.lerobot_plugin.windows import window_of
from align.moments import History
from align.objective import alignment_loss, noised_actions
from pretrain.config import ObjectiveSettings
from pretrain.model.direct import BinnedHead, DirectHead, FlowHead
from pretrain.model.policy_kinecloud import KinecloudPolicy
from pretrain.randomness import WindowRandom

_SEEDS = 2**31 - 1
NO_DYNAMICS = ObjectiveSettings.model_validate({})  # of weight 0 in the loss


class LeRobotKinecloudPolicy(PreTrainedPolicy):
    """Keeps the recent clouds of every environment of the batch; each call is one frame later than the last."""

    config_class = LeRobotKinecloudConfig
    name = "kinecloud"

    def __init__(self, config: LeRobotKinecloudConfig, dataset_meta: Any = None, **unused: Any):
        """dataset_meta: lerobot's LeRobotDatasetMetadata, whose names, action spec and rate must be the policy's.

        Raises ValueError with a line for everything that does not fit.
        """
        super().__init__(config)
        config.validate_features()
        if dataset_meta is not None:
            problems = data_set_problems(dataset_meta.features, dataset_meta.fps, config.rate_hz, config.policy)
            if problems:
                raise ValueError("\n".join(problems))
        if config.pretrained_kinecloud is not None and config.pretrained_path is None:
            self.kinecloud = KinecloudPolicy.from_pretrained(config.pretrained_kinecloud)
        else:
            self.kinecloud = KinecloudPolicy(config.policy)
        config.pretrained_kinecloud = None  # from here on the weights are those that lerobot keeps
        self.kinecloud.predictor.requires_grad_(config.train_predictor)
        self.reset()

    def reset(self) -> None:
        """Forgets all episodes."""
        self._histories: list[History] = []
        self._waiting: deque[Tensor] = deque()
        self._frames = 0

    @torch.no_grad()
    def select_action(self, batch: Mapping[str, Any]) -> Tensor:
        """The next action of every environment, f32 [B,A], in the physical units of the action spec."""
        seen = self._see(batch)
        if not self._waiting:
            chunk_BKA = self._decide(seen)
            self._waiting.extend(chunk_BKA[:, : self.config.n_action_steps].unbind(1))
        return self._waiting.popleft()

    @torch.no_grad()
    def predict_action_chunk(self, batch: Mapping[str, Any]) -> Tensor:
        """The next K actions of every environment, f32 [B,K,A], physical units. It takes in the frame, too."""
        return self._decide(self._see(batch))

    def forward(self, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, float]]:
        """Error of normalised actions as alignment counts it (align/objective.py), of recorded frames.

        batch: features over ``observation_delta_indices``, ``action`` [B,K,A] in physical units and its flags of
        padding. Raises ValueError for features that do not fit, and for a head that is not learned by gradient.
        """
        head = self.kinecloud.head
        if not isinstance(head, DirectHead):
            raise ValueError(
                f"head: found {self.config.policy.head}; expected one that learns by gradient. Fit it with "
                "python -m align, or align with align.head: direct."
            )
        rows = self._rows(batch)
        device = self.kinecloud.device
        window = window_of(rows, self.config.policy, self.config.embodiment, device)
        actions_BKA = batch[ACTION].to(device, torch.float32)
        wanted = (len(rows), self.config.policy.action_chunk, len(self.config.policy.action_names))
        if tuple(actions_BKA.shape) != wanted:
            raise ValueError(f"{ACTION}: found {list(actions_BKA.shape)}; expected {list(wanted)}, a chunk per row.")
        padded_BK = batch.get(ACTION + PAD, torch.zeros(wanted[:2], dtype=torch.bool)).to(device)
        true_BKA = self.kinecloud.normalize(actions_BKA, "action")
        seed_B = torch.randint(_SEEDS, (len(rows),))
        if isinstance(head, FlowHead):
            noised = noised_actions(true_BKA, WindowRandom(seed_B))
            window |= {name: value.to(device) for name, value in noised.items()}
        prediction = self.kinecloud(seed=seed_B, **window)
        kinds: dict[type[DirectHead], ActionLoss] = {FlowHead: "flow_matching", BinnedHead: "binned"}
        kind = kinds.get(type(head), cast(ActionLoss, self.config.action_loss))
        valid = {"actions_valid": ~padded_BK}
        loss = alignment_loss(prediction, true_BKA, valid, kind, dynamics=0.0, objective=NO_DYNAMICS)
        return loss.total, {"action_error": float(loss.terms["action"])}

    def get_optim_params(self) -> list[dict[str, Any]]:
        """What learns: the head, and the predictor at a rate of its own."""
        inside = set(self.kinecloud.predictor.parameters())
        learning = [parameter for parameter in self.kinecloud.parameters() if parameter.requires_grad]
        rate = self.config.optimizer_lr * self.config.optimizer_lr_predictor
        groups = [
            {"params": [parameter for parameter in learning if parameter not in inside]},
            {"params": [parameter for parameter in learning if parameter in inside], "lr": rate},
        ]
        return [group for group in groups if group["params"]]

    def _rows(self, batch: Mapping[str, Any]) -> list[Row]:
        step_s = 1 / self.config.rate_hz
        return rows_of(batch, self.config.policy, self.config.picture, step_s, self._frames * step_s)

    def _see(self, batch: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Takes in a frame of every environment; the arguments of ``KinecloudPolicy.act`` for each."""
        rows = self._rows(batch)
        if not self._histories:
            self._histories = [History(self.config.policy.past_times) for _ in rows]
        if len(rows) != len(self._histories):
            raise ValueError(
                f"batch: found {len(rows)} rows; expected {len(self._histories)}, as this episode began. "
                "Call reset() before a new episode."
            )
        self._frames += 1
        return [
            row.observation(self.config.embodiment, history.add(row.moments))
            for row, history in zip(rows, self._histories, strict=True)
        ]

    def _decide(self, seen: list[dict[str, Any]]) -> Tensor:
        """f32 [B,K,A]. One environment after the other, so that the batch changes nothing about an answer."""
        chunks = [torch.from_numpy(self.kinecloud.act(**observation)) for observation in seen]
        return torch.stack(chunks).to(self.kinecloud.device)

    def _save_pretrained(self, save_directory: Path, state_dict: dict[str, Tensor] | None = None) -> None:
        """As lerobot's, and the tokenizer of a text encoder, if there is one."""
        super()._save_pretrained(save_directory, state_dict=state_dict)
        self.kinecloud.save_tokenizer(save_directory)

    @classmethod
    def _load_as_safetensor(
        cls, model: LeRobotKinecloudPolicy, model_file: str, map_location: str, strict: bool
    ) -> LeRobotKinecloudPolicy:
        """As lerobot's; weights that are missing are an error, and the tokenizer is read from the same folder."""
        super()._load_as_safetensor(model, model_file, map_location, strict=True)
        if model.kinecloud.readers:
            folder = Path(model_file).parent
            model.kinecloud.read_with(AutoTokenizer.from_pretrained(folder, config=model.kinecloud.config))
        return model
