"""What a run tells about itself: every step in a file, and trackers that cannot end it."""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pipeline.errors import UserError
from pretrain.trackers import TensorBoard
from tests.pretrain_clips import moving_clip, write_shard
from tests.tiny_training import EVERY, STEPS, TinyTraining, tiny_config, train_tiny


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    path = tmp_path_factory.mktemp("clips") / "train-00000.tar"
    write_shard(path, (moving_clip(n) for n in range(3)))
    return [path]


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "run" / "pretrain" / "metrics.jsonl").read_text().splitlines()]


def warnings(folder: Path) -> list[str]:
    lines = (folder / "run" / "logs" / "pretrain.jsonl").read_text().splitlines()
    return [row["message"] for row in map(json.loads, lines) if row["level"] == "warning"]


def test_every_step_is_in_the_file_and_on_the_board_however_seldom_the_log_speaks(shards: list[Path], tmp_path: Path):
    train_tiny(tiny_config(tmp_path, shards, log_every=1000))
    assert [row["step"] for row in rows(tmp_path) if "loss" in row] == list(range(1, STEPS + 1))
    board = EventAccumulator(str(tmp_path / "run" / "pretrain" / "tensorboard"))
    board.Reload()
    expected = [(row["step"], row["loss"]) for row in rows(tmp_path) if "loss" in row]
    assert [(event.step, pytest.approx(event.value, rel=1e-6)) for event in board.Scalars("train/loss")] == expected
    assert [event.step for event in board.Scalars("val/val_centre_m")] == [EVERY, STEPS]


def test_the_log_tells_parameters_speed_and_the_time_left(
    shards: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    train_tiny(tiny_config(tmp_path, shards, log_every=4, gradient_accumulation=2))
    lines = capsys.readouterr().out.splitlines()
    assert "0.00 M parameters to learn, 0.00 M frozen, 48 windows, 1 rank(s) x 2 x 8, steps 0 to 8" in lines[0]
    events = [json.loads(line) for line in (tmp_path / "run" / "logs" / "pretrain.jsonl").read_text().splitlines()]
    spoken = [event for event in events if "windows_per_s" in event]
    assert [event["step"] for event in spoken] == [4, 8]
    for event in spoken:
        assert event["windows_per_s"] * event["ms_per_step"] / 1000 == pytest.approx(16, rel=0.05)
        assert "windows/s, about " in event["message"]


def test_a_tracker_that_breaks_is_one_warning_and_the_run_goes_on(
    shards: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    written: list[int] = []

    def write(self: TensorBoard, step: int, values: dict[str, float]) -> None:
        written.append(step)
        if step == 3:
            raise OSError("the other end has gone")

    monkeypatch.setattr(TensorBoard, "write", write)
    train_tiny(tiny_config(tmp_path, shards))
    assert written == [1, 2, 3]
    assert len(rows(tmp_path)) == STEPS + STEPS // EVERY
    assert len(warnings(tmp_path)) == 1
    assert "TensorBoard has failed and is not used any more" in warnings(tmp_path)[0]


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is installed here")
def test_a_tracker_that_is_configured_but_not_installed_is_a_clear_error_at_the_start(
    shards: list[Path], tmp_path: Path
):
    path = tiny_config(tmp_path, shards, tracking={"wandb": "clouds"})
    with pytest.raises(UserError, match=r"pretrain.tracking.wandb: 'clouds' is configured.*pip install wandb"):
        train_tiny(path)
    assert not (tmp_path / "run" / "pretrain").exists()


class Board:
    """Stands in for the package wandb: remembers what it is told."""

    def __init__(self) -> None:
        self.started: list[dict[str, Any]] = []
        self.rows: list[dict[str, float]] = []
        self.finished = 0

    def init(self, **options: Any) -> Board:
        self.started.append(options)
        return self

    def define_metric(self, name: str, step_metric: str) -> None:
        assert (name, step_metric) == ("*", "step")

    def log(self, values: dict[str, float]) -> None:
        self.rows.append(values)

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Board:
    board, module = Board(), types.ModuleType("wandb")
    module.__spec__ = importlib.util.spec_from_loader("wandb", None)
    module.init = board.init  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "wandb", module)
    return board


class Fails(TinyTraining):
    def validate(self, model: Any) -> float:
        if self.run.best is not None:
            raise RuntimeError("as if killed")
        return super().validate(model)


def test_a_resumed_run_goes_on_with_the_same_run_of_weights_and_biases(
    shards: list[Path], tmp_path: Path, board: Board
):
    path = tiny_config(tmp_path, shards, tracking={"wandb": "clouds", "wandb_name": "third try"})
    with pytest.raises(RuntimeError, match="as if killed"):
        train_tiny(path, kind=Fails)
    train_tiny(path)
    first, second = board.started
    assert first == second and first["id"] and first["resume"] == "allow"
    assert (first["project"], first["name"]) == ("clouds", "third try")
    assert board.finished == 2
    assert [row["step"] for row in board.rows if "train/loss" in row] == [*range(1, STEPS + 1), *range(EVERY + 1, 9)]


def test_trackers_change_nothing_that_is_computed(shards: list[Path], tmp_path: Path, board: Board):
    train_tiny(tiny_config(tmp_path, shards, tracking={"wandb": "clouds"}))
    train_tiny(tiny_config(tmp_path, shards))
    assert board.finished == 1  # the second run found the work done: it has the same identity
