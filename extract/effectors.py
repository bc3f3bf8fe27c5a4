"""The registry of effector extractors: a new one is added here, by name."""

from __future__ import annotations

from pathlib import Path

from extract.config import ExtractConfig
from extract.effector import Extractor


def build_extractor(kind: str, config: ExtractConfig, folder: Path | None = None) -> Extractor:
    """The extractor for a sidecar's ``effector``; heavy packages are imported only for the kind that is asked for.

    folder: of the stage, RUN/extract, where a gripper model is that the settings do not name.
    """
    if kind == "hand":
        from extract.hand.extractor import HandExtractor

        if config.hand.depth is None:
            return HandExtractor(config.hand)
        from extract.gripper.steps import DEPTH
        from extract.hand.learned import LearnedDepthHands

        return LearnedDepthHands(config.hand, DEPTH[type(config.hand.depth)](config.hand.depth), config.hand.depth.name)
    if kind == "hand_joints":
        from extract.hand.recorded import RecordedHands

        return RecordedHands(config.hand)
    if kind == "mask":
        from extract.mask.extractor import MaskExtractor

        return MaskExtractor(config.mask)
    if kind == "gripper":
        from extract.robot.config import ProprioSettings

        if isinstance(config.gripper.detect, ProprioSettings):
            from extract.gripper.proprio import ProprioExtractor

            return ProprioExtractor(config.gripper, config.gripper.detect)
        from extract.gripper.registered.settings import RegisteredSettings

        if isinstance(config.gripper.detect, RegisteredSettings):
            from extract.gripper.registered.build import model_path
            from extract.gripper.registered.extractor import RegisteredExtractor

            path = model_path(config.gripper.detect, folder or Path())
            return RegisteredExtractor(config.gripper, config.gripper.detect, path)
        from extract.gripper.learned.settings import LearnedSettings

        if isinstance(config.gripper.detect, LearnedSettings):
            from extract.gripper.learned.extractor import LearnedExtractor
            from extract.gripper.learned.model import network_path

            path = network_path(config.gripper.detect, folder or Path())
            return LearnedExtractor(config.gripper, config.gripper.detect, path)
        from extract.gripper.extractor import GripperExtractor

        return GripperExtractor(config.gripper)
    raise ValueError(f"unknown effector '{kind}'")
