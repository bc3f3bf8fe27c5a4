"""``python -m pretrain --config C.yaml`` trains, then evaluates; ``python -m pretrain evaluate`` only evaluates."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.command import add_config_options, add_resume_option, config_of, exit_code_of
from pipeline.logs import StageLog
from pretrain.config import PretrainConfig
from pretrain.shards import is_trained, made_from


def main() -> int:
    """Parses the command line and runs it; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pretrain", description="Trains the predictor of motion.")
    parser.add_argument("action", nargs="?", choices=("train", "evaluate"), default="train")
    add_config_options(parser)
    add_resume_option(parser)
    add_ranks_option(parser)
    parser.add_argument("--model", type=Path, help="evaluate: folder of the predictor (default: RUN/pretrain/model)")
    parser.add_argument(
        "--shards", type=Path, nargs="+", help="evaluate: other clips than the run's held-out ones (default: those)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="evaluate: where eval.json and the report section go (default: RUN/pretrain, with --shards its folder "
        "other-shards)",
    )
    arguments = parser.parse_args()
    return exit_code_of(lambda: _run(arguments))


def add_ranks_option(parser: argparse.ArgumentParser) -> None:
    """--change-ranks."""
    parser.add_argument(
        "--change-ranks",
        action="store_true",
        help="go on with another number of ranks, batch_size or gradient_accumulation than before: no window is read "
        "twice or left out; the learning rate goes by optimizer steps",
    )


def _run(arguments: argparse.Namespace) -> None:
    config = config_of(arguments)
    settings = config.section("pretrain", PretrainConfig)
    if arguments.check:
        return
    # torch is loaded late: checking a configuration and finding the work done take no time
    if arguments.action == "evaluate":
        from pretrain.evaluate import evaluate

        model = arguments.model or config.folder("pretrain") / "model"
        evaluate(config, model, arguments.shards, arguments.out)
    elif arguments.resume and is_trained(config.folder("pretrain"), made_from(config, settings)):
        StageLog(config.run.out, "pretrain").info("already done with this configuration; nothing to do")
    else:
        from pretrain.train import pretrain

        pretrain(config, arguments.resume, arguments.change_ranks)
