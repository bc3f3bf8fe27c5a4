"""How a step's windows are shared out over ranks, batches and shards of the model changes nothing but rounding."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from pipeline.config import load
from pipeline.errors import Refused
from pretrain.objectives import Loss
from pretrain.shards import is_trained
from pretrain.train import pretrain
from tests.pretrain_clips import moving_clip, write_clips, write_shard
from tests.tiny_encoders import tiny_paligemma
from tests.tiny_training import EVERY, STEPS, TinyTraining, on_ranks, tiny_config, tiny_run, train_tiny

ROOT = Path(__file__).parents[1]
AVERAGED = {"ema_decay": 0.9}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [write_clips(tmp_path_factory.mktemp("clips"))[0]]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, shards: list[Path]) -> Path:
    """One rank that reads 16 windows at once."""
    folder = tmp_path_factory.mktemp("alone")
    train_tiny(tiny_config(folder, shards, batch_size=16, **AVERAGED))
    return folder


def checkpoint(folder: Path, step: int = STEPS) -> Path:
    return folder / "run" / "pretrain" / "checkpoints" / f"step-{step:08d}"


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "run" / "pretrain" / "metrics.jsonl").read_text().splitlines()]


def output(folder: Path, rank: int = 0) -> str:
    return (folder / f"{rank}.txt").read_text()


def assert_same_training(one: Path, other: Path, tolerance: float = 1e-5) -> None:
    """Same losses, and the same published weights, raw weights and moments."""
    assert [row["step"] for row in rows(one) if "loss" in row] == list(range(1, STEPS + 1))
    assert len(rows(one)) == len(rows(other))
    for a, b in zip(rows(one), rows(other), strict=True):
        assert a.keys() == b.keys()
        assert all(math.isclose(a[name], b[name], rel_tol=tolerance, abs_tol=tolerance) for name in a), (a, b)
    names = [path.name for path in sorted(checkpoint(one).glob("*.safetensors"))]
    assert names == ["model.safetensors", "optimizer.safetensors", "training.safetensors"]
    for name in names:
        ours, theirs = load_file(checkpoint(one) / name), load_file(checkpoint(other) / name)
        assert ours.keys() == theirs.keys()
        for key in ours:
            torch.testing.assert_close(theirs[key], ours[key], rtol=10 * tolerance, atol=tolerance)


def test_accumulated_batches_are_one_batch(alone: Path, shards: list[Path], tmp_path: Path):
    train_tiny(tiny_config(tmp_path, shards, batch_size=4, gradient_accumulation=4, **AVERAGED))
    assert_same_training(alone, tmp_path)


@pytest.mark.parametrize("sharding", ["none", "fsdp"])
@pytest.mark.parametrize("batches", [1, 2])
def test_two_ranks_are_one_with_twice_the_batch(
    alone: Path, shards: list[Path], tmp_path: Path, sharding: str, batches: int
):
    path = tiny_config(
        tmp_path, shards, batch_size=8 // batches, gradient_accumulation=batches, sharding=sharding, **AVERAGED
    )
    assert on_ranks(2, path) == [0, 0], output(tmp_path)
    assert ("in shards" in output(tmp_path)) == (sharding == "fsdp")
    assert_same_training(alone, tmp_path)


@pytest.mark.parametrize("order", [("fsdp", "none"), ("none", "fsdp")])
def test_checkpoints_do_not_tell_how_the_model_was_spread(
    alone: Path, shards: list[Path], tmp_path: Path, order: tuple[str, str]
):
    for ranks_die, sharding in zip((EVERY, None), order, strict=True):
        path = tiny_config(tmp_path, shards, batch_size=8, sharding=sharding, **AVERAGED)
        kind = TinyTraining if ranks_die is None else KilledInStep6
        codes = on_ranks(2, path, kind=kind)
        assert (codes == [0, 0]) == (ranks_die is None), output(tmp_path)
    assert_same_training(alone, tmp_path)


class KilledInStep6(TinyTraining):
    def loss(self, model: nn.Module, window: dict[str, Any], progress: float) -> Loss:
        if progress >= 5 / STEPS:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().loss(model, window, progress)


def test_another_number_of_ranks_is_refused_unless_asked_for_and_goes_on_with_the_next_window(
    alone: Path, shards: list[Path], tmp_path: Path
):
    path = tiny_config(tmp_path, shards, batch_size=8, **AVERAGED)
    assert -signal.SIGKILL in on_ranks(2, path, kind=KilledInStep6)
    path = tiny_config(tmp_path, shards, batch_size=16, **AVERAGED)
    with pytest.raises(Refused, match=r"batch_size: 8 -> 16\n  ranks: 2 -> 1\n.*--change-ranks"):
        train_tiny(path)
    changed = train_tiny(path, change_ranks=True)
    whole = train_tiny(tiny_config(tmp_path / "whole", shards, batch_size=16, **AVERAGED))
    assert changed.read == whole.read[EVERY * 16 :]
    assert_same_training(alone, tmp_path)
    state = json.loads((checkpoint(tmp_path) / "state.json").read_text())
    assert state["samples"] == STEPS * 16
    assert [(h["step"], h["samples"], h["ranks"]) for h in state["history"]] == [(0, 0, 2), (EVERY, EVERY * 16, 1)]


def test_shards_of_very_different_size_hold_nobody_up(tmp_path: Path):
    shards = [tmp_path / "large.tar", tmp_path / "small.tar"]
    write_shard(shards[0], (moving_clip(n) for n in range(12)))
    write_shard(shards[1], [moving_clip(100)])
    assert on_ranks(2, tiny_config(tmp_path, shards)) == [0, 0], output(tmp_path)
    read = [(tmp_path / f"{rank}.read").read_text().split("\n") for rank in range(2)]
    assert [len(windows) for windows in read] == [STEPS * 8] * 2
    assert len(set(read[0] + read[1])) == 2 * STEPS * 8  # of 208: nothing twice in the first epoch


def test_the_full_family_trains_in_shards_as_it_does_whole(shards: list[Path], tmp_path: Path):
    """PaliGemma and its expert, tiny and random: frozen parts, layers that keep keys and values, tied words."""
    model = {"family": "full", "context": str(tiny_paligemma(tmp_path / "context")), "slots": 2}
    common: dict[str, Any] = {"model": model, "learning_rate": 1e-3, **AVERAGED}
    pretrain(load(tiny_config(tmp_path / "one", shards, batch_size=8, **common)), resume=True)
    path = tiny_config(tmp_path / "two", shards, batch_size=4, sharding="fsdp", gradient_checkpointing=True, **common)
    assert on_ranks(2, path, kind=None) == [0, 0], output(tmp_path / "two")
    assert "rank(s) x 1 x 4 in shards" in output(tmp_path / "two")
    assert_same_training(tmp_path / "one", tmp_path / "two")


class BadOnRank1(TinyTraining):
    """One window of one rank has a loss that is not finite, and that does not depend on all weights either."""

    def loss(self, model: nn.Module, window: dict[str, Any], progress: float) -> Loss:
        loss = super().loss(model, window, progress)
        if progress < 2 / STEPS or self.run.leads:
            return loss
        bad_B = loss.per_window_B.clone()
        bad_B[3] = float("nan")
        (self.run.folder / f"bad-{window['key'][3]}").touch()
        return Loss(next(iter(model.parameters())).sum() * float("nan"), {}, bad_B)


def test_a_loss_that_is_not_finite_on_one_rank_stops_all_of_them_and_names_the_clip(shards: list[Path], tmp_path: Path):
    path = tiny_config(tmp_path, shards, gradient_accumulation=2, batch_size=4)
    assert on_ranks(2, path, kind=BadOnRank1) == [1, 1]
    bad = sorted(path.name.removeprefix("bad-") for path in (tmp_path / "run" / "pretrain").glob("bad-*"))
    for rank in range(2):
        assert f"step 3: the loss is not finite for {', '.join(bad)}. The last checkpoint" in output(tmp_path, rank)
    assert [row["step"] for row in rows(tmp_path)] == [1, 2]


KILLS_RANK_1 = """
import os, pathlib, signal, sys, time
from pretrain import cli, train
loss = train.Pretraining.loss
def dying(self, model, window, progress):
    if progress >= 5 / 8 and not self.run.leads:
        pathlib.Path("{died}").write_text(str(time.time()))
        os.kill(os.getpid(), signal.SIGKILL)
    return loss(self, model, window, progress)
