"""Demonstrations in which the first grasp misses: reach beside the thing, close on nothing, lift, try again."""

from __future__ import annotations

from typing import Literal

import numpy as np

# Tasks whose experts close the gripper around something.
GRASP_TASKS = frozenset(
    {
        "pick-place-v3",
        "push-v3",
        "push-back-v3",
        "coffee-pull-v3",
        "coffee-push-v3",
        "sweep-v3",
        "peg-unplug-side-v3",
    }
)
MISS_M = (0.02, 0.04)  # how far beside the thing the first grasp goes
OBJECT = slice(4, 6)  # x and y of the thing in Meta-World's observation
CLOSING_STEPS, HOLD_STEPS = 8, 32  # control steps that the expert closes by itself, and that the jaws then have
EMPTY_M = 0.02  # the jaws stop at 18 mm; when they came closer than this they hold nothing
LIFT_M = 0.12


class MissedGrasp:
    """Stands between an expert and the world until one grasp has missed; afterwards it changes nothing.

    The expert is shown the thing 2 to 4 cm beside where it is. Once it has begun to close, the hand stays until the
    jaws are shut, and then lifts with open jaws by 12 cm.
    """

    def __init__(self, rng: np.random.Generator):
        angle = rng.uniform(0, 2 * np.pi)
        self._offset = rng.uniform(*MISS_M) * np.array([np.cos(angle), np.sin(angle)])
        self._phase: Literal["reach", "close", "lift", "over"] = "reach"
        self._steps = 0
        self._lift_to = 0.0

    @property
    def missed(self) -> bool:
        """True once the jaws have closed on nothing."""
        return self._phase in ("lift", "over")

    def shown(self, observation: np.ndarray) -> np.ndarray:
        """What the expert is to see."""
        if self._phase != "reach":
            return observation
        observation = observation.copy()
        observation[OBJECT] += self._offset
        return observation

    def command(self, wanted_4: np.ndarray, tcp_z: float, opening: float) -> np.ndarray:
        """What is executed instead of the expert's command. tcp_z, opening: metres, now."""
        if self._phase == "reach":
            self._steps += wanted_4[3] > 0.05
            if self._steps >= CLOSING_STEPS:
                self._phase, self._steps = "close", 0
            return wanted_4
        if self._phase == "close":
            self._steps += 1
            if self._steps >= HOLD_STEPS and opening < EMPTY_M:
                self._phase, self._lift_to = "lift", tcp_z + LIFT_M
            return np.array([0, 0, 0, max(wanted_4[3], 0.6)])
        if self._phase == "lift":
            if tcp_z >= self._lift_to:
                self._phase = "over"
            return np.array([0.0, 0.0, 1.0, -1.0])
        return wanted_4
