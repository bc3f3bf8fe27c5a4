"""Settings of alignment, rollout and export. Importing this needs neither torch nor the simulator."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from pipeline.config import Settings
from pretrain.config import TrainingSettings

STAGE_VERSION = 5
ControlName = Literal["policy", "true_future", "p_controller"]
ActionLoss = Literal["smooth_l1", "l1", "flow_matching", "binned"]


class AlignConfig(TrainingSettings):
    """``python -m align``: the predictor and a small labelled set become a policy."""

    predictor: Path | None = Field(None, description="Folder of the pretrained predictor; null = that of the run.")
    head: Literal["direct", "inverse_dynamics"] = Field(
        "direct", description="`direct`: a linear map of what is planned, fitted in closed form, and new projections "
        "on the trunk, learned by gradient, give a chunk of actions. `inverse_dynamics`: actions are decoded from the "
        "predicted motion alone, by a map fitted in closed form to what the labelled clips recorded; of the settings "
        "below only `asks_as`, `left_out` and `action_chunk` count, and no step is taken.",
    )  # fmt: skip
    asks_as: str | None = Field(
        None, description="Embodiment as which the predictor is asked, one that it learned from, such as `human-hand`; "
        "null = the robot's own. For tasks that only this embodiment was seen doing, on a robot that videos hardly "
        "show. Its points are found a little beside the robot's, and the offset is fitted to the labelled clips.",
    )  # fmt: skip
    left_out: Literal["tasks", "recordings"] | None = Field(
        None, description="What is left out to learn how far ahead a head reads the plan: labelled `tasks`, for a "
        "policy of tasks that no label shows, or `recordings`, for one of the labelled tasks. With tasks, what the "
        "tokens of a direct head say counts as much as it is worth in them. null = tasks where the clips show some "
        "without labels. Where one task alone is labelled, recordings.",
    )  # fmt: skip
    start: Literal["pretrained", "scratch"] = Field(
        "pretrained", description="`scratch`: of the predictor only its architecture is taken, and with `videos` "
        "points and actions are learned together, in one stage.",
    )  # fmt: skip
    trunk: Literal["full", "lora", "frozen", "separate"] = Field(
        "full", description="`full`: the predictor goes on learning; `lora`: low-rank adapters of it do; "
        "`frozen`: only the new projections learn; `separate`: the predictor stays as it is, and the head learns with "
        "a trunk of its own, which is like the predictor's and begins from scratch.",
    )  # fmt: skip
    lora_rank: int = Field(8, ge=1, description="Of the adapters; with `trunk: lora` only.")
    trunk_learning_rate: float = Field(
        1.0, gt=0, le=1, description="Learning rate of the predictor's own weights, as a share of `learning_rate`."
    )
    dynamics: float = Field(
        1.0, ge=0, description="Weight of the pretraining loss on the labelled clips, beside the action loss; 0 = off."
    )
    videos: float = Field(
        0.0, ge=0, lt=1, description="Share of the windows that comes from clips without labels, for which the "
        "pretraining loss alone counts: what was learned of tasks that are seen only is kept in practice.",
    )  # fmt: skip
    action_loss: ActionLoss = Field(
        "smooth_l1", description="How a direct head learns: regression (`smooth_l1` is quadratic below 0.1), "
        "`flow_matching`, which samples, or `binned`, cross-entropy over 256 bins of each number of an action.",
    )  # fmt: skip
    action_chunk: int = Field(8, ge=1, description="Actions that are predicted at once.")
    points: int = Field(64, ge=1, description="Points per training sample, a random subset.")
    color: float = Field(0.2, ge=0, lt=1, description="Random gain of colours. The camera is never changed: actions "
                         "are in the robot's frame and would not follow.")  # fmt: skip
    proprio_noise: float = Field(
        0.02, ge=0, description="Noise on the normalised proprioception, so that small deviations are nothing new."
    )

    steps: int = Field(400, ge=1)
    learning_rate: float = Field(1e-3, gt=0, description="Peak, of the new projections.")
    warmup_steps: int = Field(20, ge=0)
    ema_decay: float = Field(0.98, ge=0, lt=1, description="Publish averaged weights; 0 = off.")

    @property
    def head_name(self) -> str:
        """As policies name it."""
        apart = self.head == "direct" and self.action_loss in ("flow_matching", "binned")
        return f"direct_{self.action_loss}" if apart else self.head

    @property
    def trunk_learns(self) -> bool:
        """Whether the predictor changes at all."""
        return self.head == "direct" and self.trunk in ("full", "lora")

    @model_validator(mode="after")
    def _the_trunk_learns_what_it_is_taught(self) -> AlignConfig:
        if self.videos and not (self.trunk_learns and self.dynamics):
            raise ValueError(
                "videos teach the trunk its dynamics: set head: direct, trunk: full or lora, and dynamics above 0"
            )
        if self.start == "scratch" and (self.head == "inverse_dynamics" or self.trunk != "full"):
            raise ValueError("from scratch the trunk has to learn: set head: direct and trunk: full")
        return self


class RolloutConfig(Settings):
    """``python -m align rollout``: closed loop in the simulator, in scenes like those of the ``simulate`` section."""

    tasks: tuple[str, ...] | None = Field(
        None, description="Simulated tasks; null = those of the training clips, labelled ones first."
    )
    episodes: int = Field(5, ge=1, description="Episodes per task, on seeds that were not recorded.")
    execute: int = Field(2, ge=1, description="Actions of a chunk that are executed before the next is asked for.")
    control: ControlName = Field(
        "policy",
        description="`policy`, as it is exported; or, to tell what prediction and head are worth: `true_future`, the "
        "head is given the motion of an expert instead of the predicted one; `p_controller`, the predicted grasp point "
        "is approached by a proportional controller that learns nothing.",
    )
    max_seconds: float = Field(5.0, gt=0, description="An episode without success ends after this, simulated time.")
    timeout_s: float = Field(120, gt=0, description="Hard limit per episode, real time.")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "cpu", description="Where the policy decides. Each of `run.workers` processes has a copy of it."
    )


class ExportConfig(Settings):
    """``python -m align export``."""

    license: str | None = Field(
        None, description="Licence of the exported policy as you declare it; null = not declared."
    )
