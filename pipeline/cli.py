"""``python -m pipeline run|status|report``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from pipeline import runner
from pipeline.command import exit_code_of
from pipeline.config import load
from pipeline.errors import KinecloudError, UserError


def main() -> int:
    """Parses the command line and runs it; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipeline", description="Run the stages of a configuration.")
    commands = parser.add_subparsers(dest="command", required=True)

    run = commands.add_parser("run", help="run all stages, or a part of them")
    run.add_argument("config", type=Path, metavar="CONFIG.yaml")
    run.add_argument("--from", dest="first", metavar="STAGE", help="start at this stage")
    run.add_argument("--until", dest="last", metavar="STAGE", help="stop after this stage")
    run.add_argument("--set", action="append", default=[], metavar="a.b=v", help="override one value (repeatable)")
    run.add_argument("--dry-run", action="store_true", help="check everything and print what would run")

    for name, text in (("status", "what is done in a run folder"), ("report", "write RUN_DIR/report.html")):
        commands.add_parser(name, help=text).add_argument("run_dir", type=Path, metavar="RUN_DIR")

    arguments = parser.parse_args()
    return exit_code_of(lambda: _dispatch(arguments))


def _dispatch(arguments: argparse.Namespace) -> None:
    if arguments.command == "run":
        _run(arguments)
    elif arguments.command == "status":
        _status(arguments.run_dir)
    else:
        _report(arguments.run_dir)


def _run(arguments: argparse.Namespace) -> None:
    config = load(arguments.config, arguments.set)
    try:
        runner.run(config, arguments.first, arguments.last, arguments.set, arguments.dry_run)
    except BaseException:
        if not arguments.dry_run and (config.run.out / "run.json").exists():
            _report_all_the_same(config.run.out)
        raise
    if not arguments.dry_run:
        _report(config.run.out)


def _report(run_dir: Path) -> None:
    from pipeline.report.page import write_report

    _require_run(run_dir)
    print(f"report: {write_report(run_dir).resolve()}", flush=True)


def _report_all_the_same(run_dir: Path) -> None:
    """The report of a run that failed; where it cannot be written either, the run's own error is what counts."""
    try:
        _report(run_dir)
    except (OSError, KinecloudError) as error:
        print(f"report: not written: {error}", file=sys.stderr, flush=True)


def _status(run_dir: Path) -> None:
    """Prints one line per stage: what it took, or how far it is."""
    _require_run(run_dir)
    record = runner.recorded(run_dir)
    config = load(run_dir / "config.yaml") if (run_dir / "config.yaml").exists() else None
    for stage in runner.STAGES:
        folder, entry = run_dir / stage.name, record.get(stage.name)
        if entry is not None:
            state = f"{entry['status']} in {entry['seconds']} s"
        elif folder.is_dir():
            state = "done" if any((folder / name).exists() for name in _LAST) else "begun"
        elif config is not None and config.has(stage.name):
            state = "not started"
        else:
            continue
        print(f"{stage.name:10} {state}{_units(folder)}")


_LAST = ("done.json", "report/section.json", "episodes.parquet")  # one of these is the last that a stage writes


def _units(folder: Path) -> str:
    plan = folder / "plan.json"
    if not plan.exists():
        return ""
    planned = json.loads(plan.read_text())
    done = sum((folder / f"{name}.json").exists() for name in planned)
    return f", {done}/{len(planned)} units"


def _require_run(run_dir: Path) -> None:
    """A folder that the runner or any stage by itself has written into."""
    if not (run_dir / "run.json").exists() and not any((run_dir / stage.name).is_dir() for stage in runner.STAGES):
        raise UserError(
            f"{run_dir}: not a run folder (neither run.json nor a stage's folder is in it). Name the folder given as "
            "run.out."
        )
