"""How a template may bend: smooth in every direction at first, then only in the ways that one episode has shown."""

from __future__ import annotations

import numpy as np

from data.geometry import rigid_fit, transform

BEND_M = 0.02  # one sigma of a free bend
REACH_M = 0.05  # and how far along the surface it stays alike: about a finger's length
FREE_MODES = 40
LEARNT_MODES = 2
SMALLEST_PITCHES = 2.5  # learnt motions that move the tenth most moved point by less are noise of the registration


def free_modes(distance_MM: np.ndarray) -> np.ndarray:
    """f64 [M,k]: a Gaussian process over the surface as its strongest modes; a unit normal weight per axis each."""
    covariance = BEND_M**2 * np.exp(-0.5 * (distance_MM / REACH_M) ** 2)
    # Distances along a surface do not always give a positive covariance; its negative modes are dropped here.
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1][:FREE_MODES], vectors[:, ::-1][:, :FREE_MODES]
    useful = values > 1e-6 * values[0]
    return vectors[:, useful] * np.sqrt(values[useful])


def learnt_modes(bends_TM3: np.ndarray, pitch_m: float) -> np.ndarray:
    """f64 [3M,k], k <= 2: the main ways in which the template bent, scaled to one sigma; none when it stayed rigid.

    Registration noise bends the template a little in every frame, along with every small change of view. A jaw or a
    finger that really moved moved by several pixels, and in one way: such principal components are kept, the rest is
    not. ``bends_TM3`` must be free of rigid motion (``split_rigid``).
    """
    flat_TD = bends_TM3.reshape(len(bends_TM3), -1)
    weights_TK, values_K, modes_KD = np.linalg.svd(flat_TD, full_matrices=False)
    largest_K = np.abs(weights_TK * values_K).max(0)
    typical_K = np.quantile(np.linalg.norm(modes_KD.reshape(len(modes_KD), -1, 3), axis=2), 0.9, axis=1)
    kept = np.flatnonzero((largest_K * typical_K)[:LEARNT_MODES] > SMALLEST_PITCHES * pitch_m)
    return modes_KD[kept].T * (values_K[kept] / np.sqrt(len(flat_TD)))


def split_rigid(template_M3: np.ndarray, rigid: np.ndarray, bend_M3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same placement with all rigid motion moved from the bend into the rigid part: (rigid [4,4], bend [M,3])."""
    straighten = rigid_fit(template_M3 + bend_M3, template_M3)
    return rigid @ np.linalg.inv(straighten), transform(straighten, template_M3 + bend_M3) - template_M3


def fit_free(modes_MK: np.ndarray, wanted_M3: np.ndarray, precision_M: np.ndarray) -> np.ndarray:
    """Most probable free bend [M,3] given wanted displacements with a precision (1 / metres^2) each."""
    normal = (modes_MK * precision_M[:, None]).T @ modes_MK + np.eye(modes_MK.shape[1])
    return modes_MK @ np.linalg.solve(normal, modes_MK.T @ (precision_M[:, None] * wanted_M3))


def fit_learnt(modes_DK: np.ndarray, wanted_M3: np.ndarray, precision_M: np.ndarray) -> np.ndarray:
    """Most probable bend [M,3] within the learnt modes."""
    if modes_DK.shape[1] == 0:
        return np.zeros_like(wanted_M3)
    precision_D = np.repeat(precision_M, 3)
    normal = (modes_DK * precision_D[:, None]).T @ modes_DK + np.eye(modes_DK.shape[1])
    return (modes_DK @ np.linalg.solve(normal, modes_DK.T @ (precision_D * wanted_M3.ravel()))).reshape(-1, 3)
