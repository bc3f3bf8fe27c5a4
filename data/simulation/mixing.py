"""A robot whose translation commands are mixed: what its action axes mean must be learned from labels."""

from __future__ import annotations

import functools

import numpy as np
from scipy.spatial.transform import Rotation

SINGULAR_VALUES = (0.6, 1.4)


@functools.cache
def mixing_matrix(seed: int) -> np.ndarray:
    """The matrix M f64 [3,3] of ``seed``: executed translation = M @ action; read-only.

    Two random rotations around singular values between 0.6 and 1.4, so that M is well conditioned.
    """
    rng = np.random.default_rng([seed, 0x31C5])
    left, right = Rotation.random(2, rng).as_matrix()
    matrix = left @ np.diag(rng.uniform(*SINGULAR_VALUES, 3)) @ right
    matrix.setflags(write=False)
    return matrix


def mixed(actions_A4: np.ndarray, seed: int | None) -> np.ndarray:
    """The commands f32 [...,4] that a robot mixed with ``seed`` executes for these actions; None = the same."""
    return _through(actions_A4, None if seed is None else mixing_matrix(seed))


def unmixed(commands_A4: np.ndarray, seed: int | None) -> np.ndarray:
    """The actions f32 [...,4] that a robot mixed with ``seed`` needs to execute these commands; None = the same."""
    return _through(commands_A4, None if seed is None else np.linalg.inv(mixing_matrix(seed)))


def _through(values_A4: np.ndarray, matrix_33: np.ndarray | None) -> np.ndarray:
    values = np.array(values_A4, np.float32)
    if matrix_33 is not None:  # the gripper's command, the fourth, is never mixed
        values[..., :3] = values[..., :3] @ matrix_33.T
    return values
