"""A stage never outlives the runner, two runs never share a folder, and what is stopped says so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pipeline.errors import UserError
from pipeline.process import alone_in, one_at_a_time, run_process

RUNNER = """
import sys
from pathlib import Path
from pipeline.process import alone_in, run_process
with alone_in(Path(sys.argv[1])) as lock:
    run_process([sys.executable, "-c", sys.argv[2]], lock)
"""
SLEEPS = "import time; print('begun', flush=True); time.sleep(600)"
# It hears that it is to end, and ends when it is told.
LINGERS = """
import pathlib, signal, time
signal.signal(signal.SIGTERM, lambda *_: pathlib.Path('asked').touch())
print('begun', flush=True)
while not pathlib.Path('end').exists(): time.sleep(0.02)
"""


def started(folder: Path, stage: str) -> tuple[subprocess.Popen[str], psutil.Process]:
    """A runner in ``folder`` and its stage, which has begun."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    runner = subprocess.Popen([sys.executable, "-c", RUNNER, str(folder), stage], cwd=folder, env=environment,
                              stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert runner.stdout is not None and runner.stdout.readline() == "begun\n"
    (child,) = psutil.Process(runner.pid).children()
    return runner, child


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_a_folder_is_given_to_one_at_a_time_and_kept_by_a_child_that_holds_it(tmp_path: Path) -> None:
    entered = threading.Event()

    def enter() -> None:
        with one_at_a_time(tmp_path):
            entered.set()

    with one_at_a_time(tmp_path) as held:
        child = subprocess.Popen([sys.executable, "-c", SLEEPS], pass_fds=[held], stdout=subprocess.DEVNULL)
    threading.Thread(target=enter, daemon=True).start()
    assert not entered.wait(0.3)
    child.kill()
    child.wait()
    assert entered.wait(20)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_who_stops_the_runner_stops_its_stage(tmp_path: Path, number: signal.Signals) -> None:
    runner, stage = started(tmp_path, SLEEPS)
    runner.send_signal(number)
    assert runner.wait(20) == (143 if number == signal.SIGTERM else -number)
    until(lambda: not stage.is_running())
    with alone_in(tmp_path) as lock:
        assert run_process([sys.executable, "-c", "raise SystemExit(7)"], lock).exit_code == 7


def test_a_second_run_is_refused_until_the_stage_of_the_first_has_ended(tmp_path: Path) -> None:
    runner, stage = started(tmp_path, LINGERS)
    runner.kill()
    runner.wait(20)
    until((tmp_path / "asked").exists)
    with pytest.raises(UserError, match="another run is at work in this folder"), alone_in(tmp_path):
        pass
    (tmp_path / "end").touch()
    until(lambda: not stage.is_running())
    with alone_in(tmp_path):
        pass
