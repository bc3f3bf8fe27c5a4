"""One alignment run: where it writes, what it is made from, and what it starts with."""

from __future__ import annotations

from functools import cached_property

import torch

from align.config import AlignConfig
from align.labels import LabelledSet, labelled_set
from align.offset import fitted_offset
from align.origin import align_made_from, predictor_folder
from data.config import WindowConfig
from data.loader import WindowDataset
from pipeline.config import Config
from pipeline.errors import UserError
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

    @cached_property
    def offset_m(self) -> tuple[float, float, float]:
        """From where the robot's points are found to where those of ``align.asks_as`` would be: metres, camera frame.

        Raises UserError for an embodiment that the predictor does not know, or labelled clips too short to tell.
        """
        name, known = self.settings.asks_as, self.known.embodiments
        if name is None:
            return (0.0, 0.0, 0.0)
        if name not in known:
            told = ", ".join(sorted(known))
            raise UserError(f"align.asks_as: {name!r}: the predictor was never shown such; it knows {told}")
        windows = WindowDataset(self.train_shards, self.window, labels="only")
        found = fitted_offset(self.predictor().eval(), windows, known.index(name) + 1)
        if found is None:
            raise UserError(
                f"align.asks_as: no labelled clip is longer than {self.known.horizons[0]:g} s, so none tells how far "
                f"the points of {name} are beside the robot's. Record longer episodes, or leave asks_as at null."
            )
        told = ", ".join(f"{1000 * metres:+.1f}" for metres in found.metres_3)
        self.say(
            f"asked as {name}, with points moved by ({told}) mm: what is predicted of the labelled clips is "
            f"{1000 * found.with_m:.1f} mm off instead of {1000 * found.without_m:.1f}"
        )
        return found.metres_3

    @property
    def leaves_out_tasks(self) -> bool:
        """Whether tasks are left out to learn what holds in tasks without labels; recordings otherwise."""
        asked, labelled = self.settings.left_out, self.labelled
        return len(labelled.task_mean_actions) > 1 and (bool(labelled.only_seen) if asked is None else asked == "tasks")

    @cached_property
    def val_windows(self) -> WindowDataset:
        """The held-out labelled windows, with all points."""
        return WindowDataset(self.val_shards, self.window, labels="only", all_points=True)
