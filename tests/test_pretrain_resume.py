"""A training that was stopped, whatever stopped it, goes on to the very bytes of one that was not."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from pipeline.config import load
from pipeline.errors import KinecloudError, Refused, UserError
from pretrain import checkpoint
from pretrain.average import Average
from pretrain.loop import optimize, publish
from pretrain.objectives import Loss
from pretrain.stop import Stopped
from tests.pretrain_clips import moving_clip, write_shard
from tests.tiny_training import STEPS, TinyTraining, tiny_config, tiny_run, train_tiny

# 48 windows and 16 per step: an epoch ends after every third step, a checkpoint is written after every second
CLIPS, EVERY = 3, 2
EVERYTHING: dict[str, Any] = {
    "batch_size": 8, "gradient_accumulation": 2, "ema_decay": 0.9, "checkpoint_every": EVERY, "log_every": 3,
}  # fmt: skip


class Shaken(TinyTraining):
    """With dropout, which asks nobody for seeds."""

    dropout = 0.2


class StoppedInStep5(Shaken):
    """The scheduler wants the machine back in the middle of step 5, and of an epoch."""

    def loss(self, model: nn.Module, window: dict[str, Any], progress: float) -> Loss:
        if progress == 4 / STEPS:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().loss(model, window, progress)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    path = tmp_path_factory.mktemp("clips") / "train-00000.tar"
    write_shard(path, (moving_clip(n) for n in range(CLIPS)))
    return [path]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, shards: list[Path]) -> Path:
    """A training that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    training = train_tiny(tiny_config(folder, shards, **EVERYTHING), kind=Shaken)
    assert len(training.read) == STEPS * 16 and len(set(training.read[:48])) == 48
    return folder


def stage(folder: Path) -> Path:
    return folder / "run" / "pretrain"


def at(folder: Path, step: int) -> Path:
    return checkpoint.folder_of(stage(folder) / "checkpoints", step)


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (stage(folder) / "metrics.jsonl").read_text().splitlines()]


def same_bytes(one: Path, other: Path) -> None:
    assert (stage(one) / "metrics.jsonl").read_bytes() == (stage(other) / "metrics.jsonl").read_bytes()
    names = sorted(path.name for path in at(one, STEPS).iterdir())
    assert "training.safetensors" in names and names == sorted(path.name for path in at(other, STEPS).iterdir())
    for name in names:
        assert (at(one, STEPS) / name).read_bytes() == (at(other, STEPS) / name).read_bytes(), name


@pytest.mark.parametrize("step", [EVERY, 3 * EVERY])
def test_n_steps_and_the_rest_are_all_steps(whole: Path, shards: list[Path], tmp_path: Path, step: int):
    path = tiny_config(tmp_path, shards, **EVERYTHING, keep_last=STEPS)
    train_tiny(path, kind=Shaken)
    for later in range(step + EVERY, STEPS + 1, EVERY):
        shutil.rmtree(at(tmp_path, later))
    train_tiny(path, kind=Shaken)
    same_bytes(whole, tmp_path)


def test_sigterm_ends_the_step_and_writes_a_checkpoint_to_go_on_from(whole: Path, shards: list[Path], tmp_path: Path):
    path = tiny_config(tmp_path, shards, **EVERYTHING)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match=r"after step 5; the checkpoint is written\. Run the same") as stop:
        train_tiny(path, kind=StoppedInStep5)
    assert stop.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert checkpoint.latest(stage(tmp_path) / "checkpoints") == at(tmp_path, 5)
    assert [row["step"] for row in rows(tmp_path) if "loss" in row] == [1, 2, 3, 4, 5]
    training = train_tiny(path, kind=Shaken)
    assert len(training.read) == (STEPS - 5) * 16
    same_bytes(whole, tmp_path)


