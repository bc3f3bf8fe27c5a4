"""Alignment: from the pretrained predictor and a small labelled set to a policy."""

from __future__ import annotations

from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from align.adapters import adapt, merge
from align.direct import Prepared, prepare
from align.evaluate import evaluate, validation_error
from align.inverse import with_fitted_head
from align.objective import alignment_loss, noised_actions
from align.policy import load_policy
from align.run import AlignRun
from data.config import MixtureConfig
from data.loader import WindowDataset
from pipeline.atomic import publishing_dir, write_json
from pipeline.config import Config
from pipeline.fingerprint import mark_done
from pretrain.augment import augment
from pretrain.config import AugmentSettings, ObjectiveSettings
from pretrain.loop import Training, discard, optimize, parameter_groups, publish
from pretrain.model.direct import DirectHead
from pretrain.model.policy_kinecloud import KinecloudPolicy
from pretrain.objectives import Loss, at_present_depth, noised
from pretrain.randomness import WindowRandom


def align(config: Config, resume: bool, change_ranks: bool = False) -> None:
    """Gives the run's predictor a head, evaluates the policy and publishes it as RUN/align/model.

    resume: go on from the latest checkpoint if there is one; otherwise whatever was trained before is discarded.
    change_ranks: go on although the batches are shared out in another way than before.
    Raises Refused when what is stored was made with another configuration, UserError for bad configuration or data.
    """
    run = AlignRun(config, change_ranks)
    if not resume:
        discard(run)
    learned, adapted = run.settings.head == "direct", run.settings.trunk == "lora"
    if learned:
        optimize(Alignment(run))
    if run.part():
        if learned:
            publish(run, partial(merge, policy=new_policy(run), rank=run.settings.lora_rank) if adapted else None)
        evaluate(run, learned_head(run) if learned else publish_fitted(run))
        mark_done(run.folder, run.made_from, best=run.best, labelled=run.labelled.summary())
        run.say(f"done: {run.folder / 'model'}")


def new_policy(run: AlignRun) -> KinecloudPolicy:
    """The policy before its first step: all weights of the predictor, new projections that depend on the seed alone,
    and no adapters yet."""
    labelled, predictor = run.labelled, run.predictor()
    torch.manual_seed(run.seed)
    policy = KinecloudPolicy.from_predictor(
        predictor,
        action_chunk=run.settings.action_chunk,
        action_names=labelled.spec.names,
        proprio_names=labelled.spec.proprio_names,
        action_quantiles=tuple(labelled.action_quantiles),
        proprio_quantiles=tuple(labelled.proprio_quantiles),
        action_spec=labelled.spec.model_dump(mode="json"),
        head=run.settings.head_name,
        separate=run.settings.trunk == "separate" and run.settings.head == "direct",
        asks_as=run.settings.asks_as,
        offset_m=run.offset_m,
    )
    policy.predictor.requires_grad_(run.settings.trunk == "full")
    return policy


def learned_head(run: AlignRun) -> str:
    """What was learned, for people."""
    head, names = load_policy(run.folder / "model").head, run.labelled.spec.names
    assert isinstance(head, DirectHead)
    counts = ", ".join(
        f"{name} {factor:.2f}" for name, factor in zip(names, head.trust.factors().tolist(), strict=True)
    )
    said = f"direct, learned in {run.settings.steps} steps; what its tokens say counts: {counts}"
    run.say(said)
    return said


def publish_fitted(run: AlignRun) -> str:
    """The policy with a head fitted in closed form, as RUN/align/model; what was fitted, for people."""
    policy, chosen = with_fitted_head(run, new_policy(run))
    fitted = chosen.describe(run.labelled.spec.names)
    told = ", ".join(f"{name} by {told_by}" for name, told_by in fitted["told_by"].items())
    head = f"inverse dynamics, fitted to {policy.config.remembered} windows: {told}"
    run.say(head)
    with publishing_dir(run.folder / "model") as temporary:
        policy.save_pretrained(temporary)
        write_json(temporary / "provenance.json", {"made_from": run.made_from, "fitted": fitted})
    return head


class Alignment(Training):
    """Actions from images, instructions, past clouds and proprioception; the predicted clouds stay part of the loss."""

    measure = "action_error"
    measure_words = "held-out action error {:.4f} (1 = half the range of an action)"

    def __init__(self, run: AlignRun):
        super().__init__(run)
        self.aligned = run
        self.settings = run.settings
        self.augmentation = AugmentSettings.only(color=run.settings.color)

    @cached_property
    def prepared(self) -> Prepared:
        return prepare(self.aligned, new_policy(self.aligned))

    @property
    def dataset(self) -> WindowDataset:
        videos = self.settings.videos
        mixture = MixtureConfig(by="labels", weights={"labelled": 1 - videos, "video": videos})
        return WindowDataset(
            self.run.train_shards,
            self.aligned.window,
            labels="where_known" if videos else "only",
            mixture=mixture if videos else None,
            cache_mb=self.settings.loader_cache_mb,
        )

    def new_model(self) -> KinecloudPolicy:
        policy = new_policy(self.aligned)
        self.prepared.begin(policy)
        self.run.say(self.prepared.told(policy.config.action_names))
        if self.settings.trunk == "lora":
            adapt(policy, self.settings.lora_rank)
        return policy

    def parameter_groups(self, model: KinecloudPolicy) -> list[dict[str, Any]]:
        trunk = set(model.predictor.parameters())
        decay = self.settings.weight_decay
        new = parameter_groups((p for p in model.parameters() if p not in trunk), decay)
        return new + parameter_groups(model.predictor.parameters(), decay, lr_scale=self.settings.trunk_learning_rate)

    def loss(self, model: nn.Module, window: dict[str, Any], progress: float) -> Loss:
        random = WindowRandom(window["seed"])
        policy: KinecloudPolicy = self.run.accelerator.unwrap_model(model)
        window = augment(window, self.augmentation, random, progress)
        window["proprio"] = _noisy(window["proprio"], policy, self.settings.proprio_noise, random)
        window = noised(window, policy.predictor, random)
        window["untaught"] = self.prepared.untaught(window["key"], progress).to(window["past"].device)
        true_BKA = policy.normalize(window["actions"], "action")
        if self.settings.action_loss == "flow_matching":
            window |= noised_actions(true_BKA, random)
        if policy.config.dimensions == 2:
            window = at_present_depth(window)
        with self.run.accelerator.autocast():
            prediction = model(**window)
        dynamics = self.settings.dynamics if self.settings.trunk_learns else 0.0
        # what a latent action is, was settled in pretraining
        objective = ObjectiveSettings.model_validate({**policy.config.objective, "latent_action": 0.0})
        labelled = 1 - self.settings.videos
        return alignment_loss(prediction, true_BKA, window, self.settings.action_loss, dynamics, objective, labelled)

    def validate(self, model: KinecloudPolicy) -> float | None:
        return validation_error(model, self.aligned.val_windows, self.settings.validation_windows)


def _noisy(proprio_BQ: Tensor, policy: KinecloudPolicy, noise: float, random: WindowRandom) -> Tensor:
    """noise: standard deviation after normalisation."""
    span_Q = (policy.get_buffer("proprio_q99") - policy.get_buffer("proprio_q01")) / 2
    return proprio_BQ + noise * span_Q * random.normal(proprio_BQ.shape[1]).to(proprio_BQ.device)
