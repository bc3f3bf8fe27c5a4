"""One training run: where it writes, what it is made from, and who takes part."""

from __future__ import annotations

import os
from datetime import timedelta
from functools import cached_property
from typing import Any

import torch
from accelerate import Accelerator, InitProcessGroupKwargs

from data.loader import WindowDataset
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.logs import StageLog
from pretrain.config import PretrainConfig, TrainingSettings
from pretrain.shards import made_from, shards_of
from pretrain.trackers import require_installed

STAGE = "pretrain"


class TrainingRun:
    """A training run: where it writes, what it is made from, and its state.

    stage: section of the configuration and folder of the run. made_from: what decides the result, one JSON document.
    some_rest: whether some parameters get no gradient from the loss, which several ranks must be told.
    change_ranks: go on from a checkpoint whose batches were shared out over other ranks.
    """

    def __init__(
        self,
        config: Config,
        stage: str,
        settings: TrainingSettings,
        made_from: dict[str, Any],
        some_rest: bool = False,
        change_ranks: bool = False,
    ):
        self.config, self.stage, self.settings, self.made_from = config, stage, settings, made_from
        self.some_rest, self.change_ranks = some_rest, change_ranks
        require_installed(config, stage, settings)
        self.seed = config.run.seed
        self.folder = config.folder(stage)
        self.checkpoints = self.folder / "checkpoints"
        self.metrics_path = self.folder / "metrics.jsonl"
        cpu = settings.device == "cpu" or not torch.cuda.is_available()
        if settings.device == "cuda" and cpu:
            raise UserError(f"{config.path}: {stage}.device: cuda is asked for, but no GPU is usable; use auto or cpu.")
        patience = InitProcessGroupKwargs(timeout=timedelta(seconds=settings.rank_timeout_s))
        self.accelerator = Accelerator(cpu=cpu, mixed_precision=settings.mixed_precision, kwargs_handlers=[patience])
        self.shards = settings.sharding == "fsdp" or os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
        os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"  # else encoders have weights on the first rank alone
        local = int(os.environ.get("LOCAL_WORLD_SIZE") or self.accelerator.num_processes)
        torch.set_num_threads(settings.threads or max(1, len(os.sched_getaffinity(0)) // local))
        self.train_shards = shards_of(config, settings, "train", stage)
        self.val_shards = shards_of(config, settings, "val", stage)
        self.log = StageLog(config.run.out, stage)
        self.best: dict[str, Any] | None = None
        if self.leads:
            for line in _unheeded(settings):
                self.log.warning(f"{line}; {stage} in {config.path} decides")

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes."""
        return self.accelerator.is_main_process

    def part(self) -> bool:
        """Ends what ranks do together, after training; none waits for another from here on. True on the rank that goes
        on alone with publishing and evaluation."""
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        return self.leads

    def say(self, message: str, **fields: Any) -> None:
        if self.leads:
            self.log.info(message, **fields)


def _unheeded(settings: TrainingSettings) -> list[str]:
    """What ``accelerate launch`` was asked for that the configuration says otherwise. Its defaults ask for nothing."""
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    parts = os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    lines = []
    if precision not in ("no", settings.mixed_precision):
        lines.append(f"accelerate launch has mixed precision {precision}, not {settings.mixed_precision}")
    if parts not in ("1", str(settings.gradient_accumulation)):
        lines.append(f"accelerate launch has {parts} gradient accumulation steps, not {settings.gradient_accumulation}")
    return lines


class Run(TrainingRun):
    """A pretraining run."""

    settings: PretrainConfig

    def __init__(self, config: Config, change_ranks: bool = False):
        settings = config.section(STAGE, PretrainConfig)
        super().__init__(config, STAGE, settings, made_from(config, settings), change_ranks=change_ranks)

    @cached_property
    def val_windows(self) -> WindowDataset:
        """The held-out windows, with all points."""
        return WindowDataset(self.val_shards, self.settings.window, all_points=True)
