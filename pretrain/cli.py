"""``python -m pretrain --config C.yaml`` trains, then evaluates; ``python -m pretrain evaluate`` only evaluates."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.command import add_config_options, add_resume_option, config_of, exit_code_of
from pipeline.fingerprint import is_done
from pipeline.logs import StageLog
from pretrain.config import PretrainConfig
from pretrain.shards import made_from


def main() -> int:
    """Parses the command line and runs it; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pretrain", description="Trains the predictor of motion.")
    parser.add_argument("action", nargs="?", choices=("train", "evaluate"), default="train")
    add_config_options(parser)
    add_resume_option(parser)
    parser.add_argument("--model", type=Path, help="evaluate: folder of the predictor (default: RUN/pretrain/model)")
    arguments = parser.parse_args()
    return exit_code_of(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    config = config_of(arguments)
    settings = config.section("pretrain", PretrainConfig)
    if arguments.check:
        return
    # torch is loaded late: checking a configuration and finding the work done take no time
    if arguments.action == "evaluate":
        from pretrain.evaluate import evaluate

        evaluate(config, arguments.model or config.folder("pretrain") / "model")
    elif arguments.resume and is_done(config.folder("pretrain"), made_from(config, settings)):
        StageLog(config.run.out, "pretrain").info("already done with this configuration; nothing to do")
    else:
        from pretrain.train import pretrain

        pretrain(config, arguments.resume)
