"""What decides on actions in closed loop: the policy itself, or one of two controls that tell what its parts are worth.

Shapes: P past clouds, N points, H horizons, K actions in a chunk, A action dimensions, T steps of the simulator.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from metaworld.policies import ENV_POLICY_MAP

from align.config import ControlName
from align.eyes import View
from data.simulation.environment import Observation, TaskEnvironment
from data.simulation.metaworld import CONTROL_HZ, environment, reset, snapshot
from pretrain.model.modeling_kinecloud import KinecloudPrediction
from pretrain.model.policy_kinecloud import KinecloudPolicy

SEARCHED = 12  # steps of an expert's path among which the present one is looked for
OPENING_COUNTS = 0.5  # of a metre of opening, against one of the path
REACH_S = 0.1  # the proportional controller approaches where the effector is to be then
FULL_SCALE_M_S = 0.8  # speed of a command of 1: a centimetre per step of the simulator
CLOSED = 0.5  # of the widest opening seen: the proportional controller closes where less is planned


@dataclass(frozen=True)
class Decision:
    """actions_KA: physical units. ahead_HN3: the predicted clouds, metres, camera frame, or None."""

    actions_KA: np.ndarray
    ahead_HN3: np.ndarray | None


class Control:
    """Decides as the policy does."""

    def __init__(self, policy: KinecloudPolicy, world: TaskEnvironment, embodiment: str):
        self.policy, self.world, self.embodiment = policy, world, embodiment

    def rest(self) -> Decision:
        """Standing still, as long as nothing was seen."""
        shape = self.policy.config.action_chunk, len(self.policy.config.action_names)
        return Decision(np.zeros(shape, np.float32), None)

    def decide(self, observation: Observation, view: View) -> Decision:
        return self._from(self._predict(observation, view))

    def _predict(
        self, observation: Observation, view: View, future: KinecloudPrediction | None = None
    ) -> KinecloudPrediction:
        past = view.past
        return self.policy.predict(
            view.image,
            self.world.instruction,
            past.clouds_PN3,
            past.valid_P,
            view.intrinsics_33,
            observation.proprio,
            self.embodiment,
            past.visible_PN,
            past.opening_P,
            past.grasp_P3,
            view.depth,
            follow=future,
        )

    def _from(self, prediction: KinecloudPrediction) -> Decision:
        actions = self.policy.denormalize(prediction.actions, "action")[0]
        return Decision(_numbers(actions), _numbers(prediction.points[0]))


class TrueFuture(Control):
    """The policy's head is given what an expert would do next, from where on its path the effector is now.

    It is what a perfect prediction is worth, and reads the simulator's state. Made before the episode is reset: the
    expert goes first, in the same physics.
    """

    def __init__(self, policy: KinecloudPolicy, world: TaskEnvironment, embodiment: str, seed: int, extra_m: float):
        super().__init__(policy, world, embodiment)
        self._path_T3, self._opening_T = expert_path(world.task, seed, extra_m)
        self._at = self._asked = 0

    def decide(self, observation: Observation, view: View) -> Decision:
        camera_from_world = np.linalg.inv(self.world.world_from_camera)
        path_T3 = self._path_T3 @ camera_from_world[:3, :3].T + camera_from_world[:3, 3]
        now_3 = view.past.grasp_P3[-1]
        near = np.arange(self._at, min(self._at + SEARCHED, len(path_T3)))
        apart = np.linalg.norm(path_T3[near] - now_3, axis=1)
        apart += OPENING_COUNTS * np.abs(self._opening_T[near] - observation.opening)
        nearest = int(near[apart.argmin()])
        self._asked += 1
        waits = nearest == self._at and self._asked % 2 == 0  # so that it never waits for what has passed it by
        self._at = min(self._at + 1, len(path_T3) - 1) if waits else nearest
        steps_H = self._at + CONTROL_HZ * np.array(self.policy.config.horizons)
        grasp_H3 = np.stack([np.interp(steps_H, np.arange(len(path_T3)), path_T3[:, axis]) for axis in range(3)], -1)
        opening_H = np.interp(steps_H, np.arange(len(path_T3)), self._opening_T)
        points_HN3 = view.past.clouds_PN3[-1] + (grasp_H3 - now_3)[:, None]
        future = KinecloudPrediction(
            *(
                torch.tensor(x, dtype=torch.float32, device=self.policy.device)[None]
                for x in (points_HN3, opening_H, grasp_H3)
            )
        )
        return self._from(self._predict(observation, view, future))


class Proportional(Control):
    """Goes straight to where the predictor says the effector is to be, as a robot with known, unmixed axes would."""

    def __init__(self, policy: KinecloudPolicy, world: TaskEnvironment, embodiment: str):
        super().__init__(policy, world, embodiment)
        self._widest = 0.0

    def decide(self, observation: Observation, view: View) -> Decision:
        prediction = self._predict(observation, view)
        horizons = np.array(self.policy.config.horizons)
        soon = int(np.abs(horizons - REACH_S).argmin())
        ahead_3 = self.world.world_from_camera[:3, :3] @ (_numbers(prediction.grasp[0, soon]) - view.past.grasp_P3[-1])
        self._widest = max(self._widest, observation.opening)
        closes = float(prediction.opening[0, soon]) < CLOSED * self._widest
        command_4 = np.array([*ahead_3 / (horizons[soon] * FULL_SCALE_M_S), 1.0 if closes else -1.0], np.float32)
        actions_KA = np.tile(command_4, (self.policy.config.action_chunk, 1))
        return Decision(np.clip(actions_KA, -1, 1), _numbers(prediction.points[0]))


def _numbers(values: torch.Tensor) -> np.ndarray:
    return values.float().cpu().numpy()


def control_of(
    kind: ControlName, policy: KinecloudPolicy, world: TaskEnvironment, embodiment: str, seed: int, extra_m: float
) -> Control:
    """What decides in the episode of ``seed``; to be made before it is reset."""
    if kind == "true_future":
        return TrueFuture(policy, world, embodiment, seed, extra_m)
    return Proportional(policy, world, embodiment) if kind == "p_controller" else Control(policy, world, embodiment)


def expert_path(task: str, seed: int, extra_m: float, expert_of: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Grasp points f64 [T,3] metres, world, and openings [T] of the task's scripted expert until half a second after it
    succeeds, or the simulator's limit. extra_m: as ``simulate.extra_object_range_m``. expert_of: the task whose expert
    acts instead."""
    env, expert = environment(task), ENV_POLICY_MAP[expert_of or task]()
    observation = reset(env, seed, extra_m)
    states, left = [snapshot(env)], None
    while len(states) + 1 < env.max_path_length and left != 0:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # experts ask for more than full scale by design
            command = np.clip(expert.get_action(observation), -1, 1)
        observation, _, _, _, info = env.step(command.astype(np.float32))
        states.append(snapshot(env))
        if left is not None:
            left -= 1
        elif info["success"] > 0.5:
            left = CONTROL_HZ // 2
    return np.stack([state.tcp for state in states]), np.array([state.opening for state in states])
