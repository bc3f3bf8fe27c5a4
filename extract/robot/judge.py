"""How sure a solved camera is: its tracks in all frames, their spread by the adjustment's covariance, or a refusal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from extract.effector import Camera
from extract.robot.bundle import Priors, Rig, Sights, adjust, normal_equations
from extract.robot.choose import agreeing
from extract.robot.config import ProprioSettings
from extract.robot.episodes import Episode, Track
from extract.robot.renew import followed_again

SIGMA_SCALE = 1.7  # errors of tracks are not independent: what the adjustment's covariance is too small by


@dataclass(frozen=True)
class Ridden:
    """The tracks of one episode that ride on the effector (K). template_K: int, frame whose patch was followed.

    pixels_TK2: f64, NaN where not seen. agrees_TK: bool, seen where the rigid motion wants it. offsets_K3: metres, in
    the effector's frame. sigma_TK2: f64 metres, across and along the ray.
    """

    poses: np.ndarray
    template_K: np.ndarray
    pixels_TK2: np.ndarray
    agrees_TK: np.ndarray
    offsets_K3: np.ndarray
    sigma_TK2: np.ndarray


@dataclass(frozen=True)
class Solved:
    """reason: None, or why this is not to be trusted, with ``detail``. quality: named figures."""

    camera: Camera | None = None
    camera_from_base: np.ndarray | None = None
    episodes: list[Ridden] = field(default_factory=list)
    score: float = 0.0
    quality: dict[str, float] = field(default_factory=dict)
    reason: str | None = None
    detail: str = ""


def no_rigid_tracks(riding_K: np.ndarray, settings: ProprioSettings) -> Solved:
    """Refused: too few tracks ride. riding_K: bool."""
    detail = f"{int(riding_K.sum())} image tracks ride on the effector; at least {settings.min_tracks} are needed"
    return Solved(reason="no_rigid_tracks", detail=detail)


def judge(
    tracks: Sequence[Track],
    episodes: Sequence[Episode],
    sights: Sights,
    rig: Rig,
    priors: Priors,
    camera: Camera,
    settings: ProprioSettings,
) -> Solved:
    """The result of an adjustment (``rig``, with the offsets of ``tracks``), adjusted once more without what disagrees.

    sights: of the tracks. priors.noise: original pixels. Refused where too few tracks ride, and where their motion
    tells the distance worse than ``settings.max_sigma``.
    """
    riding, _ = agreeing(sights, rig, priors)
    if riding.sum() < settings.min_tracks:
        return no_rigid_tracks(riding, settings)
    chosen = sights.of_tracks(riding)
    rig, _ = adjust(chosen, replace(rig, offsets_K3=rig.offsets_K3[riding]), priors)
    tracks = [track for track, kept in zip(tracks, riding, strict=True) if kept]
    if any(episode.stride > 1 for episode in episodes):
        scale = settings.tracks.work_side / max(camera.image_size)
        tracks = followed_again(tracks, episodes, rig, scale, np.array(camera.image_size) / 2, every=True)
    equations = normal_equations(chosen, rig, priors)
    try:
        covariance = equations.covariance()
    except np.linalg.LinAlgError:
        return Solved(reason="ill_conditioned", detail="the motion does not determine the camera")
    squared = (rig.weighed(chosen) ** 2).sum(1)
    agree = squared < (2 * priors.noise) ** 2
    ridden: list[Ridden] = []
    distances: list[np.ndarray] = []
    for number, episode in enumerate(episodes):
        own = np.array([k for k, track in enumerate(tracks) if track.episode == number], int)
        sigma = SIGMA_SCALE * _sigma(rig, episode.poses, own, covariance)
        pixels = np.stack([tracks[k].pixels_T2 for k in own], 1) if len(own) else np.zeros((len(episode.poses), 0, 2))
        points = rig.in_camera(episode.poses[:, None], rig.offsets_K3[None, own])
        wanted = rig.focal * points[..., :2] / points[..., 2:]
        with np.errstate(invalid="ignore"):
            near = np.linalg.norm(pixels - wanted, axis=-1) < 2 * priors.noise
        template = np.array([tracks[k].template for k in own], int)
        middle = np.array(camera.image_size) / 2
        ridden.append(Ridden(episode.poses, template, pixels + middle, near, rig.offsets_K3[own], sigma))
        distances.append(_middle_sigma(rig, episode.poses, covariance[0]))
    relative = SIGMA_SCALE * float(np.median(np.concatenate(distances)))
    quality = {
        "tracks": float(riding.sum()),
        "riding": float(riding.mean()),
        "agreeing": float(agree.mean()),
        "rms_px": float(np.sqrt(squared[agree].mean())),
        "relative_sigma": relative,
        "focal_sigma": SIGMA_SCALE * float(np.sqrt(covariance[0][0, 0])),
        "focal_px": rig.focal,
    }
    width, height = camera.image_size
    intrinsics = np.array([[rig.focal, 0, width / 2], [0, rig.focal, height / 2], [0, 0, 1.0]])
    found = Camera(intrinsics, camera.image_size, "given" if camera.origin == "given" else "estimated")
    score = float(agree.mean() * np.exp(-0.5 * (relative / settings.max_sigma) ** 2))
    solved = Solved(found, rig.camera_from_base, ridden, score, quality)
    if relative > settings.max_sigma:
        detail = f"distance is known to {100 * relative:.1f} % only; {100 * settings.max_sigma:.1f} % are needed"
        return replace(solved, reason="ill_conditioned", detail=detail + ": more, or less planar, motion helps")
    return solved


def _middle_sigma(rig: Rig, poses: np.ndarray, shared: np.ndarray) -> np.ndarray:
    """f64 [T]: one sigma of the distance of the points' middle, as a share of the distance."""
    turn = rig.camera_from_base[:3, :3]
    turned = (poses[:, :3, :3] @ rig.middle_3 + poses[:, :3, 3]) @ turn.T
    distance = turned[:, 2] + rig.camera_from_base[2, 3]
    jacobian = np.zeros((len(poses), len(shared)))
    jacobian[:, 1], jacobian[:, 2] = turned[:, 1], -turned[:, 0]  # z of w x y
    jacobian[:, 6] = 1
    jacobian[:, 7:] = turn[2] @ poses[:, :3, :3]
    return np.sqrt(np.einsum("ti,ij,tj->t", jacobian, shared, jacobian)) / distance


