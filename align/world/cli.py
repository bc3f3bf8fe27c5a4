"""``python -m align world``: a simulated task as a policy meets it, for programs that cannot load the simulator.

It is asked over stdin and answers on stdout (align/framed.py). The first message tells ``instruction``, ``rate_hz``,
``max_steps``, ``actions`` (names) and an observation that shows names and shapes. Then each question has an answer:
``seed`` begins an episode, ``action`` [A] is executed for one frame. Answers: an observation, ``success`` and ``over``;
or ``error``, a text. The end of stdin ends the process.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from align.framed import receive, send
from data.simulation.tasks import INSTRUCTIONS
from pipeline.command import add_config_options, config_of, exit_code_of
from pipeline.errors import UserError

if TYPE_CHECKING:
    from align.world.world import World


def main(words: Sequence[str]) -> int:
    """Parses what follows ``python -m align world`` and answers until stdin ends; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m align world", description=__doc__)
    add_config_options(parser, check=False)
    parser.add_argument("--task", required=True, help="of the simulator, such as drawer-open-v3")
    arguments = parser.parse_args(words)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever libraries print is no answer
    return exit_code_of(lambda: serve(_opened(arguments), sys.stdin.buffer, answers))


def _opened(arguments: argparse.Namespace) -> World:
    config, task = config_of(arguments), arguments.task
    if task not in INSTRUCTIONS:
        raise UserError(f"--task {task}: not a task of the simulator; known: {', '.join(sorted(INSTRUCTIONS))}")
    # torch and the simulator are loaded late: a wrong option is told at once
    from align.world.world import World

    return World(config, task)


def serve(world: World, questions: IO[bytes], answers: IO[bytes]) -> None:
    """Answers until the questions end."""
    send(answers, world.reset(0) | world.told)
    while (question := receive(questions)) is not None:
        try:
            send(answers, _answer(world, question))
        except (UserError, ValueError, RuntimeError) as error:
            send(answers, {"error": str(error)})
    world.close()


def _answer(world: World, question: Mapping[str, np.ndarray]) -> dict[str, Any]:
    if "seed" in question:
        return world.reset(int(question["seed"]))
    if "action" in question:
        return world.step(question["action"])
    raise ValueError(f"question: found {', '.join(question) or 'nothing'}; expected seed or action")
