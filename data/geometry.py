"""Rigid transforms, named ``a_from_b``: a point in frame b, multiplied by a_from_b, is that point in frame a."""

from __future__ import annotations

import numpy as np


def invert_rigid(a_from_b: np.ndarray) -> np.ndarray:
    """[..., 4, 4] rigid -> its inverse b_from_a."""
    rotation = np.swapaxes(a_from_b[..., :3, :3], -1, -2)
    inverse = np.zeros_like(a_from_b)
    inverse[..., :3, :3] = rotation
    inverse[..., :3, 3] = -(rotation @ a_from_b[..., :3, 3:])[..., 0]
    inverse[..., 3, 3] = 1
    return inverse


def transform(a_from_b: np.ndarray, points_b: np.ndarray) -> np.ndarray:
    """[..., 4, 4] and [..., N, 3] metres -> [..., N, 3] in frame a."""
    return points_b @ np.swapaxes(a_from_b[..., :3, :3], -1, -2) + a_from_b[..., None, :3, 3]


def rigid_fit(source_N3: np.ndarray, target_N3: np.ndarray, weights_N: np.ndarray | None = None) -> np.ndarray:
    """The rigid target_from_source [4,4] that minimises sum_n w_n |R s_n + t - q_n|^2 (Kabsch, 1976)."""
    weights = np.ones(len(source_N3)) if weights_N is None else weights_N
    weights = (weights / weights.sum())[:, None]
    source_mean, target_mean = (weights * source_N3).sum(0), (weights * target_N3).sum(0)
    covariance = ((source_N3 - source_mean) * weights).T @ (target_N3 - target_mean)
    u, _, vt = np.linalg.svd(covariance)
    flip = np.diag([1, 1, np.sign(np.linalg.det(vt.T @ u.T))])
    fit = np.eye(4)
    fit[:3, :3] = vt.T @ flip @ u.T
    fit[:3, 3] = target_mean - fit[:3, :3] @ source_mean
    return fit
