"""Settings of pretraining. Importing this needs neither torch nor transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from data.config import WindowConfig
from pipeline.config import Settings

STAGE_VERSION = 1
# what decides how fast or how talkative a run is, but not what it computes
_WITHOUT_EFFECT = ("threads", "loader_workers", "log_every", "keep_last", "device")


class ModelSettings(Settings):
    """Size of the predictor."""

    width: int = Field(128, ge=16, description="Channels per token; a multiple of 16 and of `heads`.")
    layers: int = Field(4, ge=1)
    heads: int = Field(4, ge=1)
    mlp_ratio: int = Field(3, ge=1)
    slots: int = Field(8, ge=1, description="Tokens that summarise the effector's points.")
    text_tokens: int = Field(4, ge=1)
    embodiments: tuple[str, ...] | None = Field(
        None, description="Names with a learned slot of their own; null = those in the training shards."
    )

    @model_validator(mode="after")
    def _sizes_fit(self) -> ModelSettings:
        if self.width % 16 or self.width % self.heads:
            raise ValueError(f"width must be a multiple of 16 and of heads={self.heads}, found {self.width}")
        return self


class ObjectiveSettings(Settings):
    """Weights of the terms of the loss; a term of weight 0 is not computed. Lengths in units of 0.1 m."""

    chamfer: float = Field(1.0, ge=0, description="Chamfer distance of predicted and true cloud; needs no identity.")
    tracked: float = Field(1.0, ge=0, description="Robust distance of identified points that were measured.")
    opening: float = Field(0.3, ge=0, description="L1 of the grasp aperture where it is known.")

    @model_validator(mode="after")
    def _something_is_learned(self) -> ObjectiveSettings:
        if self.chamfer == 0 and self.tracked == 0:
            raise ValueError("chamfer and tracked are both 0, so nothing teaches the predicted cloud")
        return self


class AugmentSettings(Settings):
    """Random changes of a training window. Camera changes are exact: image, intrinsics and clouds agree afterwards."""

    roll_deg: float = Field(8.0, ge=0, description="Camera turned about its axis by up to this angle.")
    zoom: float = Field(0.1, ge=0, lt=1, description="Focal length times 1 +- zoom.")
    shift: float = Field(0.06, ge=0, lt=1, description="Principal point moved by up to this share of the image.")
    color: float = Field(0.2, ge=0, lt=1, description="Gain per colour channel 1 +- color, and brightness likewise.")
    drop_image: float = Field(0.05, ge=0, le=1, description="Share of windows that must do without the image.")
    drop_text: float = Field(0.1, ge=0, le=1, description="Share of windows that must do without the instruction.")
    drop_embodiment: float = Field(0.1, ge=0, le=1, description="Share of windows with the embodiment `unknown`.")


class TrainingSettings(Settings):
    """What every training has: data, optimizer, checkpoints, machine."""

    train_shards: tuple[Path, ...] | None = Field(None, description="Shards to train on; null = those of the run.")
    val_shards: tuple[Path, ...] | None = Field(None, description="Shards to evaluate on; null = those of the run.")

    steps: int = Field(800, ge=1)
    batch_size: int = Field(32, ge=1, description="Windows per step and rank.")
    learning_rate: float = Field(1e-3, gt=0, description="Peak, after the warm-up.")
    warmup_steps: int = Field(50, ge=0)
    final_learning_rate: float = Field(0.01, ge=0, le=1, description="Share of the peak at the last step (cosine).")
    weight_decay: float = Field(0.05, ge=0, description="On matrices only.")
    gradient_clip: float = Field(1.0, gt=0, description="Largest norm of the gradient.")
    ema_decay: float = Field(0.0, ge=0, lt=1, description="Publish averaged weights; 0 = off.")
    checkpoint_every: int = Field(200, ge=1, description="Steps between checkpoints; each is validated.")
    keep_last: int = Field(2, ge=1, description="Checkpoints kept, besides the best.")
    validation_windows: int = Field(512, ge=1, description="Windows per validation during training.")
    log_every: int = Field(20, ge=1, description="Steps between lines on the screen; the metrics file has all.")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    mixed_precision: Literal["no", "bf16"] = "no"
    threads: int = Field(0, ge=0, description="CPU threads per rank; 0 = cores / ranks on this machine.")
    loader_workers: int = Field(0, ge=0, description="Loader processes per rank; 0 = read in the training process.")

    def identity(self) -> dict[str, Any]:
        """The settings that decide the result, as JSON values."""
        return self.model_dump(mode="json", exclude={*_WITHOUT_EFFECT, "train_shards", "val_shards"})


class PretrainConfig(TrainingSettings):
    """``python -m pretrain``."""

    window: WindowConfig = WindowConfig()  # pyright: ignore[reportCallIssue]
    model: ModelSettings = ModelSettings()  # pyright: ignore[reportCallIssue]
    objective: ObjectiveSettings = ObjectiveSettings()  # pyright: ignore[reportCallIssue]
    augment: AugmentSettings = AugmentSettings()  # pyright: ignore[reportCallIssue]
    evaluation_stride: int = Field(3, ge=1, description="The evaluation reads every so many-th held-out window.")
