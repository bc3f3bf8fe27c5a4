"""What makes a step faster or smaller changes rounding only, and no name of a weight."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from torch import nn

from pipeline.errors import UserError
from tests.pretrain_clips import moving_clip, write_shard
from tests.tiny_training import TinyBlock, TinyConfig, TinyModel, TinyTraining, tiny_config, train_tiny


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    path = tmp_path_factory.mktemp("clips") / "train-00000.tar"
    write_shard(path, (moving_clip(n) for n in range(3)))
    return [path]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, shards: list[Path]) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    train_tiny(tiny_config(folder, shards, steps=4))
    return folder


def losses(folder: Path) -> list[float]:
    rows = map(json.loads, (folder / "run" / "pretrain" / "metrics.jsonl").read_text().splitlines())
    return [row["loss"] for row in rows if "loss" in row]


def weights(folder: Path) -> dict[str, Any]:
    return load_file(folder / "run" / "pretrain" / "checkpoints" / "step-00000004" / "model.safetensors")


def test_activations_that_are_computed_again_are_the_same(shards: list[Path], plain: Path, tmp_path: Path):
    train_tiny(tiny_config(tmp_path, shards, steps=4, gradient_checkpointing=True))
    assert losses(tmp_path) == pytest.approx(losses(plain), rel=1e-5)


def test_compiled_blocks_compute_the_same_under_the_same_names(
    shards: list[Path], plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    compiled, whole_way = [], nn.Module.compile

    def compile_quickly(block: nn.Module) -> None:
        """Graphs forward and backward, but no machine code: that takes half a minute and a compiler."""
        compiled.append(type(block))
        whole_way(block, backend="aot_eager")

    monkeypatch.setattr(nn.Module, "compile", compile_quickly)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    train_tiny(tiny_config(tmp_path, shards, steps=4, compile=True))
    assert compiled == [TinyBlock] * 2
    assert losses(tmp_path) == pytest.approx(losses(plain), rel=1e-4)
    assert weights(tmp_path).keys() == weights(plain).keys()


def test_bfloat16_is_near_and_weights_stay_in_32_bits(shards: list[Path], plain: Path, tmp_path: Path):
    AcceleratorState._reset_state(reset_partial_state=True)  # a process has one precision
    try:
        train_tiny(tiny_config(tmp_path, shards, steps=4, mixed_precision="bf16"))
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    assert losses(tmp_path) != losses(plain)
    assert losses(tmp_path) == pytest.approx(losses(plain), rel=0.05)
    assert {str(value.dtype) for value in weights(tmp_path).values()} == {"torch.float32"}


class Unable(TinyTraining):
    def new_model(self) -> TinyModel:
        class Plain(TinyModel):
            supports_gradient_checkpointing = False
            _no_split_modules = []  # noqa: RUF012

        return Plain(TinyConfig())


@pytest.mark.parametrize("setting", ["gradient_checkpointing", "compile"])
def test_what_a_model_cannot_do_is_a_clear_error(shards: list[Path], tmp_path: Path, setting: str):
    path = tiny_config(tmp_path, shards, **{setting: True})
    with pytest.raises(UserError, match=rf"config.yaml: pretrain.{setting}: .*[sS]et it to false"):
        train_tiny(path, kind=Unable)


def test_without_a_compiler_the_error_says_what_to_install(
    shards: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"pretrain.compile: torch.compile needs a C\+\+ compiler.*install g\+\+"):
        train_tiny(tiny_config(tmp_path, shards, compile=True))
