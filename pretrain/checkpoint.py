"""Checkpoints of a training run: model, optimizer and step in one folder that appears whole or not at all.

    step-00000200/config.json, model.safetensors     weights to use (the averaged ones when averaging is on)
                  training.safetensors               the weights that training goes on from, when averaging is on
                  optimizer.safetensors              AdamW's two moments by parameter name
                  state.json                         step, what it was made from, validation, best checkpoint so far

Nothing is pickled. The data position is the step, so there is no loader state.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from pipeline.atomic import publishing_dir
from pipeline.errors import UserError

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def folder_of(checkpoints: Path, step: int) -> Path:
    """Where the checkpoint after ``step`` optimizer steps is kept."""
    return checkpoints / f"step-{step:08d}"


def latest(checkpoints: Path) -> Path | None:
    """The most advanced complete checkpoint, or None."""
    found = sorted(checkpoints.glob("step-????????"))
    return found[-1] if found else None


def read_state(folder: Path) -> dict[str, Any]:
    """state.json. Raises UserError when it cannot be read."""
    path = folder / "state.json"
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}). Remove {folder} to go on from an earlier one.") from error


def save(
    folder: Path,
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    average: dict[str, Tensor] | None,
    state: dict[str, Any],
) -> None:
    """Publishes a checkpoint. average: averaged weights by name, or None."""
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    with publishing_dir(folder) as temporary:
        model.config.save_pretrained(temporary)
        if average is not None:
            save_file(weights, temporary / "training.safetensors", {"format": "pt"})
            weights = {name: average[name].detach().cpu().contiguous() for name in weights}
        save_file(weights, temporary / "model.safetensors", {"format": "pt"})
        save_file(_moments(model, optimizer), temporary / "optimizer.safetensors", {"format": "pt"})
        (temporary / "state.json").write_text(json.dumps(state, indent=1, sort_keys=True))


def load(folder: Path, model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> dict[str, Tensor] | None:
    """Restores model and optimizer in place; returns the averaged weights, or None when averaging is off."""
    training = folder / "training.safetensors"
    published = load_file(folder / "model.safetensors")
    model.load_state_dict(load_file(training) if training.exists() else published)
    stored = load_file(folder / "optimizer.safetensors")
    for name, parameter in model.named_parameters():
        if f"{name}/step" in stored:
            # cloned: tensors of a mapped file are not aligned like fresh ones, which could change rounding
            optimizer.state[parameter] = {
                moment: stored[f"{name}/{moment}"].clone().to(parameter.device) for moment in _MOMENTS
            }
    if not training.exists():
        return None
    return {name: published[name].clone().to(value.device) for name, value in model.state_dict().items()}


def _moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}/{moment}": optimizer.state[parameter][moment].detach().cpu().contiguous()
        for name, parameter in model.named_parameters()
        if parameter in optimizer.state
        for moment in _MOMENTS
    }


def prune(checkpoints: Path, keep_last: int, keep_steps: Iterable[int]) -> None:
    """Removes all checkpoints but the last few and those at ``keep_steps``."""
    kept = {folder_of(checkpoints, step) for step in keep_steps}
    for folder in sorted(checkpoints.glob("step-????????"))[:-keep_last]:
        if folder not in kept:
            shutil.rmtree(folder)
