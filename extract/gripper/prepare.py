"""What some ways to find grippers make of the labelled episodes before the first video."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data.index import Episode
from extract.gripper.config import GripperConfig
from extract.gripper.learned.settings import LearnedSettings
from extract.gripper.registered.build import prepare_model
from pipeline.logs import StageLog


def prepare_gripper(episodes: Sequence[Episode], config: GripperConfig, folder: Path, seed: int, log: StageLog) -> None:
    """The model or network that ``config.detect`` needs, into the stage's folder, unless it is there.

    seed: of everything random. Raises UserError naming what the episodes lack.
    """
    prepare_model(episodes, config, folder)
    if isinstance(config.detect, LearnedSettings):
        from extract.gripper.learned.build import prepare_network
        from extract.gripper.learned.model import network_path

        if network_path(config.detect, folder).exists():
            return
        log.info("teaching the gripper network with the labelled episodes")
        with log.progress("lessons", config.detect.steps) as advance:
            prepare_network(episodes, config, folder, seed, lambda step, loss: advance(1))
