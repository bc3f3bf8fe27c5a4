"""The training loop of every stage that trains: one process, or several under ``accelerate launch``.

Everything random about a sample is a pure function of the seed and its position in the sequence, so a run that was
killed continues to the very same weights and the very same metrics file. A step learns from the mean over the windows
of all its batches on all ranks: how they are shared out changes nothing but rounding.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from transformers import PreTrainedModel

from data.loader import WindowDataset, batches
from pipeline.errors import KinecloudError
from pretrain import checkpoint
from pretrain.acceleration import accelerate_model
from pretrain.average import Average
from pretrain.objectives import Loss
from pretrain.ranks import clip_gradients, spread, without_sync
from pretrain.recorder import NORM, Recorder
from pretrain.resume import Position, discard, publish, restore, windows_per_step
from pretrain.run import TrainingRun
from pretrain.schedule import learning_rate
from pretrain.stop import Stopped, StopRequest

__all__ = ["Loop", "Training", "discard", "optimize", "parameter_groups", "publish"]


class Training(ABC):
    """What is trained, on what, and how it is judged.

    measure: name of the validation error in metrics and checkpoints; smaller is better. measure_words: for people.
    """

    measure: str
    measure_words: str

    def __init__(self, run: TrainingRun):
        self.run = run

    @property
    @abstractmethod
    def dataset(self) -> WindowDataset:
        """The windows to train on."""

    @abstractmethod
    def new_model(self) -> PreTrainedModel:
        """The model before its first step; a pure function of configuration and seed."""

    @abstractmethod
    def loss(self, model: nn.Module, window: dict[str, Any], progress: float) -> Loss:
        """The mean over all windows of a batch; ``model`` may be wrapped for several ranks. What is random in it comes
        from ``window["seed"]``. progress: share of the training that is done, 0..1."""

    @abstractmethod
    def validate(self, model: Any) -> float | None:
        """The error on held-out windows, or None when there are none. With shards, all ranks call it together."""

    def parameter_groups(self, model: Any) -> list[dict[str, Any]]:
        """What the optimizer changes."""
        return parameter_groups(model.parameters(), self.run.settings.weight_decay)


def parameter_groups(parameters: Iterable[nn.Parameter], weight_decay: float, **options: Any) -> list[dict[str, Any]]:
    """AdamW groups: decay on matrices only. options: ``lr_scale`` multiplies the scheduled learning rate."""
    learned = [p for p in parameters if p.requires_grad]
    matrices, others = [p for p in learned if p.ndim >= 2], [p for p in learned if p.ndim < 2]
    return [
        {"params": matrices, "weight_decay": weight_decay, **options},
        {"params": others, "weight_decay": 0.0, **options},
    ]


def optimize(training: Training) -> None:
    """Optimizes until the configured step; checkpoints and metrics are on disk afterwards.

    Goes on from the latest checkpoint. Raises Refused when that was made with another configuration, Stopped after a
    SIGTERM, KinecloudError when a loss or a gradient is not finite or a checkpoint cannot be written.
    """
    model = training.new_model()
    position = restore(training.run, model)
    if position.step < training.run.settings.steps:
        Loop(training, model, position).run_all()


@dataclass(frozen=True)
class _Part:
    """What is kept of one batch of a step."""

    loss: Loss
    keys: list[str]


class Loop:
    """The state of a training between steps: model, optimizer, averaged weights, position."""

    def __init__(self, training: Training, model: PreTrainedModel, position: Position):
        run = training.run
        settings, accelerator = run.settings, run.accelerator
        self.training, self.run, self.settings, self.position = training, run, settings, position
        accelerate_model(run, model)
        learned = sum(p.numel() for p in model.parameters() if p.requires_grad)
        frozen = sum(p.numel() for p in model.parameters()) - learned
        self.ranks_model = spread(model, accelerator.device, accelerator.num_processes, run.shards, run.some_rest)
        self.model = model.train()
        self.optimizer = torch.optim.AdamW(training.parameter_groups(model), betas=(0.9, 0.99), fused=True)
        self.average = Average(model, settings.ema_decay) if settings.ema_decay else None
        if position.folder is not None:
            checkpoint.load_rest(position.folder, model, self.optimizer, self.average)
        self.learned = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.per_step = windows_per_step(run.made_from)
        dataset = training.dataset
        self.source = batches(
            dataset, settings.batch_size, run.seed, position.samples, accelerator.process_index,
            accelerator.num_processes, settings.loader_workers, pin_memory=accelerator.device.type == "cuda",
        )  # fmt: skip
        self.recorder = Recorder(run, position.step, self.per_step)
        self.stop = StopRequest()
        self.norm = torch.zeros((), device=accelerator.device)  # of the last gradient
        run.say(
            f"{_millions(learned)} parameters to learn, {_millions(frozen)} frozen, {len(dataset)} windows, "
            f"{accelerator.num_processes} rank(s) x {settings.gradient_accumulation} x {settings.batch_size}"
            f"{' in shards' if run.shards and accelerator.num_processes > 1 else ''}, steps {position.step} to "
            f"{settings.steps}, on {accelerator.device}"
        )

    def run_all(self) -> None:
        with self.stop, contextlib.closing(self.recorder):
            while self.position.step < self.settings.steps:
                stopping = self.one_step()
                step = self.position.step
                if step % self.settings.checkpoint_every == 0 or step == self.settings.steps:
                    self.save(validated=True)
                elif stopping:
                    self.save(validated=False)
                if stopping and step < self.settings.steps:
                    raise Stopped(
                        f"stopped by SIGTERM after step {step}; the checkpoint is written. Run the same command again "
                        "to go on."
                    )

    def one_step(self) -> bool:
        """Learns from the next batches; returns whether any rank was asked to stop."""
        settings, step = self.settings, self.position.step
        rate = learning_rate(
            step, settings.steps, settings.learning_rate, settings.warmup_steps, settings.final_learning_rate
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        parts: list[_Part] = []
        stopping = False
        for number in range(settings.gradient_accumulation):
            last = number == settings.gradient_accumulation - 1
            with contextlib.nullcontext() if last else without_sync(self.ranks_model):
                part = self._loss()
                parts.append(_Part(_detached(part.loss), part.keys))
                if last:
                    # before the backward pass in which ranks exchange gradients: one whose loss is broken may have
                    # none for some weights, and the others would wait for them
                    stopping = self._judge(parts)
                (part.loss.total / settings.gradient_accumulation).backward()
        self.norm = clip_gradients(self.learned, settings.gradient_clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.position.step += 1
        self.position.samples += self.per_step
        if self.average is not None:
            self.average.update(self.model, self.position.step)
        self.recorder.step(self.position.step, _mean(parts) | {NORM: self.norm}, {"learning_rate": rate})
        return stopping

    def _loss(self) -> _Part:
        window = next(self.source)
        # what a model draws without asking for seeds, such as dropout, repeats after a resume as well
        torch.manual_seed(int(window["seed"][0]))
        window = _to_device(window, self.run.accelerator.device)
        loss = self.training.loss(self.ranks_model, window, self.position.step / self.settings.steps)
        return _Part(loss, window["key"])

    def _judge(self, parts: list[_Part]) -> bool:
        """Stops all ranks together, before the optimizer steps, when the loss of any batch of the step is not finite;
        names the clips. Returns whether any rank was asked to stop. Waits for the whole step on the device.
        """
        bad = torch.stack([_is_bad(part.loss) for part in parts]).any().float()
        flags = torch.stack([bad, bad.new_tensor(float(self.stop.received)), ~torch.isfinite(self.norm)])
        total = self.run.accelerator.reduce(flags, "sum")
        assert isinstance(total, Tensor)
        bad_ranks, asked_to_stop, broken_gradient = total.tolist()
        if broken_gradient or bad_ranks:
            self.recorder.flush()  # the curves up to here; raises when it was the gradient
        if bad_ranks:
            raise _loss_not_finite(self.run, parts, self.position.step + 1)
        return asked_to_stop > 0

    def save(self, validated: bool) -> None:
        """Writes a checkpoint. validated: judge it first; one that is written in a hurry is no candidate for the best,
        and the metrics stay those of a run that was not stopped."""
        run, step = self.run, self.position.step
        self.recorder.flush()
        with self.recorder.pause():
            error = None
            judges = run.leads or run.shards  # shards are put together by all ranks
            if validated and judges:
                with self.average.in_place_of(self.model) if self.average else contextlib.nullcontext():
                    error = self.training.validate(self.model)
                self.model.train()
            snapshot = checkpoint.gather(self.model, self.optimizer, self.average, run.leads)
            if run.leads:
                measure = self.training.measure
                # without held-out clips the last checkpoint is the one to use
                if validated and (error is None or run.best is None or error < run.best[measure]):
                    run.best = {"step": step, measure: error}
                if error is not None:
                    self.recorder.validation(step, measure, error, self.training.measure_words)
                state = {
                    "step": step, "samples": self.position.samples, "made_from": run.made_from, "best": run.best,
                    "history": self.position.history,
                }  # fmt: skip
                checkpoint.save(checkpoint.folder_of(run.checkpoints, step), self.model, snapshot, state)
                best = [run.best["step"]] if run.best else []
                checkpoint.prune(run.checkpoints, self.settings.keep_last, best)
            run.accelerator.wait_for_everyone()


def _is_bad(loss: Loss) -> Tensor:
    return (~torch.isfinite(loss.per_window_B)).any() | ~torch.isfinite(loss.total.detach())


def _detached(loss: Loss) -> Loss:
    return Loss(loss.total.detach(), loss.terms, loss.per_window_B)


def _mean(parts: list[_Part]) -> dict[str, Tensor]:
    """Loss and terms of a step on this rank."""
    rows = [{"loss": part.loss.total, **part.loss.terms} for part in parts]
    return {name: torch.stack([row[name] for row in rows]).mean() for name in rows[0]}


def _loss_not_finite(run: TrainingRun, parts: list[_Part], step: int) -> KinecloudError:
    """All ranks call it together. step: 1-based."""
    clips: list[str] = []
    for part in parts:
        bad_B = ~torch.isfinite(part.loss.per_window_B)
        clips += [key for key, bad in zip(part.keys, bad_B.tolist(), strict=True) if bad]
    clips = sorted(set(gather_object(clips)))
    return KinecloudError(
        f"step {step}: the loss is not finite for {', '.join(clips) or 'the sum of the batch'}. The last checkpoint is "
        f"untouched: look at these clips (python -m data peek), or lower {run.stage}.learning_rate and start again."
    )


def _to_device(window: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Seeds stay where random numbers are drawn, on the CPU."""
    return {
        name: value.to(device, non_blocking=True) if isinstance(value, Tensor) and name != "seed" else value
        for name, value in window.items()
    }


def _millions(parameters: int) -> str:
    return f"{parameters / 1e6:.2f} M"
