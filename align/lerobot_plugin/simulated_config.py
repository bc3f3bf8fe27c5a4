"""The project's simulated tasks as environments of LeRobot: ``--env.type=kinecloud_metaworld``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import gymnasium
from lerobot.configs import FeatureType  # pyright: ignore[reportMissingImports]
from lerobot.configs.types import PolicyFeature  # pyright: ignore[reportMissingImports]
from lerobot.envs.configs import EnvConfig  # pyright: ignore[reportMissingImports]

from align.lerobot_plugin.names import ACTION, IMAGES, OBSERVATION, STATE
from align.lerobot_plugin.simulated import SimulatedEnv, Where, WorldProcess, observed

GYM_ID = "kinecloud/MetaWorld-v0"


@EnvConfig.register_subclass("kinecloud_metaworld")
@dataclass
class SimulatedConfig(EnvConfig):
    """Settings of ``--env.type=kinecloud_metaworld``."""

    task: str | None = "drawer-open-v3"
    fps: int = 20
    # Checkout of Kinecloud, and the Python of its environment.
    repository: str = "."
    python: str = ".venv/bin/python"
    # Configuration of a run that is aligned, relative to the checkout: its scenes, its extraction, its time limit.
    config: str = "pipeline/configs/quickstart.yaml"
    # Values to override in it, as --set of Kinecloud's own commands: ["run.out=runs/mine"]
    overrides: list[str] = field(default_factory=list)
    features: dict[str, PolicyFeature] = field(default_factory=dict)
    features_map: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Asks the simulator for names and shapes. Raises RuntimeError with its last words where it does not start."""
        if self.features:
            return
        world = WorldProcess(self._where())
        first = world.first
        world.close()
        self.fps = round(float(first["rate_hz"]))
        seen = observed(first)
        shapes = {f"pixels/{name}": picture.shape for name, picture in seen.pop("pixels").items()}
        shapes |= {ACTION: first["actions"].shape} | {name: array.shape for name, array in seen.items()}
        self.features = {name: PolicyFeature(_kind(name), tuple(shape)) for name, shape in shapes.items()}
        self.features_map = {name: _feature(name) for name in shapes}

    @property
    def gym_id(self) -> str:
        return GYM_ID

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        return {"where": self._where()}

    def _where(self) -> Where:
        return Where(self.repository, self.python, self.config, tuple(self.overrides), str(self.task))


def _kind(name: str) -> FeatureType:
    if name.startswith("pixels/"):
        return FeatureType.VISUAL
    return FeatureType.ACTION if name == ACTION else FeatureType.STATE


def _feature(name: str) -> str:
    """The name of a policy's feature for what an environment calls ``name``."""
    if name.startswith("pixels/"):
        return IMAGES + name.removeprefix("pixels/")
    return {ACTION: ACTION, "agent_pos": STATE}.get(name, OBSERVATION + name)


gymnasium.register(GYM_ID, entry_point=SimulatedEnv)  # pyright: ignore[reportArgumentType]
