"""A training that takes milliseconds a step, for the tests of the loop: where does the cloud's centre go?

It has what the loop must cope with: blocks that can be sharded, dropout, weights of one dimension, a constant, random
numbers per window, and a loss that is not defined for every window. ``on_ranks`` runs a training on several ranks.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from data.loader import WindowDataset, collate
from pipeline.command import exit_code_of
from pipeline.config import Config, load
from pretrain.config import STAGE_VERSION, PretrainConfig
from pretrain.loop import Training, optimize
from pretrain.objectives import Loss
from pretrain.randomness import WindowRandom
from pretrain.run import TrainingRun
from pretrain.shards import training_identity
from pretrain.train import pretrain

STEPS, EVERY = 8, 4
WIDTH = 24


class TinyConfig(PretrainedConfig):
    model_type = "tiny-training"

    def __init__(self, dropout: float = 0.0, **kwargs: Any):
        self.dropout = dropout
        super().__init__(**kwargs)


class TinyBlock(GradientCheckpointingLayer):
    def __init__(self, dropout: float):
        super().__init__()
        self.norm, self.linear, self.dropout = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.dropout(self.linear(self.norm(x)).tanh())


class TinyModel(PreTrainedModel):
    config_class = TinyConfig
    supports_gradient_checkpointing = True
    _no_split_modules = ["TinyBlock"]  # noqa: RUF012  (as transformers has it)

    def __init__(self, config: TinyConfig):
        super().__init__(config)
        self.inward, self.blocks = nn.Linear(12, WIDTH), nn.ModuleList(TinyBlock(config.dropout) for _ in range(2))
        self.outward, self.scale = nn.Linear(WIDTH, 3), nn.Parameter(torch.ones(3))
        self.rest = nn.Linear(2, 2)  # frozen
        self.rest.requires_grad_(False)
        self.register_buffer("unit_m", torch.tensor(0.1))
        self.post_init()

    def forward(self, past: Tensor, shake: Tensor | None = None, **unused: Any) -> Tensor:
        """past: f32 [B,4,N,3]. Returns how far the centre has moved half a second later, [B,3] in units of 0.1 m."""
        centres = past.mean(2)
        x = self.inward(((centres - centres[:, -1:]) / self.get_buffer("unit_m")).flatten(1))
        x = x if shake is None else x + shake.to(x.device)
        for block in self.blocks:
            x = block(x)
        return self.outward(x) * self.scale


class TinyTraining(Training):
    measure, measure_words = "centre_m", "centre off by {:.4f} m"
    dropout = 0.0
    read: list[str]  # what was trained on, "clip@time", in order

    def __init__(self, run: TrainingRun):
        super().__init__(run)
        self.settings = run.config.section("pretrain", PretrainConfig)
        self.read = []

    @property
    def dataset(self) -> WindowDataset:
        return WindowDataset(self.run.train_shards, self.settings.window)

    def new_model(self) -> TinyModel:
        torch.manual_seed(self.run.seed)
        return TinyModel(TinyConfig(dropout=self.dropout))

    def loss(self, model: nn.Module, window: dict[str, Any], progress: float) -> Loss:
        self.read += [f"{key}@{time:.3f}" for key, time in zip(window["key"], window["time"].tolist(), strict=True)]
        shake = 0.01 * WindowRandom(window["seed"]).normal(WIDTH)
        with self.run.accelerator.autocast():
            moved_B3 = model(**window, shake=shake)
        true_B3 = (window["future"][:, -1].mean(1) - window["past"][:, -1].mean(1)) / 0.1
        defined_B = window["future_valid"][:, -1]  # a centre beyond the end of the clip is not known
        error_B = ((moved_B3.float() - true_B3).square().sum(-1) + 1e-4).sqrt() * defined_B * (2 - progress)
        return Loss(error_B.mean(), {"centre": error_B.detach().mean()}, error_B.detach())

    @torch.no_grad()
    def validate(self, model: Any) -> float:
        dataset = self.dataset
        model.eval()
        window = collate([dataset[(n, n)] for n in range(0, len(dataset), 16)])
        moved_B3, true_B3 = model(**window) * 0.1, window["future"][:, -1].mean(1) - window["past"][:, -1].mean(1)
        return float((moved_B3 - true_B3).norm(dim=-1)[window["future_valid"][:, -1]].mean())


def tiny_config(folder: Path, shards: list[Path], **changes: Any) -> Path:
    """The configuration of a run in ``folder``."""
    settings: dict[str, Any] = {
        "train_shards": [str(path) for path in shards],
        "val_shards": [],
        "window": {"image_size": 32, "points": 8},
        "steps": STEPS,
        "checkpoint_every": EVERY,
        "batch_size": 8,
        "warmup_steps": 2,
        "learning_rate": 0.01,
        "threads": 1,
        "device": "cpu",
        **changes,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({"run": {"out": str(folder / "run"), "seed": 3}, "pretrain": settings}))
    return path


def tiny_run(config: Config, change_ranks: bool = False) -> TrainingRun:
    settings = config.section("pretrain", PretrainConfig)
    identity = training_identity(config, "pretrain", STAGE_VERSION, settings)
    return TrainingRun(config, "pretrain", settings, identity, change_ranks=change_ranks)


def train_tiny(path: Path, change_ranks: bool = False, kind: type[TinyTraining] = TinyTraining) -> TinyTraining:
    training = kind(tiny_run(load(path), change_ranks))
    optimize(training)
    return training


def on_ranks(count: int, path: Path, kind: type[TinyTraining] | None = TinyTraining) -> list[int]:
    """Trains on that many ranks of this machine; returns their exit codes. Output goes to RANK.txt beside the
    configuration, what was read to RANK.read. Ranks come from a server that has imported everything once.
    kind: None = pretraining itself."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    ranks = [context.Process(target=_one_rank, args=(rank, count, port, path, kind)) for rank in range(count)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(60)
    codes = [rank.exitcode for rank in ranks]
    for rank in ranks:
        rank.kill()
    assert None not in codes, f"a rank hangs: {codes}"
    return [code for code in codes if code is not None]


def _one_rank(rank: int, count: int, port: int, path: Path, kind: type[TinyTraining] | None) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(count), LOCAL_WORLD_SIZE=str(count),
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), OMP_NUM_THREADS="1",
    )  # fmt: skip
    with (path.parent / f"{rank}.txt").open("w", buffering=1) as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        sys.stdout = sys.stderr = output

        def train() -> None:
            if kind is None:
                return pretrain(load(path), resume=True)
            training = train_tiny(path, kind=kind)
            (path.parent / f"{rank}.read").write_text("\n".join(training.read))
            training.run.part()

        code = exit_code_of(train)
    sys.exit(code)
