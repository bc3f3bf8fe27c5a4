"""Low-rank adapters on the predictor (Hu et al. 2021), by PEFT: what alignment learns of it is small, and becomes part
of its own weights when the policy is published."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import load_file

from pretrain.model.policy_kinecloud import KinecloudPolicy

if TYPE_CHECKING:
    from peft.tuners.lora import LoraModel

WEIGHTS = "model.safetensors"


def adapt(policy: KinecloudPolicy, rank: int) -> LoraModel:
    """Puts adapters of a rank into all linear layers of the policy's predictor; nothing else of it learns then.

    It predicts what it predicted, until they have learned. What is returned can merge them.
    """
    from peft import LoraConfig  # takes seconds
    from peft.tuners.lora import LoraModel

    settings = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")
    return LoraModel(policy.predictor, settings, "default")


def merge(folder: Path, policy: KinecloudPolicy, rank: int) -> None:
    """Replaces the weights in ``folder``, of a policy whose predictor has adapters, by those of one that has their sum
    in its own. policy: of the same architecture, without adapters; its weights are replaced."""
    adapters = adapt(policy, rank)
    policy.load_state_dict(load_file(folder / WEIGHTS))
    adapters.merge_and_unload()
    policy.save_pretrained(folder)
