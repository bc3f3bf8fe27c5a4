"""What a set of shards holds, in numbers a person can judge."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from data.clips import Clip, Shard
from pipeline.errors import UserError

COLUMNS = (
    "source",
    "embodiment",
    "scale",
    "clips",
    "seconds",
    "visible",
    "depth m",
    "speed mm/s",
    "sigma mm",
    "labelled",
    "grasp",
    "scenes",
)


def stats(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """One row per source, embodiment and scale: clips, seconds, and medians over frames.

    labelled, grasp, scenes: how many of the clips have actions, grasp points and pictures of the scene.
    """
    kinds: dict[tuple[str, str, str], list[tuple[Any, ...]]] = defaultdict(list)
    for path in paths:
        for clip in Shard(path).clips():
            if wrong := clip.problems():
                raise UserError(
                    f"{path}: clip {clip.key}: {wrong[0]}. `python -m data verify` tells all that is wrong."
                )
            kinds[(clip.meta.source, clip.meta.embodiment, clip.meta.scale)].append(_measure(clip))
    rows = []
    for kind, measured in sorted(kinds.items()):
        seconds, visible, depth, speed, sigma, *having = zip(*measured, strict=True)
        medians = (
            round(float(np.median(depth)), 2),
            round(float(np.median(speed))),
            round(float(np.median(sigma)), 1),
        )
        values = (
            *kind,
            len(measured),
            round(sum(seconds), 1),
            round(float(np.mean(visible)), 2),
            *medians,
            *(sum(clips) for clips in having),
        )
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def _measure(clip: Clip) -> tuple[float, float, float, float, float, bool, bool, bool]:
    points, times = clip.arrays["points"], clip.arrays["timestamps"]
    centre = points.mean(1)
    speed = np.linalg.norm(np.diff(centre, axis=0), axis=1) / np.diff(times) if len(times) > 1 else np.zeros(1)
    return (
        float(times[-1] - times[0]),
        float(clip.arrays["visible"].mean()),
        float(np.median(centre[:, 2])),
        float(1000 * np.median(speed)),
        float(1000 * np.median(clip.arrays["sigma"])),
        clip.meta.action_spec is not None,
        "grasp" in clip.arrays,
        bool(clip.scenes),
    )
