"""What a run finds of itself when it starts, and what it leaves behind: checkpoints, metrics, the published model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from pipeline.atomic import publishing_dir, remove_leftovers, write_json, write_lines
from pipeline.errors import Refused
from pipeline.fingerprint import DONE, differences, require_same
from pretrain import checkpoint
from pretrain.run import TrainingRun
from pretrain.shards import shared_out, without_shared_out


@dataclass
class Position:
    """How far a training is. step: optimizer steps. samples: windows read by all ranks, which is where the endless
    sequence of windows goes on. folder: the checkpoint to go on from, or None at the start.
    history: from which step and sample on the batches were shared out in which way.
    """

    step: int = 0
    samples: int = 0
    folder: Path | None = None
    history: list[dict[str, Any]] = field(default_factory=list)


def restore(run: TrainingRun, model: PreTrainedModel) -> Position:
    """Sets the weights of the latest checkpoint, cuts the metrics file there and says where to go on.

    Raises Refused when the checkpoint was made with another configuration. Another number of ranks is refused, too,
    unless the run was told to change it: it continues with the next window of the sequence, so none is read twice or
    left out; the learning rate goes on by optimizer steps, so with another number of windows per step, the rest of the
    schedule sees more or fewer of them.
    """
    found = checkpoint.latest(run.checkpoints)
    if found is None:
        discard(run)
        return Position(history=[{"step": 0, "samples": 0, **shared_out(run.made_from)}])
    state = checkpoint.read_state(found)
    _require_continuation(run, state["made_from"], found)
    checkpoint.load_weights(found, model)
    position = Position(state["step"], state["samples"], found, list(state["history"]))
    if shared_out(state["made_from"]) != shared_out(run.made_from):
        position.history.append({"step": position.step, "samples": position.samples, **shared_out(run.made_from)})
        run.say(_change(state["made_from"], run.made_from))
    run.best = state["best"]
    if run.leads:
        remove_leftovers(run.checkpoints)
        _truncate_metrics(run.metrics_path, position.step)
    run.say(f"resuming from {found}, after {position.samples} windows")
    run.accelerator.wait_for_everyone()
    return position


def _require_continuation(run: TrainingRun, stored: dict[str, Any], found: Path) -> None:
    require_same(without_shared_out(stored), without_shared_out(run.made_from), found)
    lines = differences(shared_out(stored), shared_out(run.made_from))
    if lines and not run.change_ranks:
        raise Refused(
            f"{found} was made with batches shared out in another way:\n  " + "\n  ".join(lines) + "\nStart it in the "
            "old way again, or say --change-ranks to go on with the next window of the sequence in the new way."
        )


def _change(stored: dict[str, Any], current: dict[str, Any]) -> str:
    before, now = (windows_per_step(document) for document in (stored, current))
    ranks = f"{shared_out(stored)['ranks']} -> {shared_out(current)['ranks']} rank(s)"
    if before == now:
        return f"{ranks}, a step still has {now} windows"
    return f"{ranks}, a step has {now} windows instead of {before}; the learning rate still goes by steps"


def windows_per_step(made_from: dict[str, Any]) -> int:
    """Windows that all ranks together read for one optimizer step."""
    shares = shared_out(made_from)
    return shares["ranks"] * shares["batch_size"] * shares["gradient_accumulation"]


def discard(run: TrainingRun) -> None:
    """Removes every trace of earlier training, so that metrics and checkpoints are of one run."""
    if run.leads:
        (run.folder / DONE).unlink(missing_ok=True)
        run.metrics_path.unlink(missing_ok=True)
        for folder in (run.checkpoints, run.folder / "tensorboard", run.folder / "wandb"):
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


def publish(run: TrainingRun, finish: Callable[[Path], None] | None = None) -> None:
    """Copies the best checkpoint's weights to the run's ``model`` folder. finish: changes it before anyone sees it."""
    found = checkpoint.latest(run.checkpoints)
    assert found is not None
    state = checkpoint.read_state(found)
    run.best = state["best"]
    source = checkpoint.folder_of(run.checkpoints, state["best"]["step"])
    provenance = {"made_from": run.made_from, "best": state["best"], "history": state["history"]}
    with publishing_dir(run.folder / "model") as temporary:
        for path in source.iterdir():
            if path.name not in checkpoint.FOR_TRAINING:
                shutil.copyfile(path, temporary / path.name)
        write_json(temporary / "provenance.json", provenance)
        if finish is not None:
            finish(temporary)
