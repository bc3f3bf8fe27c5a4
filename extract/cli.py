"""``python -m extract run``."""

from __future__ import annotations

import argparse

from extract.config import ExtractConfig
from pipeline.command import add_config_options, config_of, exit_code_of


def main() -> int:
    """Parses the command line and runs it; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m extract", description="Motion clips from indexed episodes.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="extract everything that is not done yet")
    add_config_options(run)
    run.add_argument("--workers", type=int, default=None, help="worker processes (default: run.workers)")
    arguments = parser.parse_args()
    return exit_code_of(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    if arguments.workers is not None:
        arguments.set.append(f"run.workers={arguments.workers}")
    config = config_of(arguments)
    config.section("extract", ExtractConfig)
    if arguments.check:
        return
    from extract.run import run_extract

    run_extract(config, None)
