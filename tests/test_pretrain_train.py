"""Training: killed and resumed it is the run that was never killed; several ranks are one with a larger batch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipeline.config import Config, load
from pipeline.errors import KinecloudError, Refused, UserError
from pretrain.shards import identities
from pretrain.train import pretrain
from tests.pretrain_clips import moving_clip, write_clips, write_shard
from tests.tiny_training import tiny_config

ROOT = Path(__file__).parents[1]
STEPS, EVERY = 9, 3


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_clips(tmp_path_factory.mktemp("clips"))


def config_file(folder: Path, shards: tuple[Path, Path], **changes: Any) -> Path:
    settings: dict[str, Any] = {
        "val_shards": [str(shards[1])],
        "window": {"image_size": 32, "points": 12},
        "model": {"width": 32, "layers": 1, "heads": 2, "slots": 2},
        "steps": STEPS,
        "checkpoint_every": EVERY,
        "learning_rate": 1e-3,
        **changes,
    }
    return tiny_config(folder, [shards[0]], **settings)


def trained(folder: Path, shards: tuple[Path, Path], **changes: Any) -> Config:
    config = load(config_file(folder, shards, **changes))
    pretrain(config, resume=True)
    return config


def command(*arguments: Any) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, env=environment, capture_output=True, text=True
    )


def rows(config: Config) -> list[dict[str, float]]:
    return [json.loads(line) for line in (config.folder("pretrain") / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, shards: tuple[Path, Path]) -> Config:
    """A run that nobody disturbed."""
    return trained(tmp_path_factory.mktemp("whole"), shards)


def same_bytes(one: Config, other: Config, *names: str) -> None:
    for name in names:
        assert (one.folder("pretrain") / name).read_bytes() == (other.folder("pretrain") / name).read_bytes(), name


def test_a_killed_run_goes_on_to_the_same_bytes(whole: Config, shards: tuple[Path, Path], tmp_path: Path):
    # killed in step 8, two steps after its last checkpoint, with half a line in the metrics file
    program = (
        "import os, signal, sys; from pathlib import Path; from pipeline.config import load\n"
        "from pretrain import recorder; from pretrain.train import pretrain\n"
        "write = recorder.Recorder.step\n"
        "def step(self, step, row, known):\n"
        "    write(self, step, row, known)\n"
        "    if step == 8:\n"
        "        self.flush()\n"
        '        self.handle.write(\'{"step": 9, "lo\'); self.handle.flush()\n'
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "recorder.Recorder.step = step\n"
        "pretrain(load(Path(sys.argv[1])), resume=True)\n"
    )
    path = config_file(tmp_path, shards)
    killed = command("-c", program, path)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    config = load(path)
    checkpoints = config.folder("pretrain") / "checkpoints"
    assert [folder.name for folder in sorted(checkpoints.iterdir())] == ["step-00000003", "step-00000006"]
    left = checkpoints / f"step-00000009.tmp-{2**22 + 1}"  # as if killed while saving; no process has such a number
    left.mkdir()
    pretrain(config, resume=True)
    last = f"checkpoints/step-{STEPS:08d}"
    same_bytes(whole, config, "metrics.jsonl", "eval.json", "model/model.safetensors", f"{last}/model.safetensors")
    same_bytes(whole, config, f"{last}/optimizer.safetensors")
    assert not left.exists()


def test_training_learns_and_is_evaluated_beside_the_baselines(whole: Config):
    losses = [row["loss"] for row in rows(whole) if "loss" in row]
    assert len(losses) == STEPS and sum(losses[-3:]) < sum(losses[:3])
    assert [row["step"] for row in rows(whole) if "val_chamfer_mm" in row] == [3, 6, 9]
    document = json.loads((whole.folder("pretrain") / "eval.json").read_text())
    assert document["episodes"] == 4 and set(document["results"]) >= {"all", "human-hand", "sawyer-gripper"}
    methods = document["results"]["all"]["chamfer_mm"]
    baselines = {"no motion", "constant velocity", "least-squares velocity", "nearest neighbour"}
    assert set(methods) == {"predictor"} | baselines
    assert all(len(by_horizon) == 5 for by_horizon in methods.values())
    section = json.loads((whole.folder("pretrain") / "report" / "section.json").read_text())
    assert {"curves", "table", "images", "cloud"} <= {item["kind"] for item in section["items"]}
    assert any(item.get("note") == "simulated" for item in section["items"])


def test_a_finished_run_is_left_alone_without_loading_torch(whole: Config):
    before = {path: path.stat().st_mtime_ns for path in whole.folder("pretrain").rglob("*")}
    program = (
        "import sys; from pretrain import cli; sys.argv = ['pretrain', '--config', sys.argv[1]]; code = cli.main();"
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    again = command("-c", program, whole.path)
    assert again.returncode == 0 and "already done" in again.stdout, again.stderr
    assert before == {path: path.stat().st_mtime_ns for path in whole.folder("pretrain").rglob("*")}


def test_another_configuration_is_refused_with_the_keys_that_differ(whole: Config, shards: tuple[Path, Path]):
    changed = load(whole.path, ["pretrain.learning_rate=0.5", "pretrain.objective.chamfer=2", "pretrain.threads=2"])
    with pytest.raises(Refused) as refusal:
        pretrain(changed, resume=True)
    message = str(refusal.value)
    assert "settings.learning_rate: 0.001 -> 0.5" in message and "settings.objective.chamfer: 1.0 -> 2.0" in message
    assert "threads" not in message


def test_other_data_is_refused(whole: Config, tmp_path: Path):
    other = write_clips(tmp_path, train=5)
    with pytest.raises(Refused, match=r"train_shards.train-00000.tar: [0-9a-f]{64} -> [0-9a-f]{64}"):
        pretrain(load(whole.path, [f"pretrain.train_shards=[{other[0]}]"]), resume=True)


def test_shards_of_one_name_are_told_apart(shards: tuple[Path, Path], tmp_path: Path):
    other = write_clips(tmp_path, train=5)[0]
    both = identities([shards[0], other])
    assert list(both) == ["train-00000.tar", "train-00000.tar (2)"] and len(set(both.values())) == 2
    assert identities([other]) == {"train-00000.tar": both["train-00000.tar (2)"]}


def test_starting_again_discards_what_was_there(shards: tuple[Path, Path], tmp_path: Path):
    config = trained(tmp_path, shards, steps=2, checkpoint_every=2)
    first = rows(config)
    again = load(config.path, ["pretrain.steps=1"])
    pretrain(again, resume=False)
    assert [row["step"] for row in rows(again)] == [1, 1] and len(first) == 3
    assert [p.name for p in (again.folder("pretrain") / "checkpoints").iterdir()] == ["step-00000001"]


def test_averaged_weights_are_published_and_survive_a_resume(shards: tuple[Path, Path], tmp_path: Path):
    config = trained(tmp_path, shards, ema_decay=0.9, steps=4, checkpoint_every=2)
    folder = config.folder("pretrain")
    middle, last = (folder / "checkpoints" / f"step-{step:08d}" for step in (2, 4))
    averaged, raw = load_file(last / "model.safetensors"), load_file(last / "training.safetensors")
    assert any(not torch.equal(averaged[name], raw[name]) for name in raw)
    expected = (folder / "metrics.jsonl").read_bytes(), (last / "model.safetensors").read_bytes()
    (folder / "done.json").unlink()
    for path in last.iterdir():
        path.unlink()
    last.rmdir()
    assert middle.exists()
    pretrain(config, resume=True)
    assert expected == ((folder / "metrics.jsonl").read_bytes(), (last / "model.safetensors").read_bytes())


def test_a_loss_that_is_not_finite_stops_training_and_names_the_clips(tmp_path: Path):
    clip = moving_clip(0)
    clip.arrays["points"][:] *= 1e38  # finite, so it is a valid clip; its distances are not
    path = tmp_path / "train-00000.tar"
    write_shard(path, [clip])
    with pytest.raises(KinecloudError, match=r"step 1: the loss is not finite for clip-0000"):
        trained(tmp_path, (path, path))


def test_a_missing_shard_is_named(shards: tuple[Path, Path], tmp_path: Path):
    with pytest.raises(UserError, match=r"config.yaml: pretrain.train_shards\[0\]: .*absent.tar is not a file"):
        trained(tmp_path, (tmp_path / "absent.tar", shards[1]))


def test_unknown_settings_are_answered_with_the_nearest_name(shards: tuple[Path, Path], tmp_path: Path):
    done = command("-m", "pretrain", "--config", config_file(tmp_path, shards, learning_rat=1), "--check")
    assert done.returncode == 2 and "Did you mean 'learning_rate'?" in done.stderr
