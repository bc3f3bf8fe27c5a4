"""Pretraining: one process, or several under ``accelerate launch``.

Everything random is a pure function of (seed, step, rank), so a run that was killed continues to the very same weights
and the very same metrics file.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor

from data.clips import Shard
from data.loader import WindowDataset, batches
from pipeline.atomic import publishing_dir, remove_leftovers, write_json, write_lines
from pipeline.config import Config
from pipeline.errors import KinecloudError
from pipeline.fingerprint import DONE, mark_done, require_same
from pretrain import checkpoint
from pretrain.augment import augment
from pretrain.evaluate import evaluate, validation_chamfer_mm
from pretrain.modeling_kinecloud import KinecloudConfig, KinecloudPredictor
from pretrain.objectives import Loss, loss_of
from pretrain.recorder import Recorder
from pretrain.run import Run
from pretrain.schedule import learning_rate


def pretrain(config: Config, resume: bool) -> None:
    """Trains the predictor of a run, evaluates it and publishes it as RUN/pretrain/model.

    resume: go on from the latest checkpoint if there is one; otherwise whatever was trained before is discarded.
    Raises Refused when what is stored was made with another configuration, UserError for bad configuration or data.
    """
    run = Run(config)
    if not resume:
        _discard(run)
    train(run)
    if run.leads:
        publish(run)
        evaluate(config, run.folder / "model")
        mark_done(run.folder, run.made_from, best=run.best)
        run.say(f"done: {run.folder / 'model'}")
    run.accelerator.wait_for_everyone()
    run.accelerator.end_training()


def new_model(run: Run) -> KinecloudPredictor:
    """The untrained predictor; its weights depend on the seed alone."""
    settings = run.settings
    size = settings.model.model_dump()
    if size["embodiments"] is None:
        shards = [Shard(path) for path in run.train_shards]
        size["embodiments"] = sorted({shard.meta(key).embodiment for shard in shards for key in shard.keys})
    torch.manual_seed(run.seed)
    window = settings.window
    return KinecloudPredictor(
        KinecloudConfig(image_size=window.image_size, past_times=window.past_s, horizons=window.horizons_s, **size)
    )


def train(run: Run) -> None:
    """Optimizes until the configured step; checkpoints and metrics are on disk afterwards."""
    settings, accelerator = run.settings, run.accelerator
    model = new_model(run).to(accelerator.device)
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}],
        betas=(0.9, 0.99),
        fused=True,
    )
    step, average = _restore(run, model, optimizer)
    if step >= settings.steps:
        return
    dataset = WindowDataset(run.train_shards, settings.window)
    source = batches(
        dataset, settings.batch_size, run.seed, step, accelerator.process_index, accelerator.num_processes,
        settings.loader_workers,
    )  # fmt: skip
    run.say(
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, {len(dataset)} windows, "
        f"{accelerator.num_processes} rank(s) x {settings.batch_size}, steps {step} to {settings.steps}",
    )
    ranks_model = accelerator.prepare(model)
    recorder = Recorder(run, step)
    while step < settings.steps:
        window = _to_device(next(source), accelerator.device)
        rate = learning_rate(
            step, settings.steps, settings.learning_rate, settings.warmup_steps, settings.final_learning_rate
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = _loss(run, ranks_model, window, step)
        _require_finite(run, loss, window, step)
        accelerator.backward(loss.total)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.gradient_clip)
        if not torch.isfinite(norm):
            raise KinecloudError(
                f"step {step}: the gradient is not finite, the loss is; lower pretrain.learning_rate and start again"
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
            _checkpoint(run, recorder, model, optimizer, average, step)
            accelerator.wait_for_everyone()
    recorder.close()


def _loss(run: Run, model: torch.nn.Module, window: dict[str, Any], step: int) -> Loss:
    # one generator per (seed, step, rank): nothing random outlives a step, so there is no random state to save
    entropy = np.random.SeedSequence([run.seed, step, run.accelerator.process_index])
    random = torch.Generator().manual_seed(int(entropy.generate_state(1, np.uint64)[0] >> 1))
    window = augment(window, run.settings.augment, random)
    with run.accelerator.autocast():
        prediction = model(**window)
    return loss_of(prediction, window, run.settings.objective)


def _require_finite(run: Run, loss: Loss, window: dict[str, Any], step: int) -> None:
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
        "untouched: look at these clips (python -m data peek), or lower pretrain.learning_rate and start again."
    )


def _restore(
    run: Run, model: KinecloudPredictor, optimizer: torch.optim.Optimizer
) -> tuple[int, dict[str, Tensor] | None]:
    """Step and averaged weights to go on from; model and optimizer are set in place."""
    found = checkpoint.latest(run.checkpoints)
    if found is None:
        _discard(run)
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


def _discard(run: Run) -> None:
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
    run: Run,
    recorder: Recorder,
    model: KinecloudPredictor,
    optimizer: torch.optim.Optimizer,
    average: dict[str, Tensor] | None,
    step: int,
) -> None:
    """Validates and saves, on the leading rank."""
    if not run.leads:
        return
    settings = run.settings
    training = {name: value.clone() for name, value in model.state_dict().items()} if average is not None else None
    if average is not None:
        model.load_state_dict(average)
    error = validation_chamfer_mm(model, run.val_windows, settings.validation_windows)
    if training is not None:
        model.load_state_dict(training)
    # without held-out clips the last checkpoint is the one to use
    if error is None or run.best is None or error < run.best["chamfer_mm"]:
        run.best = {"step": step, "chamfer_mm": error}
    if error is not None:
        recorder.validation(step, error)
    state = {"step": step, "made_from": run.made_from, "best": run.best}
    checkpoint.save(checkpoint.folder_of(run.checkpoints, step), model, optimizer, average, state)
    checkpoint.prune(run.checkpoints, settings.keep_last, [run.best["step"]])


def _update_average(average: dict[str, Tensor], model: KinecloudPredictor, decay: float, step: int) -> None:
    decay = min(decay, (1 + step) / (10 + step))  # a short memory at first, so that the start is forgotten
    for name, value in model.state_dict().items():
        average[name].lerp_(value, 1 - decay)


def _to_device(window: dict[str, Any], device: torch.device) -> dict[str, Any]:
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in window.items()}


def publish(run: Run) -> None:
    """Copies the best checkpoint's weights to RUN/pretrain/model."""
    found = checkpoint.latest(run.checkpoints)
    assert found is not None
    best = checkpoint.read_state(found)["best"]
    run.best = best
    source = checkpoint.folder_of(run.checkpoints, best["step"])
    with publishing_dir(run.folder / "model") as temporary:
        for name in ("config.json", "model.safetensors"):
            shutil.copyfile(source / name, temporary / name)
        write_json(temporary / "provenance.json", {"made_from": run.made_from, "best": best})
