"""``python -m pipeline run|status|report``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pipeline import runner
from pipeline.command import exit_code_of
from pipeline.config import load
from pipeline.errors import UserError


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
        config = load(arguments.config, arguments.set)
        try:
            runner.run(config, arguments.first, arguments.last, arguments.set, arguments.dry_run)
        finally:
            if not arguments.dry_run and (config.run.out / "run.json").exists():
                _report(config.run.out)
    elif arguments.command == "status":
        _status(arguments.run_dir)
    else:
        _report(arguments.run_dir)


def _report(run_dir: Path) -> None:
    from pipeline.report.page import write_report

    _require_run(run_dir)
    print(f"report: {write_report(run_dir).resolve()}", flush=True)


def _status(run_dir: Path) -> None:
    """Prints one line per stage: done, part done (units), or not started."""
    _require_run(run_dir)
    record = {entry["name"]: entry for entry in json.loads((run_dir / "run.json").read_text())["stages"]}
    config = load(run_dir / "config.yaml")
    for stage in runner.STAGES:
        if not config.has(stage.name):
            continue
        entry = record.get(stage.name)
        state = f"{entry['status']} in {entry['seconds']} s" if entry else "not started"
        print(f"{stage.name:10} {state}{_units(run_dir / stage.name)}")


def _units(folder: Path) -> str:
    plan = folder / "plan.json"
    if not plan.exists():
        return ""
    planned = json.loads(plan.read_text())
    done = sum((folder / f"{name}.json").exists() for name in planned)
    return f", {done}/{len(planned)} units"


def _require_run(run_dir: Path) -> None:
    if not (run_dir / "run.json").exists():
        raise UserError(f"{run_dir}: not a run folder (it has no run.json). Name the folder given as run.out.")
