"""One observation as users have it -> the tensors that a graph takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from align.graph.noise import normal
from align.graph.words import ids_of
from pretrain.model.observation import Wanted, prepared


def feeds_of(
    document: Mapping[str, Any], tokenizer: Any, *observation: Any, seed: int = 0, **more: Any
) -> dict[str, np.ndarray]:
    """document: the graph's metadata. seed: of the noise of a graph that samples. The rest: the arguments of
    ``prepared`` (pretrain/model/observation.py) after the first. Raises what it raises, and ValueError for one point.
    """
    rows, names = {row["name"]: row for row in document["inputs"]}, document["embodiments"]
    past, size = len(document["past_times_s"]), document["picture"]["size"]
    wanted = Wanted(past, size, document["proprio"]["names"], list(names), "depth" in rows)
    unknown_P3 = np.full((past, 3), np.nan, np.float32)
    window: dict[str, Any] = {"past_grasp": unknown_P3, **prepared(wanted, *observation, **more)}
    points = window["past"].shape[1]
    if points < 2:
        raise ValueError(f"past_clouds_PN3 has {points} points; a graph takes 2 or more")
    window["embodiment"] = np.int64(names[window["embodiment"]])
    feeds = {name: np.stack([window[name]]) for name in rows if name in window}
    feeds["text_ids"] = ids_of(window["text"], document["text"], tokenizer)
    for name in ("noise", "action_noise"):
        if name in rows:
            feeds[name] = normal([points if n == "N" else n for n in rows[name]["shape"]], seed)
    return {name: feeds[name] for name in rows}
