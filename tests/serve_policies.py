"""A policy that has learned nothing, and an observation for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from pretrain.model.configuration_kinecloud import KinecloudConfig
from pretrain.model.policy_kinecloud import KinecloudPolicy


def tiny_policy(**changes: Any) -> KinecloudPolicy:
    """A policy that says something else of every observation. changes: of its configuration."""
    spec = {"unit": "m", "frame": "camera", "mode": "delta", "rate_hz": 20.0}
    config = KinecloudConfig(
        image_size=32, width=32, layers=1, heads=2, slots=2, action_chunk=4, action_names=["dx", "dy", "dz"],
        proprio_names=["x", "y", "z"], action_spec=spec, **changes,
    )  # fmt: skip
    torch.manual_seed(0)
    policy = KinecloudPolicy(config).eval()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.normal_(0, 0.2)
    return policy


def observation(seed: int = 5, **changes: Any) -> dict[str, Any]:
    """The arguments of ``act``."""
    random = np.random.default_rng(seed)
    return {
        "image_u8_HW3": random.integers(0, 256, (48, 64, 3), dtype=np.uint8),
        "instruction": f"move along {seed}",
        "past_clouds_PN3": random.normal([0, 0, 0.7], 0.03, (4, 20, 3)).astype(np.float32),
        "past_valid": np.array([False, True, True, True]),
        "intrinsics_33": np.array([[80.0, 0, 32], [0, 80, 24], [0, 0, 1]]),
        "proprio": np.array([0.01, -0.02, 0.7], np.float32),
        "embodiment": "sawyer-gripper",
        **changes,
    }
