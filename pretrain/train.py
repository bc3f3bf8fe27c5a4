"""Pretraining: the predictor of motion, trained, evaluated and published."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from torch import nn

from data.clips import Shard
from data.loader import WindowDataset
from data.waypoints import WAYPOINTS
from pipeline.config import Config
from pipeline.fingerprint import mark_done
from pretrain.augment import augment
from pretrain.build import groups_of, new_predictor
from pretrain.evaluate import evaluate, validation_chamfer_mm
from pretrain.loop import Training, discard, optimize, publish
from pretrain.model.modeling_kinecloud import KinecloudPredictor
from pretrain.objectives import Loss, at_present_depth, loss_of, noised
from pretrain.randomness import WindowRandom
from pretrain.run import Run
from pretrain.scale import displacement_scale


def pretrain(config: Config, resume: bool, change_ranks: bool = False) -> None:
    """Trains the predictor of a run, evaluates it and publishes it as RUN/pretrain/model.

    resume: go on from the latest checkpoint if there is one; otherwise whatever was trained before is discarded.
    change_ranks: go on although the batches are shared out in another way than before.
    Raises Refused when what is stored was made with another configuration, UserError for bad configuration or data.
    """
    run = Run(config, change_ranks)
    if not resume:
        discard(run)
    train(run)
    if run.part():
        publish(run)
        evaluate(config, run.folder / "model")
        mark_done(run.folder, run.made_from, best=run.best)
        run.say(f"done: {run.folder / 'model'}")


def train(run: Run) -> None:
    """Optimizes until the configured step; checkpoints and metrics are on disk afterwards."""
    optimize(Pretraining(run))


class Pretraining(Training):
    """Future clouds from images, instructions and past clouds."""

    measure = "chamfer_mm"
    measure_words = "held-out Chamfer, mean over horizons, {:.2f} mm"

    def __init__(self, run: Run):
        super().__init__(run)
        self.settings = run.settings
        self.val_windows = run.val_windows

    @cached_property
    def dataset(self) -> WindowDataset:  # pyright: ignore[reportIncompatibleMethodOverride]
        latent = self.settings.objective.latent_action > 0
        return WindowDataset(
            self.run.train_shards,
            self.settings.window,
            mixture=self.settings.mixture,
            image_later=latent,
            cache_mb=self.settings.loader_cache_mb,
        )

    def new_model(self) -> KinecloudPredictor:
        settings, train_shards = self.settings, self.run.train_shards
        embodiments = settings.model.embodiments
        if embodiments is None:
            shards = [Shard(path) for path in train_shards]
            embodiments = sorted({shard.meta(key).embodiment for shard in shards for key in shard.keys})
        predictor = new_predictor(
            settings.model,
            settings.window,
            embodiments,
            self.run.seed,
            self.run.say,
            generative=settings.objective.flow_matching > 0,
            latent_action=settings.objective.latent_action > 0,
            waypoints=WAYPOINTS if settings.objective.waypoints > 0 else 0,
            scene=settings.window.scene,
            depth=settings.window.scene == "depth" and settings.model.dimensions == 3,
            objective=settings.objective.model_dump(),
        )
        if predictor.config.generative:
            predictor.config.delta_scale = displacement_scale(predictor, self.dataset)
        return predictor

    def parameter_groups(self, model: KinecloudPredictor) -> list[dict[str, Any]]:
        return groups_of(model, self.settings.model, self.settings.weight_decay)

    def loss(self, model: nn.Module, window: dict[str, Any], progress: float) -> Loss:
        random = WindowRandom(window["seed"])
        window = augment(window, self.settings.augment, random, progress)
        predictor = self.run.accelerator.unwrap_model(model)
        window = noised(window, predictor, random)
        if predictor.config.dimensions == 2:
            window = at_present_depth(window)
        with self.run.accelerator.autocast():
            prediction = model(**window)
        return loss_of(prediction, window, self.settings.objective)

    def validate(self, model: Any) -> float | None:
        return validation_chamfer_mm(model, self.val_windows, self.settings.validation_windows)
