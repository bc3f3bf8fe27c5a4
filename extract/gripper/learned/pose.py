"""From what the network says of a crop to where the gripper is in the camera.

Its keypoints in space are the gripper's: the rotation is the one that brings them closest together (Kabsch, 1976).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from extract.gripper.learned.gaze import Gaze, Picture, gaze_at
from extract.gripper.learned.model import LearnedGripperModel
from extract.models import exact_inference

LAPLACE = 2**0.5  # standard deviation of Laplace's distribution over its mean absolute error
BATCH = 64


@dataclass(frozen=True)
class Look:
    """What one look at a gripper tells. score: 0..1, it is there. pose_44: camera_from_effector, metres.

    anchor_3: metres, camera frame, where to look next. opening: metres. sigma_2: metres, what the network expects to be
    wrong by across and along the ray. aside: crop widths, further: logarithm, from where was looked to the anchor.
    """

    score: float
    pose_44: np.ndarray
    anchor_3: np.ndarray
    opening: float
    sigma_2: np.ndarray
    aside: float
    further: float


def looks(
    model: LearnedGripperModel, picture: Picture, places: Sequence[np.ndarray], rolls: Sequence[float]
) -> list[Look]:
    """A look at every place (f64 [3] metres, camera frame, in front of it), rolled about the ray by so many radians."""
    gazes = [gaze_at(place, float(model.width), roll) for place, roll in zip(places, rolls, strict=True)]
    found: list[Look] = []
    for start in range(0, len(gazes), BATCH):
        found += _looked(model, picture, gazes[start : start + BATCH])
    return found


def _looked(model: LearnedGripperModel, picture: Picture, gazes: Sequence[Gaze]) -> list[Look]:
    from extract.gripper.learned.teach import as_input

    with exact_inference():
        seen = model.network(as_input(picture.crops(gazes)))
        there, opening = seen.present_B.sigmoid().numpy(), seen.opening_B.numpy()
        places, behind = seen.places_BK2.double().numpy(), seen.behind_BK.double().numpy()
        further, across, along = (v.double().numpy() for v in (seen.further_B, seen.across_B, seen.along_B))
    found = []
    for row, gaze in enumerate(gazes):
        depth = gaze.distance * np.exp(further[row])
        points = gaze.placed(places[row], depth + gaze.width * behind[row])
        rotation = closest_rotation(model.keypoints_K3[1:], points[1:])
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = rotation, points[0] - rotation @ model.grasp_3
        found.append(
            Look(
                score=float(there[row]),
                pose_44=pose,
                anchor_3=points[1:].mean(0),
                opening=float(np.clip(opening[row], 0, None) * model.opening),
                sigma_2=LAPLACE
                * depth
                * np.array([np.exp(across[row]) * gaze.width / gaze.distance, np.exp(along[row])]),
                aside=float(np.linalg.norm(places[row, 1:].mean(0))),
                further=float(further[row]),
            )
        )
    return found


def closest_rotation(from_K3: np.ndarray, to_K3: np.ndarray) -> np.ndarray:
    """f64 [3,3]: turns the one set of points, centred, onto the other with the least squared distance."""
    return nearest_rotation((to_K3 - to_K3.mean(0)).T @ (from_K3 - from_K3.mean(0)))


def nearest_rotation(matrix_33: np.ndarray) -> np.ndarray:
    """f64 [3,3]: the rotation that a matrix is nearest to."""
    u, _, vt = np.linalg.svd(matrix_33)
    return u @ np.diag([1, 1, np.sign(np.linalg.det(u @ vt))]) @ vt


def together(found: Sequence[Look]) -> Look:
    """The mean of several looks at one gripper. Raises ValueError for none."""
    if not found:
        raise ValueError("no looks")
    pose = np.eye(4)
    pose[:3, :3] = nearest_rotation(np.mean([look.pose_44[:3, :3] for look in found], axis=0))
    pose[:3, 3] = np.mean([look.pose_44[:3, 3] for look in found], axis=0)
    return Look(
        score=float(np.mean([look.score for look in found])),
        pose_44=pose,
        anchor_3=np.mean([look.anchor_3 for look in found], axis=0),
        opening=float(np.mean([look.opening for look in found])),
        sigma_2=np.mean([look.sigma_2 for look in found], axis=0),
        aside=float(np.max([look.aside for look in found])),
        further=float(max((look.further for look in found), key=abs)),
    )
