"""A steady path from single looks: a filter while a policy runs, a smoother for whole stretches.

Position: constant velocity with random acceleration, measured well across the ray and badly along it (Kalman, 1960;
Rauch, Tung and Striebel, 1965). Rotation: looks fade with the time that has passed since.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from extract.gripper.learned.pose import nearest_rotation

ACCELERATION = 8.0  # metres / s^2, one sigma
SPEED = 0.5  # metres / s, one sigma before anything is known
TURN_S, OPEN_S = 0.1, 0.03  # after so long, a look at rotation or opening counts 1/e


@dataclass(frozen=True)
class Belief:
    """Position and velocity: mean_6, covariance_66 (metres, metres / s, camera frame)."""

    mean_6: np.ndarray
    covariance_66: np.ndarray


def first_belief(position_3: np.ndarray, noise_33: np.ndarray) -> Belief:
    """After the first look."""
    covariance = np.zeros((6, 6))
    covariance[:3, :3], covariance[3:, 3:] = noise_33, SPEED**2 * np.eye(3)
    return Belief(np.concatenate([position_3, np.zeros(3)]), covariance)


def expected(belief: Belief, elapsed_s: float) -> Belief:
    """What is believed so much later without another look."""
    step = transition(elapsed_s)
    gain = np.concatenate([elapsed_s**2 / 2 * np.eye(3), elapsed_s * np.eye(3)])
    spread = step @ belief.covariance_66 @ step.T + ACCELERATION**2 * gain @ gain.T
    return Belief(step @ belief.mean_6, spread)


def updated(belief: Belief, position_3: np.ndarray, noise_33: np.ndarray) -> Belief:
    """With a look that has told the position; noise_33: its covariance."""
    gain = belief.covariance_66[:, :3] @ np.linalg.inv(belief.covariance_66[:3, :3] + noise_33)
    mean = belief.mean_6 + gain @ (position_3 - belief.mean_6[:3])
    kept = np.eye(6)
    kept[:, :3] -= gain
    covariance = kept @ belief.covariance_66 @ kept.T + gain @ noise_33 @ gain.T
    return Belief(mean, covariance)


def transition(elapsed_s: float) -> np.ndarray:
    """f64 [6,6]."""
    step = np.eye(6)
    step[:3, 3:] = elapsed_s * np.eye(3)
    return step


def ray_noise(position_3: np.ndarray, sigma_2: np.ndarray) -> np.ndarray:
    """f64 [3,3]: covariance of a position with these sigmas across and along its ray."""
    ray = position_3 / np.linalg.norm(position_3)
    along = np.outer(ray, ray)
    return sigma_2[0] ** 2 * (np.eye(3) - along) + sigma_2[1] ** 2 * along


def smoothed_positions(times_T: np.ndarray, positions_T3: np.ndarray, noise_T33: np.ndarray) -> np.ndarray:
    """f64 [T,3]: with earlier and later looks. times_T: seconds, ascending."""
    beliefs = [first_belief(positions_T3[0], noise_T33[0])]
    ahead = [beliefs[0]]
    for t in range(1, len(times_T)):
        ahead.append(expected(beliefs[-1], times_T[t] - times_T[t - 1]))
        beliefs.append(updated(ahead[-1], positions_T3[t], noise_T33[t]))
    means = [beliefs[-1].mean_6]
    for t in range(len(times_T) - 2, -1, -1):
        step = transition(times_T[t + 1] - times_T[t])
        gain = beliefs[t].covariance_66 @ step.T @ np.linalg.inv(ahead[t + 1].covariance_66)
        means.append(beliefs[t].mean_6 + gain @ (means[-1] - ahead[t + 1].mean_6))
    return np.stack(means[::-1])[:, :3]


def smoothed_rotations(times_T: np.ndarray, rotations_T33: np.ndarray) -> np.ndarray:
    """f64 [T,3,3]: means of the neighbours, which fade with the time between."""
    weights = np.exp(-np.abs(times_T[:, None] - times_T) / TURN_S)
    return np.stack([nearest_rotation(mean) for mean in np.einsum("ts,sij->tij", weights, rotations_T33)])


def smoothed_openings(times_T: np.ndarray, opening_T: np.ndarray) -> np.ndarray:
    """f64 [T] metres: likewise."""
    weights = np.exp(-np.abs(times_T[:, None] - times_T) / OPEN_S)
    return weights @ opening_T / weights.sum(1)


def turned_towards(before_33: np.ndarray, now_33: np.ndarray, elapsed_s: float) -> np.ndarray:
    """f64 [3,3]: between the rotation that was believed and the one that is seen now."""
    kept = float(np.exp(-elapsed_s / TURN_S))
    return nearest_rotation(kept * before_33 + (1 - kept) * now_33)
