"""Taking the drift out of a chain: every frame is compared with the query frame itself, and both are joined.

The chain says how far each point went between neighbouring frames, and is sharp about that; its small errors add up.
The comparison with the query frame does not drift, but is blurred by the change of view. The joint estimate of one
point minimises, over its positions x_t,

    sum_t |x_t+1 - x_t - step_t|^2 / LINK_PX^2  +  sum_t w_t |x_t - anchor_t|^2 / ANCHOR_PX^2

with x_query fixed and w_t = 1 / (1 + (|x_t - anchor_t| / (2 ANCHOR_PX))^2), by a few reweighted banded solutions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.linalg import solveh_banded

# Typical errors, as shares of the effector's size in the picture (square root of its pixels).
LINK, ANCHOR = 0.017, 0.035
CARRIED = 3.0  # a link that was carried, not measured, is that much worse
ROUNDS = 4
HELD = 1e6  # weight of the query frame against the others


def view_change(source_N2: np.ndarray, target_N2: np.ndarray, weight_N: np.ndarray) -> np.ndarray:
    """f64 [2,3]: the affine map that takes most source points to their targets (weighted, robust least squares)."""
    ones_N3 = np.concatenate([source_N2, np.ones((len(source_N2), 1))], 1)
    weights, affine_32 = weight_N.astype(np.float64), np.eye(3)[:, :2]
    for _ in range(6):
        normal = (ones_N3 * weights[:, None]).T @ ones_N3 + 1e-6 * np.eye(3)
        affine_32 = np.linalg.solve(normal, (ones_N3 * weights[:, None]).T @ target_N2)
        off_N = np.linalg.norm(ones_N3 @ affine_32 - target_N2, axis=1)
        usual = 1.5 * np.median(off_N[weight_N > 0]) + 1e-3
        weights = weight_N / (1 + (off_N / usual) ** 2)
    return affine_32.T


def joined(
    pixels_TN2: np.ndarray,
    measured_TN: np.ndarray,
    anchors_TN2: np.ndarray,
    seen: Sequence[int],
    query: int,
    size: float,
) -> np.ndarray:
    """f64 [T,N,2]: the chain ``pixels_TN2`` corrected by ``anchors_TN2`` (NaN: none) in the ``seen`` frames.

    measured_TN: bool, where the chain measured. size: of the effector, pixels.
    """
    chained_SN2, anchors_SN2 = pixels_TN2[seen], anchors_TN2[seen]
    measured_SN, frames = measured_TN[seen], len(seen)
    anchored_SN = np.asarray(np.isfinite(anchors_SN2).all(-1))
    goals_SN2 = np.where(anchored_SN[..., None], anchors_SN2, chained_SN2)
    step_LN2 = np.diff(chained_SN2, axis=0)
    both_LN = measured_SN[1:] & measured_SN[:-1]
    link_LN = np.where(both_LN, 1.0, CARRIED**-2) / (LINK * size) ** 2
    unweighted_SN = anchored_SN.astype(np.float64) / (ANCHOR * size) ** 2
    unweighted_SN[seen.index(query)] = HELD
    weight_SN, result_SN2 = unweighted_SN, chained_SN2.copy()
    for _ in range(ROUNDS):
        for point in range(pixels_TN2.shape[1]):
            w, k = weight_SN[:, point], link_LN[:, point]
            banded = np.zeros((2, frames))
            banded[1] = w + 1e-9
            banded[1, 1:] += k
            banded[1, :-1] += k
            banded[0, 1:] = -k
            right_S2 = w[:, None] * goals_SN2[:, point]
            right_S2[1:] += k[:, None] * step_LN2[:, point]
            right_S2[:-1] -= k[:, None] * step_LN2[:, point]
            result_SN2[:, point] = solveh_banded(banded, right_S2)
        off_SN = np.linalg.norm(result_SN2 - goals_SN2, axis=-1)
        weight_SN = unweighted_SN / (1 + (off_SN / (2 * ANCHOR * size)) ** 2)
        weight_SN[seen.index(query)] = HELD
    result_TN2 = pixels_TN2.copy()
    result_TN2[seen] = result_SN2
    return result_TN2
