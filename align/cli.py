"""``python -m align`` makes the policy, ``align rollout`` tries it in the simulator, ``align export`` publishes it.

``align serve``, ``align graph`` and ``align world`` have options of their own (``APART``).
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from align.config import AlignConfig, ExportConfig, RolloutConfig
from align.origin import align_made_from, export_made_from, rollout_made_from
from pipeline.command import add_config_options, add_resume_option, config_of, exit_code_of
from pipeline.config import Config
from pipeline.fingerprint import is_done
from pipeline.logs import StageLog
from pretrain.cli import add_ranks_option
from pretrain.shards import is_trained

ROLLOUT_FOLLOWS = frozenset({"policy_sha256"})
EXPORT_FOLLOWS = frozenset({"policy_sha256", "modelling_sha256", "eval", "rollout", "settings"})
# options of their own
APART = {"serve": "align.serve.cli", "graph": "align.graph.cli", "world": "align.world.cli"}
NOTHING_TO_DO = "already done with this configuration; nothing to do"


def main() -> int:
    """Parses the command line and runs it; returns the exit code."""
    if set(sys.argv[1:2]) & set(APART):
        return import_module(APART[sys.argv[1]]).main(sys.argv[2:])
    parser = argparse.ArgumentParser(
        prog="python -m align",
        description="Policies from the predictor of motion.",
        epilog="python -m align serve --help: a policy behind openpi's client protocol; "
        "python -m align graph --help: a policy as an ONNX file or a torch.export program; "
        "python -m align world --help: a simulated task for other programs' commands",
    )
    parser.add_argument("action", nargs="?", choices=("train", "rollout", "export"), default="train")
    add_config_options(parser)
    add_resume_option(parser)
    add_ranks_option(parser)
    arguments = parser.parse_args()
    return exit_code_of(lambda: ACTIONS[arguments.action](arguments))


def _nothing_to_do(config: Config, stage: str) -> None:
    StageLog(config.run.out, stage).info(NOTHING_TO_DO)


# torch and the simulator are imported late: checking a configuration and finding the work done take no time
def _align(arguments: argparse.Namespace) -> None:
    config = config_of(arguments)
    settings = config.section("align", AlignConfig)
    if arguments.check:
        return
    if arguments.resume and is_trained(config.folder("align"), align_made_from(config, settings)):
        return _nothing_to_do(config, "align")
    from align.train import align

    align(config, arguments.resume, arguments.change_ranks)


def _rollout(arguments: argparse.Namespace) -> None:
    config = config_of(arguments)
    settings = config.section("rollout", RolloutConfig)
    if arguments.check:
        return
    document = rollout_made_from(config, settings)
    if arguments.resume and is_done(config.folder("rollout"), document, ROLLOUT_FOLLOWS):
        return _nothing_to_do(config, "rollout")
    from align.rollout import rollout

    rollout(config, document)


def _export(arguments: argparse.Namespace) -> None:
    config = config_of(arguments)
    settings = config.section("export", ExportConfig)
    if arguments.check:
        return
    document = export_made_from(config, settings)
    if arguments.resume and is_done(config.folder("export"), document, EXPORT_FOLLOWS):
        return _nothing_to_do(config, "export")
    from align.export import export

    export(config, document)


ACTIONS = {"train": _align, "rollout": _rollout, "export": _export}
