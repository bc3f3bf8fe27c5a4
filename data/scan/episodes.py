"""What is done alike with videos and recordings on their way into the index."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from data.sidecar import Sidecar
from pipeline.fingerprint import digest


def parts(sidecar: Sidecar, frames: int, duration_s: float, split_minutes: float | None) -> list[Sidecar]:
    """The stretch itself, or equal parts of a long one. The last one is open: containers may promise too little."""
    count = 1 if split_minutes is None else math.ceil(duration_s / (60 * split_minutes) - 0.1)
    if count < 2 or sidecar.frame_range or sidecar.arrays or sidecar.labelled or frames < 2 * count:
        return [sidecar]
    ends = [round(frames * number / count) for number in range(count)] + [round(1.05 * frames)]
    return [sidecar.model_copy(update={"frame_range": span}) for span in pairwise(ends)]


def episode_id(name: str, identity: Mapping[str, Any]) -> str:
    """For people and unique by content: of a name, and of all that decides what the episode is."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "video"
    return f"{slug}-{digest(dict(identity))[:12]}"