class EverybodyIsStopped(TinyTraining):
    """As when a scheduler tells all processes of a job, those that read for it as well."""

    def loss(self, model: nn.Module, window: dict[str, Any], progress: float) -> Loss:
        if progress == 4 / STEPS:
            readers = multiprocessing.active_children()
            assert readers
            for reader in readers:
                os.kill(reader.pid or 0, signal.SIGTERM)
                reader.join(0.1)
                assert reader.is_alive()
            os.kill(os.getpid(), signal.SIGTERM)
        return super().loss(model, window, progress)


def test_sigterm_for_all_processes_of_a_job_ends_it_in_order(shards: list[Path], tmp_path: Path):
    path = tiny_config(tmp_path, shards, loader_workers=1)
    with pytest.raises(Stopped, match="after step 5"):
        train_tiny(path, kind=EverybodyIsStopped)
    assert checkpoint.latest(stage(tmp_path) / "checkpoints") == at(tmp_path, 5)


@contextmanager
def old_limits_afterwards() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


class FullDiskAfterStep2(Shaken):
    """As on a full disk, the end of the next checkpoint's largest file cannot be written."""

    def validate(self, model: Any) -> float:
        written = checkpoint.latest(self.run.checkpoints)
        if written is not None:
            size = (written / "optimizer.safetensors").stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        return super().validate(model)


def test_a_full_disk_leaves_the_checkpoint_before_it(whole: Path, shards: list[Path], tmp_path: Path):
    path = tiny_config(tmp_path, shards, **EVERYTHING)
    with (
        old_limits_afterwards(),
        pytest.raises(KinecloudError, match=r"step-00000004: the checkpoint cannot be written \(.*are untouched"),
    ):
        train_tiny(path, kind=FullDiskAfterStep2)
    assert [folder.name for folder in (stage(tmp_path) / "checkpoints").iterdir()] == ["step-00000002"]
    train_tiny(path, kind=Shaken)
    same_bytes(whole, tmp_path)


class WorseAndWorse(TinyTraining):
    """Best after the second step."""

    def validate(self, model: Any) -> float:
        return 1.0 + (self.step != 2) * self.step

    def loss(self, model: nn.Module, window: dict[str, Any], progress: float) -> Loss:
        self.step = round(progress * STEPS) + 1
        return super().loss(model, window, progress)


def test_the_best_and_the_last_checkpoints_are_kept_and_the_best_is_published(shards: list[Path], tmp_path: Path):
    path = tiny_config(tmp_path, shards, checkpoint_every=1, keep_last=3)
    run = train_tiny(path, kind=WorseAndWorse).run
    folders = sorted(folder.name for folder in (stage(tmp_path) / "checkpoints").iterdir())
    assert folders == [f"step-{step:08d}" for step in (2, 6, 7, 8)]
    publish(run)
    published = (stage(tmp_path) / "model" / "model.safetensors").read_bytes()
    assert published == (at(tmp_path, 2) / "model.safetensors").read_bytes()
    assert published != (at(tmp_path, 8) / "model.safetensors").read_bytes()


def test_windows_shared_out_in_another_way_are_refused_unless_asked_for(shards: list[Path], tmp_path: Path):
    with pytest.raises(Stopped, match="after step 5"):
        train_tiny(tiny_config(tmp_path, shards, batch_size=8, gradient_accumulation=2), kind=StoppedInStep5)
    path = tiny_config(tmp_path, shards, batch_size=4)
    with pytest.raises(Refused, match=r"batch_size: 8 -> 4\n  gradient_accumulation: 2 -> 1\n.*--change-ranks"):
        train_tiny(path)
    changed = train_tiny(path, change_ranks=True)
    undisturbed = train_tiny(tiny_config(tmp_path / "whole", shards, batch_size=32))
    assert changed.read == undisturbed.read[5 * 16 : 5 * 16 + (STEPS - 5) * 4]