def _sigma(
    rig: Rig, poses: np.ndarray, own: np.ndarray, covariance: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> np.ndarray:
    """f64 [T,K,2] metres: one sigma of the points across and along the ray, from the adjustment's covariance."""
    shared, cross, points = covariance
    turn = rig.camera_from_base[:3, :3]
    offsets = rig.offsets_K3[own]
    base = np.einsum("tij,kj->tki", poses[:, :3, :3], offsets) + poses[:, None, :3, 3]
    turned = base @ turn.T
    camera = turned + rig.camera_from_base[:3, 3]
    jacobian = np.zeros((*camera.shape, 13))
    jacobian[..., 1:4] = -np.stack([np.cross(turned, axis) for axis in np.eye(3)], -1)
    jacobian[..., 4:7] = np.eye(3)
    jacobian[..., 10:] = (turn @ poses[:, :3, :3])[:, None]
    joint = np.zeros((len(own), 13, 13))
    joint[:, :10, :10] = shared
    joint[:, :10, 10:] = cross[own]
    joint[:, 10:, :10] = cross[own].transpose(0, 2, 1)
    joint[:, 10:, 10:] = points[own]
    spread = jacobian @ joint @ np.swapaxes(jacobian, -1, -2)
    ray = camera / np.linalg.norm(camera, axis=-1, keepdims=True)
    along = np.einsum("tki,tkij,tkj->tk", ray, spread, ray)
    across = (np.einsum("tkii->tk", spread) - along) / 2
    return np.sqrt(np.maximum(np.stack([across, along], -1), 0))
