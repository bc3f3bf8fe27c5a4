"""Whether a policy did what a task's sibling asks for: the labelled task in a scene that looks the same.

Shapes: T places of a path.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist

from align.control import expert_path

SIBLINGS = {
    "drawer-open-v3": "drawer-close-v3",
    "window-open-v3": "window-close-v3",
    "faucet-open-v3": "faucet-close-v3",
    "button-press-topdown-v3": "button-press-v3",
    "push-v3": "pick-place-v3",
}
STEP_M = 0.01  # places of a path are so far apart, however fast it was gone


def confused(task: str, seed: int, extra_m: float, path_T3: np.ndarray, success: bool) -> bool | None:
    """Whether the grasp point went rather as the sibling's expert goes in this scene than as the task's own does.

    path_T3: metres, world, of an episode of ``seed``; one that succeeded was not confused. extra_m: as
    ``simulate.extra_object_range_m``. None for a task without a sibling.
    """
    sibling = SIBLINGS.get(task)
    if sibling is None or success:
        return None if sibling is None else False
    own, other = (apart(path_T3, expert_path(task, seed, extra_m, expert)[0]) for expert in (task, sibling))
    return other < own


def apart(path_T3: np.ndarray, other_T3: np.ndarray) -> float:
    """Chamfer distance of two paths, metres: mean distance to the nearest place of the other, both ways."""
    apart_TT = cdist(spaced(path_T3), spaced(other_T3))
    return float(apart_TT.min(0).mean() + apart_TT.min(1).mean()) / 2


def spaced(path_T3: np.ndarray) -> np.ndarray:
    """The path with a place for every centimetre gone, and its first."""
    gone_T = np.append(0, np.linalg.norm(np.diff(path_T3, axis=0), axis=1).cumsum())
    at = np.arange(0, gone_T[-1] + 1e-9, STEP_M)
    return np.stack([np.interp(at, gone_T, column) for column in path_T3.T], -1)
