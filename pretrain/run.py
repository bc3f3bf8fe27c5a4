"""One training run: where it writes, what it is made from, and who takes part."""

from __future__ import annotations

import os
from functools import cached_property
from typing import Any

import torch
from accelerate import Accelerator

from data.loader import WindowDataset
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.logs import StageLog
from pretrain.config import PretrainConfig
from pretrain.shards import made_from, shards_of

STAGE = "pretrain"


class Run:
    """A training run: where it writes, what it is made from, and its state."""

    def __init__(self, config: Config):
        self.config = config
        self.settings = config.section(STAGE, PretrainConfig)
        self.seed = config.run.seed
        self.folder = config.folder(STAGE)
        self.checkpoints = self.folder / "checkpoints"
        self.metrics_path = self.folder / "metrics.jsonl"
        cpu = self.settings.device == "cpu" or not torch.cuda.is_available()
        if self.settings.device == "cuda" and cpu:
            raise UserError(
                f"{config.path}: pretrain.device: cuda is asked for, but no GPU is usable; use auto or cpu."
            )
        self.accelerator = Accelerator(cpu=cpu, mixed_precision=self.settings.mixed_precision)
        local = int(os.environ.get("LOCAL_WORLD_SIZE") or self.accelerator.num_processes)
        torch.set_num_threads(self.settings.threads or max(1, len(os.sched_getaffinity(0)) // local))
        self.train_shards = shards_of(config, self.settings, "train")
        self.val_shards = shards_of(config, self.settings, "val")
        self.made_from = made_from(config, self.settings)
        self.log = StageLog(config.run.out, STAGE)
        self.best: dict[str, Any] | None = None

    @cached_property
    def val_windows(self) -> WindowDataset:
        """The held-out windows, with all points."""
        return WindowDataset(self.val_shards, self.settings.window, all_points=True)

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes."""
        return self.accelerator.is_main_process

    def say(self, message: str, **fields: Any) -> None:
        if self.leads:
            self.log.info(message, **fields)
