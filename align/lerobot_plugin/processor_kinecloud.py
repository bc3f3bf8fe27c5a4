"""What lerobot does to a batch before a Kinecloud policy sees it, and to its actions."""

from __future__ import annotations

from typing import Any

from lerobot.processor import make_default_pre_post_processors  # pyright: ignore[reportMissingImports]

from align.lerobot_plugin.configuration_kinecloud import LeRobotKinecloudConfig


def make_kinecloud_pre_post_processors(
    config: LeRobotKinecloudConfig, dataset_stats: dict[str, dict[str, Any]] | None = None
) -> tuple[Any, Any]:
    """lerobot's default steps: names, batch, device, normalisation.

    Normalisation is the identity, whatever the statistics: the policy takes and gives physical units, and the quantiles
    it normalises with are buffers among its weights. The step is there because lerobot configures it by its name.
    """
    config.validate_features()
    return make_default_pre_post_processors(config, dataset_stats, normalizer_device=config.device)
