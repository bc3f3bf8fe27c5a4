"""Loading an aligned policy."""

from __future__ import annotations

from pathlib import Path

from transformers.utils import logging

from pretrain.model.policy_kinecloud import KinecloudPolicy


def load_policy(folder: Path) -> KinecloudPolicy:
    """The policy in ``folder``, ready to act."""
    logging.disable_progress_bar()  # a bar for a few megabytes is noise, and its lock outlives killed workers
    return KinecloudPolicy.from_pretrained(folder).eval()
