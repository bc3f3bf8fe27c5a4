"""Policies of every kind that a graph can be made of, tiny, with random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from pretrain.model.configuration_kinecloud import KinecloudConfig
from pretrain.model.heads import InverseDynamics
from pretrain.model.policy_kinecloud import KinecloudPolicy
from tests.tiny_encoders import gemma_tokenizer, pi0_config, tiny_dinov2, tiny_minilm, tiny_siglip

SIZE = {"image_size": 32, "width": 32, "layers": 2, "heads": 2, "slots": 2, "action_chunk": 4, "flow_steps": 3}


def graph_policy(**changes: Any) -> KinecloudPolicy:
    """A policy that says something else of every observation, with quantiles that are not -1 and 1."""
    spec = {"unit": "m", "frame": "camera", "mode": "delta", "rate_hz": 20.0}
    names = {"action_names": ["dx", "dy", "dz", "gripper"], "proprio_names": ["x", "y", "z"], "action_spec": spec}
    torch.manual_seed(0)
    policy = KinecloudPolicy(KinecloudConfig(**{**SIZE, **names, **changes})).eval()
    for reader in policy.readers:
        reader.tokenizer = gemma_tokenizer()
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters():  # as large as after training, and nothing stays at zero
            parameter += 0.05 * torch.randn(parameter.shape, generator=random)
        policy.get_buffer("action_q01").copy_(torch.tensor([-0.03, -0.02, -0.04, -1.0]))
        policy.get_buffer("action_q99").copy_(torch.tensor([0.02, 0.05, 0.03, 1.0]))
        policy.get_buffer("proprio_q01").copy_(torch.tensor([-0.3, -0.2, 0.3]))
        policy.get_buffer("proprio_q99").copy_(torch.tensor([0.3, 0.4, 1.3]))
    return policy


def inverse_dynamics(**changes: Any) -> KinecloudPolicy:
    """With the head that is fitted in closed form, as if to 50 windows; the gripper answers by openings."""
    policy = graph_policy(head="inverse_dynamics", remembered=50, **changes)
    head = policy.head
    assert isinstance(head, InverseDynamics)
    random = torch.Generator().manual_seed(2)
    for name, scale in (("linear", 0.1), ("openings", 0.3), ("actions", 0.7)):
        buffer = head.get_buffer(name)
        buffer.copy_((scale * torch.randn(buffer.shape, generator=random)).clamp(-1, 1))
    head.get_buffer("by_opening").copy_(torch.arange(16) % 4 == 3)
    return policy


def _beside(policy: KinecloudPolicy) -> KinecloudPolicy:
    policy.get_buffer("offset").copy_(torch.tensor([0.01, -0.02, 0.03]))
    return policy


def _encoders(vision: Callable[[Path], Path], text: Callable[[Path], Path], **changes: Any) -> KinecloudPolicy:
    """With a vision and a text encoder of transformers."""
    from transformers import AutoConfig, AutoTokenizer

    with TemporaryDirectory() as folder:
        places = vision(Path(folder) / "vision"), text(Path(folder) / "text")
        configs = [AutoConfig.from_pretrained(place) for place in places]
        tokenizer = AutoTokenizer.from_pretrained(places[1])
    kinds = [
        getattr(config, name, config) for config, name in zip(configs, ("vision_config", "text_config"), strict=True)
    ]
    policy = graph_policy(vision=kinds[0].to_dict(), text=kinds[1].to_dict(), max_text_tokens=16, **changes)
    for reader in policy.readers:
        reader.tokenizer = tokenizer
    return policy


VARIANTS: dict[str, Callable[[], KinecloudPolicy]] = {
    "direct": graph_policy,
    "direct, waypoints, depth": lambda: graph_policy(waypoints=3, depth=True, scene="depth"),
    "binned": lambda: graph_policy(head="direct_binned", waypoints=3),
    "flow-matching head": lambda: graph_policy(head="direct_flow_matching", depth=True),
    "separate trunk": lambda: graph_policy(separate=True, waypoints=3),
    "inverse dynamics": inverse_dynamics,
    "inverse dynamics, waypoints, depth": lambda: inverse_dynamics(waypoints=3, depth=True, scene="depth"),
    "inverse dynamics, asks as a hand": lambda: _beside(inverse_dynamics(waypoints=3, asks_as="human-hand")),
    "inverse dynamics, two dimensions": lambda: inverse_dynamics(dimensions=2),
    "generative": lambda: graph_policy(generative=True, delta_scale=[0.2, 0.3, 0.4, 0.5, 0.6]),
    "generative, inverse dynamics": lambda: inverse_dynamics(generative=True),
    "generative, flow-matching head": lambda: graph_policy(generative=True, waypoints=3, head="direct_flow_matching"),
    "latent action": lambda: graph_policy(latent_action=True),
    "blind": lambda: graph_policy(blind=True, waypoints=3),
    "SigLIP and its text": lambda: _encoders(tiny_siglip, tiny_siglip, image_size=48),
    "DINOv2 and MiniLM": lambda: _encoders(tiny_dinov2, tiny_minilm, vision_size=28),
    "full": lambda: graph_policy(mixture=pi0_config().to_dict(), max_text_tokens=24),
    "full, generative": lambda: graph_policy(
        mixture=pi0_config("gemma2").to_dict(), max_text_tokens=24, generative=True
    ),
}