class BadWindow(TinyTraining):
    """In the first batch of step 6, a window has a loss that is not finite."""

    def loss(self, model: nn.Module, window: dict[str, Any], progress: float) -> Loss:
        loss = super().loss(model, window, progress)
        if len(self.read) != 5 * 16 + 8:
            return loss
        bad_B = loss.per_window_B.clone()
        bad_B[5] = float("inf")
        self.bad = window["key"][5]
        return Loss(loss.total + bad_B.mean(), loss.terms, bad_B)


def test_a_loss_that_is_not_finite_stops_before_the_optimizer_and_names_the_clip(shards: list[Path], tmp_path: Path):
    path = tiny_config(tmp_path, shards, **EVERYTHING)
    training = BadWindow(tiny_run(load(path)))
    with pytest.raises(KinecloudError) as error:
        optimize(training)
    assert f"step 6: the loss is not finite for {training.bad}." in str(error.value)
    assert [row["step"] for row in rows(tmp_path) if "loss" in row] == [1, 2, 3, 4, 5]
    assert checkpoint.latest(stage(tmp_path) / "checkpoints") == at(tmp_path, 4)


class BadGradient(TinyTraining):
    """From step 6 on, a finite loss has a gradient that is not."""

    def loss(self, model: nn.Module, window: dict[str, Any], progress: float) -> Loss:
        loss = super().loss(model, window, progress)
        if progress < 5 / STEPS:
            return loss
        weight = next(iter(model.parameters()))
        return Loss(loss.total + (weight * 0).sum().abs().sqrt(), loss.terms, loss.per_window_B)


@pytest.mark.parametrize("every", [1, 4])
def test_a_gradient_that_is_not_finite_reaches_no_checkpoint(shards: list[Path], tmp_path: Path, every: int):
    path = tiny_config(tmp_path, shards, checkpoint_every=every)
    with pytest.raises(KinecloudError, match="step 6: the gradient is not finite, the loss is"):
        train_tiny(path, kind=BadGradient)
    assert checkpoint.latest(stage(tmp_path) / "checkpoints") == at(tmp_path, 5 if every == 1 else 4)
    assert [row["step"] for row in rows(tmp_path) if "loss" in row] == [1, 2, 3, 4, 5]


def test_a_broken_checkpoint_is_named(shards: list[Path], tmp_path: Path):
    path = tiny_config(tmp_path, shards, **EVERYTHING)
    train_tiny(path)
    broken = at(tmp_path, STEPS) / "training.safetensors"
    broken.write_bytes(broken.read_bytes()[:100])
    with pytest.raises(UserError, match=r"training.safetensors: cannot be read .*Remove .*step-00000008 to go on"):
        train_tiny(path)


def test_weights_that_are_tied_are_stored_once(shards: list[Path], tmp_path: Path):
    class Tied(TinyTraining):
        def new_model(self) -> Any:
            model = super().new_model()
            model.blocks[1].linear.weight = model.blocks[0].linear.weight  # pyright: ignore
            return model

    path = tiny_config(tmp_path, shards, **EVERYTHING)
    train_tiny(path, kind=Tied)
    names = load_file(at(tmp_path, STEPS) / "model.safetensors")
    assert "blocks.0.linear.weight" in names and "blocks.1.linear.weight" not in names
    expected = (stage(tmp_path) / "metrics.jsonl").read_bytes()
    shutil.rmtree(at(tmp_path, STEPS))
    train_tiny(path, kind=Tied)
    assert expected == (stage(tmp_path) / "metrics.jsonl").read_bytes()


def test_the_average_starts_short_and_becomes_long():
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(0.0)
        average = Average(model, decay=0.5)
        model.weight.fill_(1.0)
        expected = 0.0
        for step in range(1, 30):
            average.update(model, step)
            decay = min(0.5, (1 + step) / (10 + step))
            expected = decay * expected + (1 - decay)
            assert average.values["weight"].item() == pytest.approx(expected, rel=1e-5)
        with average.in_place_of(model):
            assert model.weight.item() == pytest.approx(expected, rel=1e-5)
        assert model.weight.item() == 1.0
