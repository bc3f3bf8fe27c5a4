"""What the model card tells to do can be done: its code runs, and its table has the names that ``act`` takes."""

from __future__ import annotations

import inspect
import re
from typing import Any

import numpy as np
import pytest
import transformers

from align.card import model_card
from pretrain.model.configuration_kinecloud import KinecloudConfig
from pretrain.model.observation import prepared
from pretrain.model.policy_kinecloud import wanted_of

POLICIES = {
    "colour": KinecloudConfig(embodiments=["sawyer-gripper"], proprio_names=["x", "y"]),
    "depth": KinecloudConfig(embodiments=["sawyer-gripper"], proprio_names=["x", "y"], scene="depth", depth=True),
}
PROVENANCE: dict[str, Any] = {
    "license": "Apache-2.0",
    "labelled": {"simulated": True, "clips": 1, "frames": 9, "tasks": ["push"], "embodiments": ["a"], "groups": 1},
    "data": {"simulated_episodes": 1, "episodes": 1, "splits": {}, "sources": {}},
    "evaluation": {"align": None, "rollout": None},
}


class Loaded:
    """Stands in for the policy: looks at an observation as ``KinecloudPolicy.act`` does, and gives what it made."""

    def __init__(self, config: KinecloudConfig):
        self.config = config

    def eval(self) -> Loaded:
        return self

    def act(self, *observation: Any, **more: Any) -> dict[str, Any]:
        return prepared(wanted_of(self.config), *observation, **more)


def observed() -> dict[str, Any]:
    """The variables that the card's code uses."""
    return {
        "image": np.zeros((48, 64, 3), np.uint8),
        "instruction": "push",
        "past_clouds": np.zeros((4, 20, 3), np.float32),
        "past_valid": np.ones(4, bool),
        "intrinsics": np.array([[80.0, 0, 32], [0, 80, 24], [0, 0, 1]]),
        "proprio": np.zeros(2, np.float32),
        "embodiment": "sawyer-gripper",
        "depth": np.ones((48, 64), np.float32),
    }


@pytest.mark.parametrize("kind", POLICIES)
def test_the_code_of_the_card_gives_the_policy_what_it_needs(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = POLICIES[kind]
    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", lambda *_, **__: Loaded(config))
    (code,) = re.findall(r"```python\n(.*?)```", model_card(config, PROVENANCE), re.DOTALL)
    variables = observed()
    exec(code, variables)
    assert ("depth" in variables["actions"]) == config.depth


@pytest.mark.parametrize("kind", POLICIES)
def test_the_table_has_the_arguments_by_their_names(kind: str) -> None:
    config = POLICIES[kind]
    table = model_card(config, PROVENANCE).split("## Inputs")[1].split("## Output")[0]
    taken = set(inspect.signature(prepared).parameters) - {"wanted"} - (set() if config.depth else {"depth_HW"})
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == taken


def test_a_reference_is_counted_over_its_own_episodes() -> None:
    rate = {"successes": 3, "episodes": 5, "low": 0.2, "high": 0.9}
    references = {"mean action": {"successes": 4, "episodes": 4}, "zero": {"successes": 0, "episodes": 4}}
    task = {"task": "push", "labelled": True, "policy": rate, "references": references}
    rollout = {"conditions": "Simulated.", "tasks": [task, {**task, "references": {}}]}
    card = model_card(POLICIES["colour"], {**PROVENANCE, "evaluation": {"align": None, "rollout": rollout}})
    assert "| 3 of 5 (20–90 %) | 4 of 4 |" in card and "| 3 of 5 (20–90 %) | – |" in card
