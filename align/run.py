"""One alignment run: where it writes, what it is made from, and what it starts with."""

from __future__ import annotations

from functools import cached_property

import torch

from align.config import AlignConfig
from align.labels import LabelledSet, labelled_set
from align.origin import align_made_from, predictor_folder
from data.config import WindowConfig
from data.loader import WindowDataset
from pipeline.config import Config
from pretrain.model.configuration_kinecloud import KinecloudConfig
from pretrain.model.modeling_kinecloud import KinecloudPredictor
from pretrain.run import TrainingRun

STAGE = "align"


class AlignRun(TrainingRun):
    """An alignment run."""

    settings: AlignConfig

    def __init__(self, config: Config, change_ranks: bool = False):
        settings = config.section(STAGE, AlignConfig)
        self.predictor_folder = predictor_folder(config, settings)
        self.known: KinecloudConfig = KinecloudConfig.from_pretrained(self.predictor_folder)  # pyright: ignore
        # without the dynamics loss nothing teaches the displacement of single points; nothing makes latent actions now
        untaught = settings.dynamics == 0 or self.known.latent_action
        some_rest = settings.trunk == "separate" or (settings.trunk_learns and untaught)
        super().__init__(config, STAGE, settings, align_made_from(config, settings), some_rest, change_ranks)

    def predictor(self) -> KinecloudPredictor:
        """The predictor that alignment starts with: the pretrained one, or one like it that has learned nothing."""
        pretrained = KinecloudPredictor.from_pretrained(self.predictor_folder)
        if self.settings.start == "pretrained":
            return pretrained
        torch.manual_seed(self.seed)
        fresh = KinecloudPredictor(pretrained.config)
        if pretrained.reader is not None:
            fresh.read_with(pretrained.reader.tokenizer)
        return fresh

    @cached_property
    def window(self) -> WindowConfig:
        """Training windows as the predictor knows them, with actions."""
        return WindowConfig(
            past_s=tuple(self.known.past_times),
            horizons_s=tuple(self.known.horizons),
            image_size=self.known.image_size,
            points=self.settings.points,
            scene=self.known.scene,  # pyright: ignore[reportArgumentType]
            action_chunk=self.settings.action_chunk,
        )

    @cached_property
    def labelled(self) -> LabelledSet:
        """The labelled training clips."""
        return labelled_set(self.train_shards)

    @property
    def leaves_out_tasks(self) -> bool:
        """Whether tasks are left out to learn what holds in tasks without labels; recordings otherwise."""
        asked, labelled = self.settings.left_out, self.labelled
        return len(labelled.task_mean_actions) > 1 and (bool(labelled.only_seen) if asked is None else asked == "tasks")

    @cached_property
    def val_windows(self) -> WindowDataset:
        """The held-out labelled windows, with all points."""
        return WindowDataset(self.val_shards, self.window, labels="only", all_points=True)
