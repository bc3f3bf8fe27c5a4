"""Holding a graph against the policy that it was made from, on random observations.

Shapes: P past clouds, N points, K actions in a chunk, A action dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from align.graph.module import OUTPUTS
from align.graph.runtime import GraphPolicy
from pretrain.model.configuration_kinecloud import UNKNOWN_EMBODIMENT
from pretrain.model.policy_kinecloud import KinecloudPolicy, PolicyPrediction

TOLERANCE = 1e-4  # normalised actions; metres of the rest
LINES = (
    "", "push the red puck to the goal", "Open the drawer ", "close_the door", "öffne die Schublade",
    "put the blue mug that stands behind the kettle and beside the sink on the upper shelf of the cupboard, " * 2,
)  # fmt: skip
_SIDES = (48, 64, 96, 128, 160)


def random_observation(policy: KinecloudPolicy, random: np.random.Generator) -> dict[str, Any]:
    """Arguments of ``KinecloudPolicy.predict`` in realistic ranges; whatever may be missing sometimes is."""
    config, past = policy.config, len(policy.config.past_times)
    height, width = random.choice(_SIDES, 2)
    points, focal = int(random.choice([6, 20, 50, 200, 400])), random.uniform(0.7, 1.6) * width
    centre_3 = np.array([*random.uniform(-0.25, 0.25, 2), random.uniform(0.35, 1.5)])
    cloud_N3 = random.normal(0, random.uniform(0.01, 0.04), (points, 3))
    path_P3 = np.cumsum(random.normal(0, 0.01, (past, 3)), 0)
    low, high = (policy.get_buffer(f"proprio_{name}").double().numpy() for name in ("q01", "q99"))
    blocks = random.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    image_HW3 = blocks.repeat(8, 0).repeat(8, 1)[:height, :width]
    observation: dict[str, Any] = {
        "image_u8_HW3": image_HW3 ^ random.integers(0, 32, image_HW3.shape, dtype=np.uint8),
        "instruction": str(random.choice(LINES)),
        "past_clouds_PN3": (centre_3 + cloud_N3 + path_P3[:, None]).astype(np.float32),
        "past_valid": np.append(random.random(past - 1) < random.choice([0, 0.7, 1]), True),
        "intrinsics_33": np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]),
        "proprio": random.uniform(low - 0.1 * (high - low), high + 0.1 * (high - low)).astype(np.float32),
        "embodiment": str(random.choice([*config.embodiments, UNKNOWN_EMBODIMENT])),
        "past_visible_PN": random.random((past, points)) < random.choice([0, 0.3, 0.9, 1]),
        "past_opening_P": np.where(random.random(past) < 0.2, np.nan, random.uniform(0, 0.1, past)),
    }
    if random.random() < 0.7:
        observation["past_grasp_P3"] = centre_3 + path_P3 + random.normal(0, 0.01, 3)
    if config.depth or random.random() < 0.2:
        depth_HW = centre_3[2] + random.uniform(-0.2, 0.8) * np.linspace(0, 1, height)[:, None].repeat(width, 1)
        missing_HW = random.random((height, width)) < random.choice([0, 0.1, 0.5])
        observation["depth_HW"] = np.where(missing_HW, 0, depth_HW).astype(np.float32)
    for name in ("past_visible_PN", "past_opening_P"):
        if random.random() < 0.1:
            del observation[name]
    return observation


@dataclass
class Differences:
    """Largest differences by output: absolute, and as a share of that output's largest number in the same answer.
    Actions are compared normalised. every: the absolute difference of each answer."""

    absolute: dict[str, float] = field(default_factory=dict)
    relative: dict[str, float] = field(default_factory=dict)
    every: dict[str, list[float]] = field(default_factory=dict)

    def take(self, expected: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> None:
        """Counts one answer. An output that is missing or not finite on one side alone is infinitely different."""
        for name in {**expected, **found}:
            off, scale = np.inf, 1.0
            if name in expected and name in found and expected[name].shape == found[name].shape:
                apart = np.abs(expected[name].astype(np.float64) - found[name])
                off = float(apart.max(initial=0)) if np.isfinite(apart).all() else np.inf
                scale = max(float(np.abs(expected[name]).max(initial=0)), 1e-12)
            self.every.setdefault(name, []).append(off)
            self.absolute[name] = max(self.absolute.get(name, 0.0), off)
            self.relative[name] = max(self.relative.get(name, 0.0), off / scale)

    def beyond(self) -> dict[str, float]:
        """Those of the absolute differences that are larger than the limit."""
        return {name: off for name, off in self.absolute.items() if not off <= TOLERANCE}

    def at(self, share: float) -> dict[str, float]:
        """What that share of the answers does not exceed, by output."""
        return {name: float(np.quantile(offs, share)) for name, offs in self.every.items()}


def answer_of(policy: KinecloudPolicy, observation: dict[str, Any]) -> dict[str, np.ndarray]:
    """What the policy itself says, by the names of a graph's outputs, actions normalised."""
    prediction = policy.predict(**observation)
    assert isinstance(prediction, PolicyPrediction)
    return {name: prediction[name][0].numpy() for name in OUTPUTS if prediction.get(name) is not None}


def normalised(policy: KinecloudPolicy, answer: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A graph's answer with its actions, f32 [K,A], normalised as the policy's are; numbers that never vary aside."""
    return {**answer, "actions": policy.normalize(torch.from_numpy(answer["actions"]), "action").numpy()}


def compare(policy: KinecloudPolicy, graphs: Sequence[GraphPolicy], count: int, seed: int = 0) -> list[Differences]:
    """Of each graph from the policy, over ``count`` random observations."""
    random, found = np.random.default_rng(seed), [Differences() for _ in graphs]
    moves = (policy.get_buffer("action_q99") - policy.get_buffer("action_q01") > 2e-8).numpy()
    for _ in range(count):
        observation = random_observation(policy, random)
        expected = answer_of(policy, observation)
        expected["actions"] = np.where(moves, expected["actions"], 0)
        for graph, differences in zip(graphs, found, strict=True):
            differences.take(expected, normalised(policy, graph.predict(**observation)))
    return found