train.Pretraining.loss = dying
sys.exit(cli.main())
"""


def test_accelerate_launch_ends_soon_after_a_rank_dies_and_resumes(shards: list[Path], tmp_path: Path):
    """The whole command, with all that is random about its windows."""
    model = {"width": 32, "layers": 1, "heads": 2, "slots": 2}

    def config_of(folder: Path, batch_size: int) -> Path:
        return tiny_config(folder, shards, model=model, batch_size=batch_size, learning_rate=1e-3, **AVERAGED)

    pretrain(load(config_of(tmp_path / "one", 16)), resume=True)
    two, died = config_of(tmp_path / "two", 8), tmp_path / "died"
    (tmp_path / "dying.py").write_text(KILLS_RANK_1.format(died=died))

    def launch(*program: object) -> subprocess.CompletedProcess[str]:
        options = ["--multi_gpu", "--num_processes", 2, "--num_machines", 1, "--mixed_precision", "no"]
        options += ["--dynamo_backend", "no", "--main_process_port", 0, *program, "--config", two]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "accelerate.commands.launch", *map(str, options)]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)

    ended = launch(tmp_path / "dying.py")
    assert ended.returncode != 0 and time.time() - float(died.read_text()) < 60
    assert checkpoint(tmp_path / "two", EVERY).exists() and not checkpoint(tmp_path / "two").exists()
    done = launch("-m", "pretrain")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "2 rank(s) x 1 x 8, steps 4 to 8" in done.stdout
    assert_same_training(tmp_path / "one", tmp_path / "two", tolerance=1e-5)
    assert is_trained(two.parent / "run" / "pretrain", tiny_run(load(two)).made_from)  # though this is one rank
