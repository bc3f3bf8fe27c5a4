"""Checkpoints of a training run: model, optimizer and step in one folder that appears whole or not at all.

    step-00000200/config.json, model.safetensors     weights to use (the averaged ones when averaging is on)
                  tokenizer*.json                    of a text encoder, when the model has one
                  training.safetensors               with averaging: those that differ in what training goes on from
                  optimizer.safetensors              AdamW's two moments by parameter name
                  state.json                         step, samples read, what it was made from, best checkpoint so far

Nothing is pickled. The data position is the number of samples read, and random numbers come from the samples, so there
is neither loader state nor random state. Tensors are stored in full however the run was spread over ranks, so a run in
shards goes on from a checkpoint of one that was not, and the other way round.
"""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from pipeline.atomic import publishing_dir
from pipeline.errors import KinecloudError, UserError
from pretrain.average import Average
from pretrain.model.tokenizer import Tokenizing
from pretrain.ranks import split_like, whole

FOR_TRAINING = ("training.safetensors", "optimizer.safetensors", "state.json")  # what users of the model do not need
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


@dataclass(frozen=True)
class Snapshot:
    """Full tensors on the CPU by name. weights: those that training goes on from. average: of those that learn."""

    weights: dict[str, Tensor]
    average: dict[str, Tensor] | None
    moments: dict[str, Tensor]


def gather(model: nn.Module, optimizer: torch.optim.Optimizer, average: Average | None, keep: bool) -> Snapshot:
    """What there is to save. All ranks call it together; only those that ``keep`` it get the tensors."""
    return Snapshot(
        _gathered(distinct_state(model).items(), keep),
        None if average is None else _gathered(average.values.items(), keep),
        _gathered(_moments(model, optimizer), keep),
    )


def distinct_state(model: nn.Module) -> dict[str, Tensor]:
    """Weights and buffers by name, on their rank, tied weights under their first name only."""
    state: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in model.state_dict(keep_vars=True).items():
        if id(value) not in seen:
            seen.add(id(value))
            state[name] = value.detach()
    return state


def _gathered(values: Iterable[tuple[str, Tensor]], keep: bool) -> dict[str, Tensor]:
    found = {}
    for name, value in values:  # one by one, so that no rank ever holds a second full model on its device
        full = whole(value.detach())
        if keep:
            found[name] = full.cpu().contiguous()
    return found


def _moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in model.named_parameters():
        if parameter in optimizer.state:
            for moment in _MOMENTS:
                yield f"{name}/{moment}", optimizer.state[parameter][moment]


def save(folder: Path, model: PreTrainedModel, snapshot: Snapshot, state: dict[str, Any]) -> None:
    """Publishes a checkpoint, on one rank. Raises KinecloudError when the disk is full; earlier ones are untouched."""
    try:
        with publishing_dir(folder) as temporary:
            model.config.save_pretrained(temporary)
            if isinstance(model, Tokenizing):
                model.save_tokenizer(temporary)
            if snapshot.average is not None:
                learned = {name: snapshot.weights[name] for name in snapshot.average}
                save_file(learned, temporary / "training.safetensors", {"format": "pt"})
            published = snapshot.weights | (snapshot.average or {})
            save_file(published, temporary / "model.safetensors", {"format": "pt"})
            save_file(snapshot.moments, temporary / "optimizer.safetensors", {"format": "pt"})
            (temporary / "state.json").write_text(json.dumps(state, indent=1, sort_keys=True))
    except (OSError, SafetensorError) as error:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "Free space there" if full else "Look at the disk"
        raise KinecloudError(
            f"{folder}: the checkpoint cannot be written ({error}). Earlier checkpoints are untouched. {remedy} and "
            "run the same command again."
        ) from error


def load_weights(folder: Path, model: PreTrainedModel) -> None:
    """Sets the weights that training goes on from, in a model that is whole. Raises UserError when they do not fit."""
    path, apart = folder / "model.safetensors", folder / "training.safetensors"
    weights = _read(path) | (_read(apart) if apart.exists() else {})
    missing, unknown = model.load_state_dict(weights, strict=False)
    missing = [name for name in missing if name in distinct_state(model)]
    if missing or unknown:
        raise UserError(
            f"{path}: not the weights of this model: {len(missing)} are missing and {len(unknown)} unknown, such as "
            f"{(missing + unknown)[0]}. The checkpoint is of another version; start again with --no-resume."
        )


def load_rest(folder: Path, model: PreTrainedModel, optimizer: torch.optim.Optimizer, average: Average | None) -> None:
    """Sets the optimizer's moments and the averaged weights, after the model was spread over the ranks."""
    stored = _read(folder / "optimizer.safetensors")
    for name, parameter in model.named_parameters():
        if f"{name}/step" in stored:
            step = stored[f"{name}/step"].clone().to(parameter.device)
            optimizer.state[parameter] = {"step": step} | {
                moment: split_like(stored[f"{name}/{moment}"], parameter) for moment in _MOMENTS if moment != "step"
            }
    if average is not None:
        published = _read(folder / "model.safetensors")
        average.values = {name: split_like(published[name], value) for name, value in average.values.items()}


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}). Remove {path.parent} to go on from an earlier one."
        ) from error


def prune(checkpoints: Path, keep_last: int, keep_steps: Iterable[int]) -> None:
    """Removes all checkpoints but the last few and those at ``keep_steps``."""
    kept = {folder_of(checkpoints, step) for step in keep_steps}
    for folder in sorted(checkpoints.glob("step-????????"))[:-keep_last]:
        if folder not in kept:
            shutil.rmtree(folder)
