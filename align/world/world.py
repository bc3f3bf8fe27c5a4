"""A simulated task as a policy meets it in the rollout stage."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from align.config import RolloutConfig
from align.episode import show
from align.eyes import Eyes
from align.followers import following
from align.origin import policy_folder
from data.simulation.config import SimulateConfig
from data.simulation.environment import TaskEnvironment
from data.simulation.metaworld import FRAME_HZ
from data.simulation.scene import random_look
from extract.config import ExtractConfig
from extract.effector import Camera
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.fingerprint import require_done
from pretrain.model.configuration_kinecloud import KinecloudConfig

MM = 1000.0


class World:
    """One task, with eyes that follow the effector as rollouts do. Only one may be open in a process at a time."""

    def __init__(self, config: Config, task: str):
        """config: of a run that is aligned. Raises UserError where it is not, and where the clips' extractor cannot
        follow a running policy or does not tell it what it learned from."""
        labelled = require_done(config.folder("align"), "align")["labelled"]
        extraction, scenes = config.section("extract", ExtractConfig), config.section("simulate", SimulateConfig)
        self._following = following(labelled["extractor"], extraction, config.folder("extract"))
        self._image_side, self._scenes, self._run_seed = extraction.image_side, scenes, config.run.seed
        self._policy = KinecloudConfig.from_pretrained(policy_folder(config))
        self._following.require(self._policy.depth)
        self._max_seconds = config.section("rollout", RolloutConfig).max_seconds
        show_goal = task in scenes.show_goal_tasks
        self._world = TaskEnvironment(
            task, scenes.resolution, show_goal, scenes.extra_object_range_m, scenes.action_mixing
        )
        self.told = {
            "instruction": self._world.instruction,
            "rate_hz": float(FRAME_HZ),
            "max_steps": math.ceil(self._max_seconds * FRAME_HZ),
            "actions": np.array(self._policy.action_names),
        }

    def reset(self, seed: int) -> dict[str, Any]:
        """The episode of ``seed``, with the light and colours that a rollout of this seed has; its observation.

        The robot stands still until its effector is seen. Raises UserError where it never is.
        """
        look = random_look(np.random.default_rng([self._run_seed, seed]), self._scenes.camera_jitter_m)
        self._observation = self._world.reset(seed, look)
        camera = Camera(self._world.intrinsics, self._world.image_size, "given")
        self._eyes = Eyes(camera, self._following, self._policy, self._image_side)
        self._look()
        while self._eyes.view() is None:
            if self.over:
                where = f"{self._world.task}, seed {seed}"
                raise UserError(f"{where}: the effector was not found in any frame of the episode")
            self._do(np.zeros(len(self._policy.action_names), np.float32))
        return self._told()

    def step(self, action_A: np.ndarray) -> dict[str, Any]:
        """Executes an action for one frame; what is seen then. Raises ValueError for one of another shape."""
        wanted = (len(self._policy.action_names),)
        if action_A.shape != wanted or not np.isfinite(action_A).all():
            raise ValueError(f"action: found {action_A!r}; expected {list(wanted)} finite numbers")
        self._do(action_A)
        return self._told()

    @property
    def over(self) -> bool:
        """Whether the episode has succeeded or its time is up."""
        return self._world.success or self._world.done or self._world.seconds >= self._max_seconds - 1e-6

    def close(self) -> None:
        self._world.close()

    def _do(self, action_A: np.ndarray) -> None:
        self._world.step(action_A)
        self._observation = self._world.observe()
        self._look()

    def _look(self) -> None:
        show(self._observation, self._eyes, self._following.sensors)

    def _told(self) -> dict[str, Any]:
        """picture u8 [H,W,3] and intrinsics: what the policy looks at; scene: whether that is the scene without its
        actor. depth: f32 [1,H,W], mm, where it wants it. The cloud now: metres, camera frame. film: what the camera
        sees, u8 [H,W,3]."""
        view = self._eyes.view()
        assert view is not None  # seen once, it is kept
        past, depth = view.past, {} if view.depth is None else {"depth": (view.depth * MM).astype(np.float32)[None]}
        return {
            "picture": view.image,
            "intrinsics": view.intrinsics_33.astype(np.float32),
            **depth,
            "proprio": self._observation.proprio.astype(np.float32),
            "points": past.clouds_PN3[-1],
            "visible": past.visible_PN[-1].astype(np.float32),
            "opening": past.opening_P[-1:].astype(np.float32),
            "grasp": past.grasp_P3[-1].astype(np.float32),
            "film": self._observation.frame.image,
            "scene": self._policy.scene != "none",
            "success": self._world.success,
            "over": self.over,
        }
