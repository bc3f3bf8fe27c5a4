"""What a run says of its stages: in run.json, by ``status``, in exit codes."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.command import exit_code_of
from pipeline.config import Config, load
from pipeline.errors import KinecloudError, UserError
from pipeline.process import Outcome
from pipeline.runner import STAGES, Record, run

ROOT = Path(__file__).resolve().parent.parent
STAGE = STAGES[2]


def told(out: Path, exit_code: int, seconds: float, started: float | None = None) -> dict[str, object]:
    """What run.json says of a stage after it ended so."""
    Record(out, Config({"run": {"out": str(out)}}, Path("c.yaml"))).add(
        STAGE, Outcome(exit_code, seconds, 100.0, time.time() if started is None else started)
    )
    (entry,) = json.loads((out / "run.json").read_text())["stages"]
    return entry


def test_a_run_that_found_all_done_does_not_replace_what_the_work_took(tmp_path: Path) -> None:
    began = time.time() - 600
    (tmp_path / STAGE.name).mkdir()
    (tmp_path / STAGE.name / "unit-00000.tar").write_bytes(b"clips")
    assert told(tmp_path, 0, 600.0, began)["seconds"] == 600.0
    (tmp_path / STAGE.name / "failures.jsonl").touch()
    assert told(tmp_path, 0, 2.0, time.time() + 60)["seconds"] == 600.0
    assert told(tmp_path, 0, 50.0, began)["seconds"] == 50.0  # made again, and faster
    refused = told(tmp_path, 4, 1.0, time.time() + 60)
    assert (refused["status"], refused["seconds"]) == ("done", 50.0)
    failed = told(tmp_path, 3, 1.0)
    assert failed["status"] == "failed with exit code 3" and failed["seconds"] == 1.0
    assert told(tmp_path, -9, 1.0)["status"] == "failed with signal 9 (SIGKILL)"
    assert told(tmp_path, 0, 1.0, time.time() + 60)["status"] == "done"


def test_a_run_that_is_refused_leaves_the_configuration_of_what_is_there(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(f"run: {{out: {tmp_path / 'run'}}}\npack: {{}}\n")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("pack: {val_fraction: 0.3}\n")
    with pytest.raises(KinecloudError, match="stage 'pack' ended with exit code 2"):  # nothing was extracted
        run(load(config), None, None, [], dry_run=False)
    assert load(tmp_path / "run" / "config.yaml").raw == {"pack": {"val_fraction": 0.3}}
    assert json.loads((tmp_path / "run" / "run.json").read_text())["stages"][0]["status"] == "failed with exit code 2"


def test_stages_in_the_wrong_order_are_refused(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(f"run: {{out: {tmp_path / 'run'}}}\nindex: {{sources: []}}\npack: {{}}\n")
    with pytest.raises(UserError, match="--from pack --until index: pack comes after index; the order is: index, pack"):
        run(load(config), "pack", "index", [], dry_run=False)
    assert not (tmp_path / "run").exists()


def test_a_damaged_record_is_named_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"stages": [{"name"')
    with pytest.raises(UserError, match=r"run\.json: not a record of a run .*Remove it"):
        told(tmp_path, 0, 1.0)
    (tmp_path / "run.json").write_text('{"stages": [{"name": "of another version"}]}')
    assert told(tmp_path, 0, 1.0)["name"] == STAGE.name


def test_status_and_report_of_stages_that_were_started_by_hand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="not a run folder"):
        cli._status(tmp_path)
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "episodes.parquet").touch()
    (tmp_path / "extract").mkdir()
    (tmp_path / "extract" / "plan.json").write_text('{"unit-0": ["a"], "unit-1": ["b"]}')
    (tmp_path / "extract" / "unit-0.json").write_text("{}")
    cli._status(tmp_path)
    assert capsys.readouterr().out.splitlines() == ["index      done", "extract    begun, 1/2 units"]
    (tmp_path / "config.yaml").write_text(f"run: {{out: {tmp_path}}}\npack: {{}}\n")
    cli._status(tmp_path)
    assert capsys.readouterr().out.splitlines()[-1] == "pack       not started"
    cli._report(tmp_path)
    assert (tmp_path / "report.html").exists()


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_run_folder_that_cannot_be_made_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("in the way")
    config = tmp_path / "c.yaml"
    config.write_text(f"run: {{out: {tmp_path / place}}}\n")
    with pytest.raises(UserError, match=r"run\.out: .*file.*Name a folder that can be written"):
        run(load(config), None, None, [], dry_run=False)


def test_no_room_is_told_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/clips.tar")

    assert exit_code_of(full) == 2
    assert "error: /data/clips.tar: No space left on device. Check" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError):  # a bug keeps its traceback
        exit_code_of(lambda: Path("/nowhere").stat() and None)


def test_a_run_whose_output_nobody_reads_says_nothing_of_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise BrokenPipeError

    config = tmp_path / "c.yaml"
    config.write_text(f"run: {{out: {tmp_path / 'run'}}}\npack: {{}}\n")
    monkeypatch.setattr("pipeline.logs.StageLog.info", gone)
    with pytest.raises(BrokenPipeError):
        run(load(config), None, None, [], dry_run=False)


def test_output_that_nobody_reads_and_names_that_no_terminal_shows(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii:strict"}

    def command(words: str) -> list[str]:
        return [sys.executable, "-c", f"import sys; from pipeline.command import exit_code_of\n{words}"]

    endless = "def tell():\n  while True: print('on and on')\nsys.exit(exit_code_of(tell))"
    with subprocess.Popen(command(endless), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(20) == 141 and process.stderr.read() == b""
    named = r"sys.exit(exit_code_of(lambda: print('caf\u00e9', b'caf\xe9.mp4'.decode(errors='surrogateescape'))))"
    done = subprocess.run(command(named), env=environment, capture_output=True, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (0, rb"caf\xe9 caf\udce9.mp4" + b"\n", b"")
