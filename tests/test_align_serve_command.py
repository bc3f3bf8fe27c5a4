"""``python -m align serve`` as a process: both ways to start it, openpi's own client, and what it refuses to start."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align.config import ExportConfig
from align.export import export
from align.origin import export_made_from
from align.policy import load_policy
from align.serve.cli import TOKEN, main, token_of
from align.train import align
from data.clips import write_shard
from extract.mask.extractor import NAME as MASKS
from pipeline.config import Config, load
from pipeline.errors import UserError
from pretrain.train import pretrain
from tests.align_runs import ROOT, config_file
from tests.pretrain_clips import moving_clip
from tests.serve_client import Client
from tests.serve_policies import observation
from tests.test_align_serve_pictures import moments, sent

OPENPI = "KINECLOUD_OPENPI"
SERVE = """
import sys
from align.cli import main
code = main()
assert not {"mujoco", "metaworld"} & set(sys.modules), "a server needs no simulator"
raise SystemExit(code)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """An exported run whose gripper is followed by masks. The code in the exported folder cannot be imported."""
    folder = tmp_path_factory.mktemp("served")
    shards = folder / "train.tar", folder / "val.tar"
    for number, shard in enumerate(shards):
        clips = (moving_clip(10 * number + n, labelled=True) for n in range(4))
        write_shard(shard, (replace(c, meta=c.meta.model_copy(update={"extractor": MASKS})) for c in clips))
    config = load(config_file(folder, shards))
    config.raw["export"] = {"license": "cc-by-4.0"}
    pretrain(config, resume=True)
    align(config, resume=True)
    export(config, export_made_from(config, config.section("export", ExportConfig)))
    for path in (config.folder("export") / "policy").glob("*.py"):
        path.write_text("raise SystemExit('code of a policy folder was run')")
    return config


