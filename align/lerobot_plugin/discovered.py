"""Kinecloud in LeRobot. Importing this registers the policy type ``kinecloud`` and the environments
``kinecloud_metaworld``: so plugins are found."""

from __future__ import annotations

from align.lerobot_plugin.configuration_kinecloud import LeRobotKinecloudConfig
from align.lerobot_plugin.simulated_config import SimulatedConfig

__all__ = ["LeRobotKinecloudConfig", "SimulatedConfig"]
