"""Runs the stages of a configuration one after another, each as its own process, and keeps the record of the run."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import yaml

from pipeline.atomic import publishing, write_json
from pipeline.config import Config
from pipeline.errors import KinecloudError, UserError
from pipeline.logs import StageLog

PACKAGES = [
    *("torch", "numpy", "scipy", "transformers", "accelerate", "webdataset", "safetensors", "pykdtree", "pytorch3d"),
    *("decord2", "av", "mediapipe", "opencv-contrib-python", "mujoco", "metaworld", "myo-sim"),
]


@dataclass(frozen=True)
class Stage:
    """name: its section in the configuration and its folder in the run. command: what follows ``python -m``."""

    name: str
    command: tuple[str, ...]


STAGES = (
    Stage("simulate", ("data", "simulate")),
    Stage("index", ("data", "index")),
    Stage("extract", ("extract", "run")),
    Stage("pack", ("data", "pack")),
    Stage("pretrain", ("pretrain",)),
    Stage("align", ("align",)),
    Stage("rollout", ("align", "rollout")),
    Stage("export", ("align", "export")),
)


def selected(config: Config, first: str | None, last: str | None) -> list[Stage]:
    """The stages that the configuration has a section for, between ``first`` and ``last`` (inclusive)."""
    present = [stage for stage in STAGES if config.has(stage.name)]
    names = [stage.name for stage in present]
    for option, name in (("--from", first), ("--until", last)):
        if name is not None and name not in names:
            raise UserError(f"{option} {name}: not a stage of {config.path}; it has: {', '.join(names)}")
    begin = names.index(first) if first else 0
    end = names.index(last) + 1 if last else len(names)
    return present[begin:end]


def run(config: Config, first: str | None, last: str | None, overrides: Sequence[str], dry_run: bool) -> None:
    """Checks the configuration of all stages, then runs them; stops at the first that fails.

    Writes ``RUN/config.yaml`` (as resolved) and ``RUN/run.json`` (status, time, peak memory of each stage, versions).
    Raises KinecloudError with the exit code of a stage that failed.
    """
    stages = selected(config, first, last)
    _check_all(config, stages, overrides)
    if dry_run:
        for stage in stages:
            print(f"{stage.name}: python -m {' '.join(stage.command)} --config {config.path}")
        return
    out = config.run.out
    out.mkdir(parents=True, exist_ok=True)
    resolved = out / "config.yaml"
    with publishing(resolved) as temporary:
        temporary.write_text(yaml.safe_dump(config.raw, sort_keys=False))
    log = StageLog(out, "run")
    record = Record(out, config)
    for number, stage in enumerate(stages, 1):
        log.info(f"stage {number}/{len(stages)}: {stage.name}")
        outcome = _run_stage(stage, resolved)
        record.add(stage, outcome)
        if outcome.exit_code != 0:
            error = KinecloudError(
                f"stage '{stage.name}' ended with exit code {outcome.exit_code}; its log is "
                f"{out / 'logs' / stage.name}.jsonl. What was finished is kept: the same command goes on from there."
            )
            error.exit_code = outcome.exit_code
            raise error
        log.info(f"{stage.name}: {outcome.seconds:.1f} s, peak memory {outcome.peak_memory_mb:.0f} MB")


def _check_all(config: Config, stages: list[Stage], overrides: Sequence[str]) -> None:
    """Every stage validates its own section before the first one starts."""
    options = ["--config", str(config.path), "--check", *(part for item in overrides for part in ("--set", item))]

    def check(stage: Stage) -> str:
        done = subprocess.run([sys.executable, "-m", *stage.command, *options], capture_output=True, text=True)
        return "" if done.returncode == 0 else done.stderr.strip().removeprefix("error: ")

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        wrong = [message for message in pool.map(check, stages) if message]
    if wrong:
        raise UserError("\n".join(wrong))


@dataclass(frozen=True)
class Outcome:
    exit_code: int
    seconds: float
    peak_memory_mb: float
    started: float


def _run_stage(stage: Stage, resolved: Path) -> Outcome:
    started = time.time()
    command = [sys.executable, "-m", *stage.command, "--config", str(resolved)]
    process = subprocess.Popen(command)
    peak = _PeakMemory(process.pid)
    try:
        exit_code = process.wait()
    except KeyboardInterrupt:
        process.wait()
        raise
    finally:
        peak.stop()
    return Outcome(exit_code, time.time() - started, peak.megabytes, started)


class _PeakMemory:
    """Largest memory of a process and all its descendants, sampled a few times per second."""

    def __init__(self, pid: int):
        self.megabytes = 0.0
        self._pid = pid
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.megabytes = max(self.megabytes, _memory_mb(self._pid))
            if self._stopped.wait(0.2):
                return


def _memory_mb(pid: int) -> float:
    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.Error:
        return 0.0
    total = 0
    for process in family:
        try:
            memory = process.memory_full_info()
            total += getattr(memory, "pss", memory.rss)  # shared pages count once where the system can tell
        except psutil.Error:
            continue
    return total / 2**20


class Record:
    """RUN/run.json."""

    def __init__(self, out: Path, config: Config):
        self._path = out / "run.json"
        stored = json.loads(self._path.read_text()) if self._path.exists() else {}
        self._stages: dict[str, Any] = {entry["name"]: entry for entry in stored.get("stages", [])}
        self._head = {
            "config_path": str(config.path),
            "seed": config.run.seed,
            "versions": versions(),
            "machine": {"cpu_cores": len(os.sched_getaffinity(0)), "platform": platform.platform()},
        }

    def add(self, stage: Stage, outcome: Outcome) -> None:
        """Adds a stage. A run that found its work already done does not replace the time the work took."""
        entry = {
            "name": stage.name,
            "command": f"python -m {' '.join(stage.command)}",
            "status": "done" if outcome.exit_code == 0 else f"failed with exit code {outcome.exit_code}",
            "seconds": round(outcome.seconds, 1),
            "peak_memory_mb": round(outcome.peak_memory_mb),
            "started": round(outcome.started),
        }
        before = self._stages.get(stage.name)
        if before is None or before["status"] != "done" or outcome.seconds > before["seconds"]:
            self._stages[stage.name] = entry
        order = [known.name for known in STAGES]
        stages = sorted(self._stages.values(), key=lambda item: order.index(item["name"]))
        write_json(self._path, {**self._head, "stages": stages})


def versions() -> dict[str, str]:
    """Versions of everything a result may depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    found["kinecloud"] = _git_revision()
    return found


def _git_revision() -> str:
    root = Path(__file__).resolve().parent.parent
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
