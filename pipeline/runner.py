"""Runs the stages of a configuration one after another, each as its own process, and keeps the record of the run."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from pipeline.atomic import write_bytes, write_json
from pipeline.config import Config
from pipeline.errors import KinecloudError, Refused, UserError
from pipeline.logs import StageLog
from pipeline.process import Outcome, alone_in, run_process

PACKAGES = [
    *("torch", "numpy", "scipy", "transformers", "accelerate", "webdataset", "safetensors", "pykdtree", "pytorch3d"),
    *("decord2", "av", "mediapipe", "opencv-contrib-python", "mujoco", "metaworld", "myo-sim"),
]


_MAKES_NOTHING = (0, UserError.exit_code, Refused.exit_code)  # a stage may end so before it begins


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
    if first and last and begin >= end:
        raise UserError(f"--from {first} --until {last}: {first} comes after {last}; the order is: {', '.join(names)}")
    return present[begin:end]


def run(config: Config, first: str | None, last: str | None, overrides: Sequence[str], dry_run: bool) -> None:
    """Checks the configuration of all stages, then runs them; stops at the first that fails.

    Writes ``RUN/config.yaml`` (as resolved) and ``RUN/run.json`` (status, time, peak memory of each stage, versions).
    Raises KinecloudError with the exit code of a stage that failed; UserError where the folder cannot be made, or
    while another run is at work there.
    """
    stages = selected(config, first, last)
    _check_all(config, stages, overrides)
    if dry_run:
        for stage in stages:
            print(f"{stage.name}: python -m {' '.join(stage.command)} --config {config.path}")
        return
    out = config.run.out
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"run.out: {error.filename or out}: {error.strerror}. Name a folder that can be written."
        ) from error
    with alone_in(out) as lock:
        _run_all(stages, config, lock)


def _run_all(stages: Sequence[Stage], config: Config, lock: BinaryIO) -> None:
    out = config.run.out
    resolved = out / "config.yaml"
    before = resolved.read_bytes() if resolved.exists() else None
    write_bytes(resolved, yaml.safe_dump(config.raw, sort_keys=False).encode())
    log = StageLog(out, "run")
    record, made = Record(out, config), False
    for number, stage in enumerate(stages, 1):
        log.info(f"stage {number}/{len(stages)}: {stage.name}")
        outcome = run_process([sys.executable, "-m", *stage.command, "--config", str(resolved)], lock)
        made |= record.add(stage, outcome)
        if outcome.exit_code != 0:
            if before is not None and not made:  # what is there was made with the configuration before
                write_bytes(resolved, before)
            error = KinecloudError(
                f"stage '{stage.name}' ended with {_ended(outcome.exit_code)}; its log is "
                f"{out / 'logs' / stage.name}.jsonl. What was finished is kept: the same command goes on from there."
            )
            error.exit_code = outcome.exit_code if outcome.exit_code > 0 else 128 - outcome.exit_code
            raise error
        log.info(f"{stage.name}: {outcome.seconds:.1f} s, peak memory {outcome.peak_memory_mb:.0f} MB")


def _ended(exit_code: int) -> str:
    if exit_code >= 0:
        return f"exit code {exit_code}"
    return f"signal {-exit_code} ({signal.Signals(-exit_code).name})"


def _check_all(config: Config, stages: list[Stage], overrides: Sequence[str]) -> None:
    """Every stage validates its own section before the first one starts."""
    options = ["--config", str(config.path), "--check", *(part for item in overrides for part in ("--set", item))]

    def check(stage: Stage) -> str:
        done = subprocess.run([sys.executable, "-m", *stage.command, *options], capture_output=True, text=True)
        told = done.stderr.strip().removeprefix("error: ")
        return "" if done.returncode == 0 else told or f"{stage.name}: the check ended with {_ended(done.returncode)}"

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        wrong = [message for message in pool.map(check, stages) if message]
    if wrong:
        raise UserError("\n".join(wrong))


class Record:
    """RUN/run.json."""

    def __init__(self, out: Path, config: Config):
        self._out = out
        self._stages = recorded(out)
        self._head = {
            "config_path": str(config.path),
            "seed": config.run.seed,
            "versions": versions(),
            "machine": {"cpu_cores": len(os.sched_getaffinity(0)), "platform": platform.platform()},
        }

    def add(self, stage: Stage, outcome: Outcome) -> bool:
        """Adds a stage; whether it made anything. A run that made nothing, because the work was done or refused, does
        not replace what is known of the one that did the work."""
        entry = {
            "name": stage.name,
            "command": f"python -m {' '.join(stage.command)}",
            "status": "done" if outcome.exit_code == 0 else f"failed with {_ended(outcome.exit_code)}",
            "seconds": round(outcome.seconds, 1),
            "peak_memory_mb": round(outcome.peak_memory_mb),
            "started": round(outcome.started),
        }
        before = self._stages.get(stage.name)
        made = _made_anything(self._out / stage.name, outcome.started)
        if before is None or before["status"] != "done" or made or outcome.exit_code not in _MAKES_NOTHING:
            self._stages[stage.name] = entry
        stages = [self._stages[known.name] for known in STAGES if known.name in self._stages]
        write_json(self._out / "run.json", {**self._head, "stages": stages})
        return made


def recorded(out: Path) -> dict[str, dict[str, Any]]:
    """The stages of RUN/run.json by name; none where there is no such file. Raises UserError for a damaged one."""
    path = out / "run.json"
    if not path.exists():
        return {}
    try:
        return {entry["name"]: entry for entry in json.loads(path.read_text())["stages"]}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: not a record of a run ({error!r}). Remove it: only what earlier stages took is lost."
        ) from error


def _made_anything(folder: Path, since: float) -> bool:
    """Whether a stage wrote into its folder, but for its lists of what went wrong, which every run writes anew."""
    files = (path for path in folder.rglob("*") if path.name not in ("failures.jsonl", "rejected.jsonl"))
    return any(path.stat().st_mtime >= since for path in files if path.is_file())


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