@contextmanager
def served(*options: Any, **environment: str) -> Iterator[int]:
    """The port of a server that is a process of its own; stopped by SIGTERM in the end, and that without complaint."""
    command = [sys.executable, "-c", SERVE, "serve", "--port", "0", "--device", "cpu", *map(str, options)]
    everything = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    process = subprocess.Popen(
        command, cwd=ROOT, env=everything, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("[serve] ws://127.0.0.1:"), line + process.communicate(timeout=60)[1]
        yield int(line.rsplit(":", 1)[1])
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0 and out.endswith("[serve] stopped\n"), err
    finally:
        process.kill()


@pytest.fixture(scope="module")
def port(run: Config) -> Iterator[int]:
    """Of a server of the exported folder that asks for a token."""
    with served("--policy", run.folder("export") / "policy", **{TOKEN: "sesame"}) as found:
        yield found


@pytest.fixture(scope="module")
def actions(run: Config) -> np.ndarray:
    """What the policy itself says of an observation."""
    found = load_policy(run.folder("align") / "model").act(**observation())
    assert np.ptp(found) > 0
    return found


def test_an_exported_folder_is_served_without_running_its_code(port: int, actions: np.ndarray) -> None:
    with Client(port, "sesame") as client:
        np.testing.assert_array_equal(client.ask(**observation())["actions"], actions)
        assert client.metadata["license"] == "cc-by-4.0"
        assert client.metadata["takes"] == "clouds"


def test_a_run_is_served_with_the_follower_of_its_extractor(run: Config) -> None:
    with served("--config", run.path) as port, Client(port) as one, Client(port) as other:
        assert one.metadata["takes"] == "pictures" and one.metadata["depth_needed"] is True
        seen = moments(4)
        answers = [one.ask(**sent(moment, "truth"))["actions"] for moment in seen]
        late = other.ask(**sent(seen[-1], "truth"))["actions"]
        again = [one.ask(**sent(m, "truth", reset=n == 0))["actions"] for n, m in enumerate(seen)]
        np.testing.assert_array_equal(answers, again)
        assert not np.array_equal(late, answers[-1])  # each connection has a past of its own


def test_openpis_own_client_gets_the_same_actions(port: int, actions: np.ndarray, tmp_path: Path) -> None:
    """KINECLOUD_OPENPI names a Python that openpi-client is installed for, if it is not this one."""
    python = os.environ.get(OPENPI, sys.executable if importlib.util.find_spec("openpi_client") else "")
    if not python:
        pytest.skip(f"openpi-client is not installed here, and {OPENPI} names no Python that has it")
    np.savez(tmp_path / "observation.npz", **observation())
    caller = [python, ROOT / "tests" / "openpi_caller.py", str(port), "sesame"]
    done = subprocess.run([*caller, tmp_path / "observation.npz", tmp_path / "out.npy"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy", allow_pickle=False), [actions, actions])


def error_of(options: Sequence[Any], capsys: pytest.CaptureFixture[str]) -> str:
    assert main([str(option) for option in options]) == 2
    return capsys.readouterr().err


def test_what_cannot_be_served_is_told(
    run: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = run.folder("export") / "policy"
    assert f"--policy {tmp_path}: holds no config.json and no model.safetensors" in error_of(
        ["--policy", tmp_path], capsys
    )
    assert "expected 1 or more" in error_of(["--policy", policy, "--clients", 0], capsys)
    for size in ("nan", "inf", "0"):
        assert f"--message-mb {float(size)}: expected 0.001" in error_of(
            ["--policy", policy, "--message-mb", size], capsys
        )
    named = ["--policy", policy, "--host", "a..b"]
    monkeypatch.setenv(TOKEN, "secret")
    assert "a..b:8000 cannot be listened on" in error_of(named, capsys)
    monkeypatch.delenv(TOKEN)
    predictor = run.folder("pretrain") / "model"
    assert "weights are missing" in error_of(["--policy", predictor], capsys)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"127.0.0.1:{port} cannot be listened on" in error_of(["--policy", policy, "--port", port], capsys)
    assert "--set changes values of --config" in error_of(["--policy", policy, "--set", "run.seed=1"], capsys)
    assert "cannot be listened on" in error_of(["--policy", policy, "--port", 70_000], capsys)
    code = tmp_path / "code"
    code.mkdir()
    for name, text in (("config.json", "{}"), ("model.safetensors", ""), ("tokenizer_config.json", '{"auto_map": {}}')):
        (code / name).write_text(text)
    assert "auto_map: names code in the folder, which is never run" in error_of(["--policy", code], capsys)
    (code / "tokenizer_config.json").unlink()
    assert f"--policy {code}: cannot be loaded" in error_of(["--policy", code], capsys)


def test_strangers_need_a_token(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.delenv(TOKEN, raising=False)
    for host in ("0.0.0.0", "::", "192.168.0.7", "robot.example"):
        assert "nobody is asked for a token" in error_of(["--policy", tmp_path, "--host", host], capsys)
    path = tmp_path / "token"
    path.write_text(" secret\n")
    assert token_of("0.0.0.0", path, {}) == token_of("0.0.0.0", None, {TOKEN: "secret"}) == "secret"
    assert token_of("127.0.0.1", None, {}) is token_of("::1", None, {}) is token_of("localhost", None, {}) is None
    for line in ("two\nlines", "two words", "b\x07ll"):
        path.write_text(line)
        with pytest.raises(UserError, match=rf"--token-file {path}: holds white space or what is not printed"):
            token_of("127.0.0.1", path, {})
    path.write_text("\n")
    for missing, message in ((path, "is empty"), (tmp_path / "none", "cannot be read")):
        with pytest.raises(UserError, match=message):
            token_of("127.0.0.1", missing, {TOKEN: "secret"})


def test_what_clients_are_told_can_be_read_beforehand(run: Config, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--policy", str(run.folder("export") / "policy"), "--describe"]) == 0
    described = capsys.readouterr().out
    assert '"rate_hz": 20' in described and '"past_clouds_PN3"' in described
