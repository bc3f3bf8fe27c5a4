"""The training loop of every stage that trains: one process, or several under ``accelerate launch``.

Everything random about a sample is a pure function of the seed and its position in the sequence, so a run that was
killed continues to the very same weights and the very same metrics file.
"""

from __future__ import annotations

import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from transformers import PreTrainedModel

from data.loader import WindowDataset, batches
from pipeline.atomic import publishing_dir, remove_leftovers, write_json, write_lines
from pipeline.errors import KinecloudError
from pipeline.fingerprint import DONE, require_same
from pretrain import checkpoint
from pretrain.objectives import Loss
from pretrain.recorder import Recorder
from pretrain.run import TrainingRun
from pretrain.schedule import learning_rate


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
        """The error on held-out windows, or None when there are none."""

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

    Goes on from the latest checkpoint; raises Refused when that was made with another configuration.
    """
    run = training.run
    settings, accelerator = run.settings, run.accelerator
    model: Any = training.new_model()
    model.to(accelerator.device)
    optimizer = torch.optim.AdamW(training.parameter_groups(model), betas=(0.9, 0.99), fused=True)
    step, average = _restore(run, model, optimizer)
    if step >= settings.steps:
        return
    dataset = training.dataset
    source = batches(
        dataset, settings.batch_size, run.seed, step * settings.batch_size * accelerator.num_processes,
        accelerator.process_index, accelerator.num_processes, settings.loader_workers,
    )  # fmt: skip
    learned = sum(p.numel() for p in model.parameters() if p.requires_grad)
    run.say(
        f"{learned / 1e6:.2f} M parameters to learn, {len(dataset)} windows, {accelerator.num_processes} rank(s) x "
        f"{settings.batch_size}, steps {step} to {settings.steps}"
    )
    ranks_model = accelerator.prepare(model)
    recorder = Recorder(run, step)
    while step < settings.steps:
        window = _to_device(next(source), accelerator.device)
        rate = learning_rate(
            step, settings.steps, settings.learning_rate, settings.warmup_steps, settings.final_learning_rate
        )
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        loss = training.loss(ranks_model, window, step / settings.steps)
        _require_finite(run, loss, window, step)
        accelerator.backward(loss.total)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.gradient_clip)
        if not torch.isfinite(norm):
            raise KinecloudError(
                f"step {step}: the gradient is not finite, the loss is; lower {run.stage}.learning_rate and start again"
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        if average is not None:
            _update_average(average, model, settings.ema_decay, step)
        values = {"loss": loss.total.detach(), **loss.terms}
        means = accelerator.reduce(torch.stack(list(values.values())), "mean")
        assert isinstance(means, Tensor)
        row = dict(zip(values, means.tolist(), strict=True))
        recorder.step(step, row | {"gradient_norm": float(norm), "learning_rate": rate})
        if step % settings.checkpoint_every == 0 or step == settings.steps:
            _checkpoint(training, recorder, model, optimizer, average, step)
            accelerator.wait_for_everyone()
    recorder.close()


def _require_finite(run: TrainingRun, loss: Loss, window: dict[str, Any], step: int) -> None:
    """Stops all ranks together, before the optimizer steps, when any rank's loss is not finite; names the clips."""
    bad_B = ~torch.isfinite(loss.per_window_B)
    flag = (bad_B.any() | ~torch.isfinite(loss.total.detach())).float().reshape(1)
    count = run.accelerator.reduce(flag, "sum")
    assert isinstance(count, Tensor)
    if count.item() == 0:
        return
    clips = sorted({key for key, bad in zip(window["key"], bad_B.tolist(), strict=True) if bad})
    clips = sorted(set(gather_object(clips)))
    raise KinecloudError(
        f"step {step}: the loss is not finite for {', '.join(clips) or 'the sum of the batch'}. The last checkpoint is "
        f"untouched: look at these clips (python -m data peek), or lower {run.stage}.learning_rate and start again."
    )


def _restore(
    run: TrainingRun, model: PreTrainedModel, optimizer: torch.optim.Optimizer
) -> tuple[int, dict[str, Tensor] | None]:
    """Step and averaged weights to go on from; model and optimizer are set in place."""
    found = checkpoint.latest(run.checkpoints)
    if found is None:
        discard(run)
        start = {n: v.detach().clone() for n, v in model.state_dict().items()}
        return 0, start if run.settings.ema_decay else None
    state = checkpoint.read_state(found)
    require_same(state["made_from"], run.made_from, found)
    average = checkpoint.load(found, model, optimizer)
    run.best = state["best"]
    if run.leads:
        remove_leftovers(run.checkpoints)
        _truncate_metrics(run.metrics_path, state["step"])
    run.say(f"resuming from {found}")
    run.accelerator.wait_for_everyone()
    return state["step"], average


def discard(run: TrainingRun) -> None:
    """Removes every trace of earlier training, so that metrics and checkpoints are of one run."""
    if run.leads:
        (run.folder / DONE).unlink(missing_ok=True)
        run.metrics_path.unlink(missing_ok=True)
        for folder in (run.checkpoints, run.folder / "tensorboard"):
            shutil.rmtree(folder, ignore_errors=True)
    run.accelerator.wait_for_everyone()


def _truncate_metrics(path: Path, step: int) -> None:
    """Drops what was recorded after the checkpoint; the killed process may have left half a line at the end."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            break
        if row["step"] <= step:
            rows.append(row)
    write_lines(path, rows)


def _checkpoint(
    training: Training,
    recorder: Recorder,
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    average: dict[str, Tensor] | None,
    step: int,
) -> None:
    """Validates and saves, on the leading rank."""
    run = training.run
    if not run.leads:
        return
    settings = run.settings
    learned = {name: value.clone() for name, value in model.state_dict().items()} if average is not None else None
    if average is not None:
        model.load_state_dict(average)
    error = training.validate(model)
    if learned is not None:
        model.load_state_dict(learned)
    # without held-out clips the last checkpoint is the one to use
    if error is None or run.best is None or error < run.best[training.measure]:
        run.best = {"step": step, training.measure: error}
    if error is not None:
        recorder.validation(step, training.measure, error, training.measure_words)
    state = {"step": step, "made_from": run.made_from, "best": run.best}
    checkpoint.save(checkpoint.folder_of(run.checkpoints, step), model, optimizer, average, state)
    checkpoint.prune(run.checkpoints, settings.keep_last, [run.best["step"]])


def _update_average(average: dict[str, Tensor], model: PreTrainedModel, decay: float, step: int) -> None:
    decay = min(decay, (1 + step) / (10 + step))  # a short memory at first, so that the start is forgotten
    for name, value in model.state_dict().items():
        average[name].lerp_(value, 1 - decay)


def _to_device(window: dict[str, Any], device: torch.device) -> dict[str, Any]:
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in window.items()}


def publish(run: TrainingRun) -> None:
    """Copies the best checkpoint's weights to the run's ``model`` folder."""
    found = checkpoint.latest(run.checkpoints)
    assert found is not None
    best = checkpoint.read_state(found)["best"]
    run.best = best
    source = checkpoint.folder_of(run.checkpoints, best["step"])
    with publishing_dir(run.folder / "model") as temporary:
        for name in ("config.json", "model.safetensors"):
            shutil.copyfile(source / name, temporary / name)
        write_json(temporary / "provenance.json", {"made_from": run.made_from, "best": best})
