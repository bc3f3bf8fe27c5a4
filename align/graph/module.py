"""A policy as a function of tensors alone, from raw observation to actions in physical units.

Shapes: P past clouds, N points, L text tokens, H horizons, K actions of A numbers.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from pretrain.model.geometry import middles
from pretrain.model.policy_kinecloud import KinecloudPolicy

OUTPUTS = ("actions", "points", "opening", "grasp", "waypoints")


class PolicyGraph(nn.Module):
    """Tensors by the names of ``contract.inputs_of`` -> what there is of ``OUTPUTS``, in their order."""

    def __init__(self, policy: KinecloudPolicy):
        """policy: is copied, not changed."""
        super().__init__()
        self.policy = copy.deepcopy(policy).eval().float().requires_grad_(False)

    def forward(
        self, image: Tensor, intrinsics: Tensor, past: Tensor, past_visible: Tensor, past_valid: Tensor,
        past_opening: Tensor, past_grasp: Tensor, proprio: Tensor, embodiment: Tensor, text_ids: Tensor,
        depth: Tensor | None = None, noise: Tensor | None = None, action_noise: Tensor | None = None,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """actions f32 [1,K,A] in physical units; the rest as KinecloudPrediction, metres. A grasp point that is not
        finite is not known at any time."""
        known = torch.isfinite(past_grasp).all()
        prediction = self.policy(
            image=image, intrinsics=intrinsics, past=past, past_visible=past_visible, past_valid=past_valid,
            past_opening=past_opening, proprio=proprio, embodiment=embodiment, text=text_ids, depth=depth, noise=noise,
            past_grasp=torch.where(known, past_grasp, middles(self.policy.config, past, past_visible)),
            noised_actions=action_noise,
        )  # fmt: skip
        prediction.actions = self.policy.denormalize(prediction.actions, "action")
        return tuple(prediction[name] for name in OUTPUTS if prediction.get(name) is not None)
