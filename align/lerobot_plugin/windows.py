"""Rows of a batch as the training window that ``KinecloudPolicy.forward`` takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from align.lerobot_plugin.rows import Row
from align.moments import past_of
from pretrain.model.configuration_kinecloud import KinecloudConfig
from pretrain.model.observation import prepared
from pretrain.model.policy_kinecloud import batch_of, wanted_of


def window_of(
    rows: Sequence[Row], config: KinecloudConfig, embodiment: str, device: torch.device | str
) -> dict[str, Any]:
    """What ``KinecloudPolicy.predict`` makes of each, for many at once."""
    wanted, past_times = wanted_of(config), config.past_times
    seen = (row.observation(embodiment, past_of(row.moments, past_times)) for row in rows)
    return batch_of([prepared(wanted, **observation) for observation in seen], device)
