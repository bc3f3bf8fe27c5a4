"""Kinecloud policies in LeRobot. Importing this registers the policy type ``kinecloud``: so plugins are found."""

from __future__ import annotations

from align.lerobot_plugin.configuration_kinecloud import LeRobotKinecloudConfig

__all__ = ["LeRobotKinecloudConfig"]
