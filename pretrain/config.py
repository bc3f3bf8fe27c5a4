"""Settings of pretraining. Importing this needs neither torch nor transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from data.config import MixtureConfig, WindowConfig
from pipeline.config import Settings

STAGE_VERSION = 1
# what decides how fast or how talkative a run is, but not what it computes
_WITHOUT_EFFECT = (
    "threads", "loader_workers", "loader_cache_mb", "log_every", "keep_last", "device", "sharding",
    "gradient_checkpointing", "compile", "tracking", "rank_timeout_s",
)  # fmt: skip


# what vision and text are when nothing is loaded
FROM_SCRATCH = {"vision": "small", "text": "bytes"}


class ModelSettings(Settings):
    """The predictor: its size, and the published networks that it starts from (docs/models.md)."""

    family: Literal["compact", "full"] = Field(
        "compact", description="full: PaliGemma is the context and an expert beside it predicts, as pi0 does."
    )
    width: int = Field(128, ge=16, description="Channels per token; a multiple of 16 and of `heads`. Compact family.")
    layers: int = Field(4, ge=1, description="Compact family.")
    heads: int = Field(4, ge=1, description="Compact family.")
    mlp_ratio: int = Field(3, ge=1, description="Compact family.")
    slots: int = Field(8, ge=1, description="Tokens that summarise the effector's points.")
    text_tokens: int = Field(4, ge=1, description="Tokens that an instruction becomes. Compact family.")
    max_text_tokens: int = Field(48, ge=8, description="Tokens of an instruction that a pretrained encoder reads.")
    blind: bool = Field(False, description="A baseline: the picture is never looked at.")
    dimensions: Literal[2, 3] = Field(3, description="2: points are seen and moved in the image plane only.")
    embodiments: tuple[str, ...] | None = Field(
        None, description="Names with a learned slot of their own; null = those in the training shards."
    )
    vision: str = Field(
        "small", description="Compact family: small = learned from scratch, else the folder or hub id of a vision "
        "Transformer (SigLIP, DINOv2, DINOv3, CLIP, ViT).",
    )  # fmt: skip
    vision_size: int | None = Field(
        None, ge=28, description="Pixels of the side that it sees; null = as it was trained. DINOv2 was at 518."
    )
    text: str = Field(
        "bytes", description="Compact family: bytes = learned from scratch, else the folder or hub id of a text "
        "encoder (MiniLM, BERT, SigLIP, CLIP).",
    )  # fmt: skip
    context: str | None = Field(
        None, description="Full family: the folder or hub id of a pi0 checkpoint (context and expert) or of PaliGemma."
    )
    tokenizer: str | None = Field(
        None, description="Full family: folder or hub id of PaliGemma's tokenizer, where it is not beside the context."
    )
    freeze: tuple[Literal["vision", "text", "context"], ...] = Field(
        ("vision", "text"), description="Pretrained parts that are not trained; of the full family, text is the table "
        "of words and context all of PaliGemma.",
    )  # fmt: skip
    pretrained_rate: float = Field(
        0.1, gt=0, le=1, description="Share of the learning rate for pretrained parts that are trained."
    )

    @model_validator(mode="after")
    def _sizes_fit(self) -> ModelSettings:
        if self.width % 16 or self.width % self.heads:
            raise ValueError(f"width must be a multiple of 16 and of heads={self.heads}, found {self.width}")
        return self

    @model_validator(mode="after")
    def _the_parts_are_of_the_family(self) -> ModelSettings:
        if self.family == "full":
            if self.context is None:
                raise ValueError("family full needs context: the folder or hub id of a pi0 or PaliGemma checkpoint")
            if self.vision_size or {"vision": self.vision, "text": self.text} != FROM_SCRATCH:
                raise ValueError("vision, vision_size and text are the context's in family full; leave them out")
        elif self.context or self.tokenizer:
            raise ValueError("context and tokenizer are for family full; set family: full or leave them out")
        return self


class ObjectiveSettings(Settings):
    """Weights of the terms of the loss; a term of weight 0 is not computed. Lengths in units of 0.1 m."""

    chamfer: float = Field(1.0, ge=0, description="Chamfer distance of predicted and true cloud; needs no identity.")
    tracked: float = Field(1.0, ge=0, description="Robust distance of identified points that were measured.")
    tracks2d: float = Field(0.0, ge=0, description="Robust distance in the image plane, on a plane 1 m away.")
    flow_matching: float = Field(
        0.0, ge=0, description="Squared error of the velocity of noised displacements; the predictor then samples."
    )
    latent_action: float = Field(
        0.0,
        ge=0,
        description="Baseline: the future as a small code learned from images; the other terms then only "
        "teach its readout.",
    )
    opening: float = Field(0.3, ge=0, description="L1 of the grasp aperture where it is known.")
    grasp: float = Field(0.0, ge=0, description="Robust distance of the grasp point, for control by its motion.")
    waypoints: float = Field(
        0.0,
        ge=0,
        description="Robust distance of the next corners of the path and of its end, whenever they come; above 0 the "
        "predictor finds them in the picture and lets them lead its motion.",
    )
    heatmap: float = Field(
        0.0,
        ge=0,
        description="Divergence of where the predictor looks for a waypoint from a spot around it: it finds "
        "small things. Needs waypoints.",
    )
    trust_m: float | None = Field(
        None,
        gt=0,
        description="Errors across and along the viewing ray count less where the clip's sigma there is about as large "
        "or larger, metres; 0.03 for hands in colour alone. null = all clips alike.",
    )

    @model_validator(mode="after")
    def _something_is_learned(self) -> ObjectiveSettings:
        if self.chamfer == self.tracked == self.tracks2d == self.flow_matching == 0:
            raise ValueError("every term that teaches the predicted cloud has weight 0")
        if self.heatmap and not self.waypoints:
            raise ValueError("heatmap says where waypoints are looked for; set waypoints above 0 or heatmap to 0")
        if self.trust_m is not None and self.tracks2d:
            raise ValueError("trust_m weighs directions in space, and tracks2d learns in the image: leave one out")
        return self


class AppearanceSettings(Settings):
    """Noise on what images look like, in its full strength; a window draws how much of it it gets."""

    color: float = Field(default=0.4, ge=0, lt=1, description="Gain per colour channel 1 +- color.")
    brightness: float = Field(default=0.25, ge=0, le=1, description="Added to all channels, +- this share of white.")
    contrast: float = Field(default=0.5, ge=0, lt=1, description="Distance from the mean colour times 1 +- contrast.")
    noise: float = Field(default=0.1, ge=0, le=1, description="Largest standard deviation per pixel, share of white.")
    blur: float = Field(
        default=1.0, ge=0, le=1, description="Largest share of the picture that is replaced by a blurred one."
    )
    patches: int = Field(default=2, ge=0, description="Rectangles of one colour.")
    patch_size: float = Field(default=0.4, ge=0, le=1, description="Their largest side as a share of the image.")
    until: float = Field(
        default=0.6, gt=0, le=1, description="Share of training over which it falls from full to `final`."
    )
    final: float = Field(default=0.0, ge=0, le=1, description="Share of it that stays.")


class AugmentSettings(Settings):
    """Random changes of a training window. Camera changes are exact: image, intrinsics and clouds agree afterwards."""

    roll_deg: float = Field(default=8.0, ge=0, description="Camera turned about its axis by up to this angle.")
    zoom: float = Field(default=0.1, ge=0, lt=1, description="Focal length times 1 +- zoom.")
    shift: float = Field(
        default=0.06, ge=0, lt=1, description="Principal point moved by up to this share of the image."
    )
    crop: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Least side of a random part of the image that is enlarged to the whole, as a share; the effector "
        "stays in it. 1 = always the whole image.",
    )
    flip: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of windows seen in a mirror: image, clouds, and left, right, clockwise in the instruction. "
        "A right hand becomes a left one.",
    )
    scale: float = Field(
        default=0.0,
        ge=0,
        description="World larger or smaller by up to a factor of 1 + scale, which one camera cannot see. Only for "
        "clips of assumed or relative scale: it unlearns metric size.",
    )
    color: float = Field(
        default=0.2, ge=0, lt=1, description="Gain per colour channel 1 +- color, and brightness likewise."
    )
    appearance: AppearanceSettings | None = Field(
        default=None, description="Strong noise on the image that vanishes during training; null = none."
    )
    past_offset_m: float = Field(
        default=0.0,
        ge=0,
        description="Past clouds displaced as a whole, standard deviation per axis in metres; not the future. Across "
        "the motion, so that a policy that has strayed comes back; along it would only be earlier or later.",
    )
    past_jitter_m: float = Field(
        default=0.0, ge=0, description="Each past point displaced for itself, standard deviation per axis in metres."
    )
    past_slow: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of windows whose past moved less than it did, by any factor down to standing still; the "
        "future stays. A policy that has stopped where no demonstration stops then goes on.",
    )
    drop_image: float = Field(default=0.05, ge=0, le=1, description="Share of windows that must do without the image.")
    drop_text: float = Field(
        default=0.1, ge=0, le=1, description="Share of windows that must do without the instruction."
    )
    drop_embodiment: float = Field(
        default=0.1, ge=0, le=1, description="Share of windows with the embodiment `unknown`."
    )
    drop_history: float = Field(
        default=0.05, ge=0, le=1, description="Share of windows that know the present cloud only."
    )
    drop_opening: float = Field(
        default=0.1, ge=0, le=1, description="Share of windows with unknown grasp openings in the past."
    )

    @classmethod
    def only(cls, **settings: float) -> AugmentSettings:
        """These changes and no others."""
        defaults = ("roll_deg", "zoom", "shift", "color")
        withheld = (name for name in cls.model_fields if name.startswith("drop_"))
        return cls.model_validate({**dict.fromkeys((*defaults, *withheld), 0.0), **settings})


class TrackingSettings(Settings):
    """Where curves are shown besides metrics.jsonl and TensorBoard, which are always written."""

    wandb: str | None = Field(
        None, description="Weights & Biases project; needs `pip install wandb`. WANDB_MODE=offline is honoured."
    )
    wandb_name: str | None = Field(None, description="Name of the run there; null = the name of the run's folder.")


class TrainingSettings(Settings):
    """What every training has: data, optimizer, checkpoints, machine."""

    train_shards: tuple[Path, ...] | None = Field(None, description="Shards to train on; null = those of the run.")
    val_shards: tuple[Path, ...] | None = Field(None, description="Shards to evaluate on; null = those of the run.")

    steps: int = Field(800, ge=1)
    batch_size: int = Field(32, ge=1, description="Windows that a rank handles at once.")
    gradient_accumulation: int = Field(
        1, ge=1, description="Batches per rank and step; a step learns from batch_size x this x ranks windows."
    )
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
    mixed_precision: Literal["no", "bf16"] = Field(
        "no", description="bf16: the network computes in bfloat16; weights, averages and losses stay in 32 bits."
    )
    tf32: bool = Field(
        False, description="GPU: 32-bit matrix products in TF32. Faster where bf16 is not used, but coordinates that "
                           "pass through a product are rounded by up to 0.05 % (0.4 mm at 0.8 m)."
    )  # fmt: skip
    sharding: Literal["none", "fsdp"] = Field(
        "none", description="fsdp: weights, gradients and optimizer state are split over the ranks (FSDP2), for "
                            "models that do not fit on one; `accelerate launch --use_fsdp` does the same. Checkpoints "
                            "do not differ."
    )  # fmt: skip
    gradient_checkpointing: bool = Field(
        False, description="Activations of transformer blocks are computed again when needed: less memory, about a "
                           "third more time."
    )  # fmt: skip
    compile: bool = Field(False, description="torch.compile of the transformer blocks; needs a C++ compiler.")
    rank_timeout_s: float = Field(
        1800, gt=0, description="A rank that waits longer than this for another gives up; a validation must fit."
    )
    tracking: TrackingSettings = TrackingSettings()  # pyright: ignore[reportCallIssue]
    threads: int = Field(0, ge=0, description="CPU threads per rank; 0 = cores / ranks on this machine.")
    loader_workers: int = Field(0, ge=0, description="Loader processes per rank; 0 = read in the training process.")
    loader_cache_mb: int = Field(512, ge=0, description="Memory per rank for decoded images and opened clips, MiB.")

    def identity(self) -> dict[str, Any]:
        """The settings that decide the result, as JSON values."""
        return self.model_dump(mode="json", exclude={*_WITHOUT_EFFECT, "train_shards", "val_shards"})


class PretrainConfig(TrainingSettings):
    """``python -m pretrain``."""

    window: WindowConfig = WindowConfig()  # pyright: ignore[reportCallIssue]
    model: ModelSettings = ModelSettings()  # pyright: ignore[reportCallIssue]
    objective: ObjectiveSettings = ObjectiveSettings()  # pyright: ignore[reportCallIssue]
    augment: AugmentSettings = AugmentSettings()  # pyright: ignore[reportCallIssue]
    mixture: MixtureConfig | None = Field(
        default=None, description="How often training sees what; null = every window alike."
    )
    evaluation_stride: int = Field(3, ge=1, description="The evaluation reads every so many-th held-out window.")
    evaluation_samples: int = Field(
        1, ge=1, description="Predictions per held-out window of a generative model: their mean error, the error of "
                             "their mean, and the best of them are reported."
    )  # fmt: skip
    evaluation_candidates: int = Field(
        4000, ge=0, description="Training windows the nearest-neighbour baseline may look up; 0 = leave it out."
    )

    @model_validator(mode="after")
    def _objectives_fit_the_model(self) -> PretrainConfig:
        metric = self.objective.chamfer > 0 or self.objective.tracked > 0
        if self.model.dimensions == 2 and metric:
            raise ValueError("model.dimensions: 2 learns from tracks2d or flow_matching; set chamfer and tracked to 0")
        if self.objective.latent_action > 0 and self.objective.waypoints > 0:
            raise ValueError("latent_action decides the motion by its code alone; set objective.waypoints to 0")
        if self.objective.flow_matching > 0 and self.objective.grasp > 0:
            raise ValueError(
                "flow_matching samples points, which carry the grasp point along; set objective.grasp to 0"
            )
        if self.objective.latent_action > 0 and self.objective.flow_matching > 0:
            raise ValueError("latent_action and flow_matching do not go together; set one of them to 0")
        if self.model.dimensions == 3 and not metric and self.objective.flow_matching == 0:
            raise ValueError("tracks2d alone does not teach depth: set model.dimensions to 2, or add another objective")
        return self
