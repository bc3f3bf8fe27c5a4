"""Points of one effector move as solid parts do: each point's motion is a rigid one that its neighbours share.

A shape [N,3] (the points in the query frame) and noisy, partly missing measurements of it in T frames. In each frame,
every point gets the rigid motion that best takes its neighbours' shape to their measurement (weighted Kabsch fits, the
local step of as-rigid-as-possible deformation, Sorkine and Alexa, 2007). Neighbours are weighted by how near they are
in the shape, how well they are measured, and whether they keep their distance over time: two jaws that open are two
parts though they are close. Robust weights keep single wrong tracks out.
"""

from __future__ import annotations

import numpy as np

REACH = 0.6  # of the shape's size: how far a point's neighbourhood goes
EVERYWHERE = 0.02  # weight of far points, so that thin parts know how they are turned
ROUNDS = 3


def local_motions(
    shape_N3: np.ndarray, measured_N3: np.ndarray, weight_N: np.ndarray, affinity_NN: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rotations [N,3,3] and translations [N,3] that minimise, for each point n, over its neighbours m,

    sum_m affinity_nm weight_m |R_n shape_m + t_n - measured_m|^2.
    """
    weights_NN = affinity_NN * weight_N
    weights_NN = weights_NN / weights_NN.sum(1, keepdims=True)
    middle_N3, goal_N3 = weights_NN @ shape_N3, weights_NN @ measured_N3
    products_N9 = weights_NN @ (shape_N3[:, :, None] * measured_N3[:, None]).reshape(len(shape_N3), 9)
    covariance_N33 = products_N9.reshape(-1, 3, 3) - middle_N3[:, :, None] * goal_N3[:, None]
    u, _, vt = np.linalg.svd(covariance_N33)
    flip = np.ones((len(u), 3))
    flip[:, 2] = np.sign(np.linalg.det(u) * np.linalg.det(vt))
    rotation_N33 = np.einsum("nji,nj,nkj->nik", vt, flip, u)
    return rotation_N33, goal_N3 - np.einsum("nij,nj->ni", rotation_N33, middle_N3)


def placed(
    shape_N3: np.ndarray, measured_N3: np.ndarray, weight_N: np.ndarray, affinity_NN: np.ndarray, sigma_N: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the shape's points are in one frame: [N,3], with their motions (rotations [N,3,3], translations [N,3]).

    weight_N: 0 for points that were not measured. sigma_N: metres, what a measurement is off by; outliers are those
    far beyond (Cauchy weights).
    """
    known_N3, weights_N = np.nan_to_num(measured_N3), weight_N.copy()
    for _ in range(ROUNDS):
        rotation_N33, shift_N3 = local_motions(shape_N3, known_N3, weights_N, affinity_NN)
        points_N3 = np.einsum("nij,nj->ni", rotation_N33, shape_N3) + shift_N3
        off_N = np.linalg.norm(points_N3 - known_N3, axis=1)
        weights_N = weight_N / (1 + (off_N / (2.5 * sigma_N)) ** 2)
    return points_N3, rotation_N33, shift_N3


def affinity(shape_N3: np.ndarray, measured_TN3: np.ndarray, weight_TN: np.ndarray, sigma_m: float) -> np.ndarray:
    """f64 [N,N]: how much two points share their motion: near in the shape and at a constant distance over time.

    measured_TN3: metres; weight_TN: 0 where not measured. sigma_m: typical error of a measurement.
    """
    apart_NN = np.linalg.norm(shape_N3[:, None] - shape_N3[None], axis=-1)
    reach = REACH * np.sqrt(((shape_N3 - shape_N3.mean(0)) ** 2).sum(1).mean()) * 2
    total_NN, stretch_NN = np.zeros_like(apart_NN), np.zeros_like(apart_NN)
    for measured_N3, weight_N in zip(np.nan_to_num(measured_TN3), weight_TN, strict=True):
        both_NN = weight_N[:, None] * weight_N
        now_NN = np.linalg.norm(measured_N3[:, None] - measured_N3[None], axis=-1)
        total_NN += both_NN
        # Cut, so that one wrong track in one frame does not part two points for good.
        stretch_NN += both_NN * np.minimum((now_NN - apart_NN) ** 2, (10 * sigma_m) ** 2)
    stretch_NN /= np.maximum(total_NN, 1e-9)
    near_NN = np.exp(-0.5 * (apart_NN / reach) ** 2)
    # Two independent errors stretch a distance by sqrt(2) sigma.
    together_NN = np.exp(-0.5 * np.maximum(stretch_NN / (2 * sigma_m**2) - 1, 0))
    return (near_NN + EVERYWHERE) * together_NN + 1e-6
