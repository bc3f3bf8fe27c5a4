"""The configuration of a Kinecloud policy in LeRobot. Not frozen: lerobot fills in what it finds out."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lerobot.configs import FeatureType, NormalizationMode, PreTrainedConfig  # pyright: ignore[reportMissingImports]
from lerobot.configs.types import PolicyFeature  # pyright: ignore[reportMissingImports]
from lerobot.optim.optimizers import AdamWConfig  # pyright: ignore[reportMissingImports]

from align.lerobot_plugin.fits import camera_of, embodiment_problems, feature_problems, input_shapes, output_shapes
from pretrain.model.configuration_kinecloud import KinecloudConfig


@PreTrainedConfig.register_subclass("kinecloud")
@dataclass
class LeRobotKinecloudConfig(PreTrainedConfig):
    """Settings of ``--policy.type=kinecloud``."""

    # Folder of an exported policy (python -m align export: RUN/export/policy) that a new policy is made from.
    pretrained_kinecloud: str | None = None
    # config.json of that policy. It is read from the folder, and travels with what lerobot saves.
    kinecloud: dict[str, Any] | None = None
    # Which body acts: one of the policy's embodiments, or `unknown`.
    embodiment: str | None = None
    # Feature of the picture; by default observation.images.camera, or .scene for a policy that learned from scenes.
    camera: str | None = None
    # Frames per second that the policy counts in; by default the rate of its actions.
    fps: float | None = None
    # Actions of a predicted chunk that are executed before the policy looks again.
    n_action_steps: int = 1

    # How a head that regresses learns: `smooth_l1` (quadratic below 0.1) or `l1`, of normalised actions.
    action_loss: str = "smooth_l1"
    # Whether the predictor learns along with the head.
    train_predictor: bool = True
    optimizer_lr: float = 3e-4
    # Learning rate of the predictor, as a share of `optimizer_lr`.
    optimizer_lr_predictor: float = 1.0
    optimizer_weight_decay: float = 0.01

    # Identity: a policy's normalisation is its own and travels inside its weights.
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: {kind.value: NormalizationMode.IDENTITY for kind in FeatureType}
    )

    def __post_init__(self) -> None:
        """Raises ValueError for a folder without an exported policy, and for settings that contradict each other."""
        super().__post_init__()
        if self.pretrained_kinecloud is not None:
            self._describe(Path(self.pretrained_kinecloud))
        if self.action_loss not in ("smooth_l1", "l1"):
            raise ValueError(f"policy.action_loss: found {self.action_loss!r}; expected 'smooth_l1' or 'l1'.")
        if self.kinecloud is not None:
            chunk = self.policy.action_chunk
            if not 1 <= self.n_action_steps <= chunk:
                raise ValueError(
                    f"policy.n_action_steps: found {self.n_action_steps}; expected 1 to {chunk}, the policy's chunk."
                )
            if problems := embodiment_problems(self.embodiment, self.policy):
                raise ValueError("\n".join(problems))

    def _describe(self, folder: Path) -> None:
        path = folder / "config.json"
        if not path.is_file():
            raise ValueError(
                f"policy.pretrained_kinecloud: found {str(folder)!r} without a config.json; expected the folder of an "
                "exported policy. Make one with python -m align export --config C.yaml: RUN/export/policy."
            )
        document = {name: value for name, value in json.loads(path.read_text()).items() if name != "auto_map"}
        if self.kinecloud is not None and self.kinecloud != document:
            raise ValueError(
                f"policy.pretrained_kinecloud: {folder} holds another policy than this one was made from. "
                "Leave it out to go on with the saved weights, or leave policy.path out to begin anew."
            )
        if not document.get("action_names"):
            raise ValueError(
                f"policy.pretrained_kinecloud: {folder} is a predictor without actions; expected an aligned policy. "
                "Run python -m align and export first."
            )
        self.kinecloud = document

    @property
    def policy(self) -> KinecloudConfig:
        """Sizes and meanings of the policy. Raises ValueError where none was named."""
        if self.kinecloud is None:
            raise ValueError(
                "policy.pretrained_kinecloud: found nothing; expected the folder of an exported policy. "
                "Set policy.pretrained_kinecloud, or policy.path to a policy that lerobot saved."
            )
        return KinecloudConfig.from_dict(dict(self.kinecloud))

    @property
    def picture(self) -> str:
        """Name of the picture's feature."""
        return self.camera or camera_of(self.policy)

    @property
    def rate_hz(self) -> float:
        """Frames per second. Raises ValueError where neither the settings nor the policy tell it."""
        rate = self.fps or (self.policy.action_spec or {}).get("rate_hz")
        if not rate:
            raise ValueError("policy.fps: found nothing, and the policy tells no rate; expected frames per second.")
        return float(rate)

    @property
    def observation_delta_indices(self) -> list[int]:
        """Frames back to the oldest past cloud, and one more: times of frames are not even."""
        back = math.ceil(-self.policy.past_times[0] * self.rate_hz - 1e-6) + 1
        return list(range(-back, 1))

    @property
    def action_delta_indices(self) -> list[int]:
        return list(range(self.policy.action_chunk))

    @property
    def reward_delta_indices(self) -> None:
        return None

    def get_optimizer_preset(self) -> AdamWConfig:
        return AdamWConfig(lr=self.optimizer_lr, weight_decay=self.optimizer_weight_decay)

    def get_scheduler_preset(self) -> None:
        return None

    def validate_features(self) -> None:
        """Fills in features that are not told. Raises ValueError with both sides of each that does not fit."""
        policy = self.policy
        if not self.input_features:
            shapes = input_shapes(policy, self.picture)
            self.input_features = {
                name: PolicyFeature(FeatureType.VISUAL if ".images." in name else FeatureType.STATE, shape)
                for name, shape in shapes.items()
            }
        if not self.output_features:
            actions = output_shapes(policy).items()
            self.output_features = {name: PolicyFeature(FeatureType.ACTION, shape) for name, shape in actions}
        inputs, outputs = (
            {name: tuple(feature.shape) for name, feature in features.items()}
            for features in (self.input_features, self.output_features)
        )
        if problems := feature_problems(inputs, outputs, policy, self.picture):
            raise ValueError("\n".join(problems))
