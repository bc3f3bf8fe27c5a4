"""A gripper network from labelled episodes in colour: their frames become lessons, and what rides becomes the cloud."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from data.index import Episode
from data.reader import EpisodeReader
from data.video import Unreadable
from extract.gripper.config import GripperConfig
from extract.gripper.labelled import usable_episodes
from extract.gripper.learned.body import Body, body_of
from extract.gripper.learned.gaze import Picture, gaze_at
from extract.gripper.learned.labels import Labelled, labelled
from extract.gripper.learned.lessons import Book, Shown
from extract.gripper.learned.model import LearnedGripperModel, network_path
from extract.gripper.learned.settings import LearnedSettings
from extract.gripper.learned.teach import taught
from extract.robot.background import background, stands_out
from pipeline.errors import UserError

NEEDED = ("base_from_effector", "opening")
FIELD = "extract.gripper.detect: learned"
ARM = 0.25  # of the crop's width: how far keypoints are from the anchor
LEAST_FRAMES = 20
SCENE_FRAMES = 40  # of an unlabelled video that its background is made from


def build_network(
    episodes: Sequence[Episode],
    settings: LearnedSettings,
    seed: int,
    told: Callable[[int, float], None] = lambda step, loss: None,
) -> LearnedGripperModel:
    """Teaches a network with the labelled episodes; the others, if any, lend their backgrounds.

    told: is called after every step of training with its number and loss. Raises UserError naming what is missing.
    """
    usable = usable_episodes(episodes, settings.embodiment, NEEDED, FIELD, intrinsics=False)
    shots = list(labelled(usable, settings))
    frames = sum(len(shot.images) for shot in shots)
    if frames < LEAST_FRAMES:
        raise UserError(
            f"{FIELD}: {frames} frames of {len(usable)} labelled episodes show where the gripper is in the camera, at "
            f"least {LEAST_FRAMES} are needed; add world_from_camera, or episodes of one static camera that move more"
        )
    body = body_of(shots, settings.reach_m, settings.camera.tracks)
    opening = max(float(shot.opening_T.max()) for shot in shots)
    if opening <= 0:
        raise UserError(
            f"{FIELD}: opening: is 0 in all labelled episodes; it is the free space between the jaws, metres"
        )
    anchor = body.at(opening / 2).mean(0) if len(body.points_M3) else np.zeros(3)
    arm = ARM * settings.width_m * np.concatenate([np.eye(3), -np.eye(3)])
    keypoints = np.concatenate([np.array([settings.grasp_m]), anchor + arm])
    if not len(body.points_M3):
        body = Body(keypoints, np.zeros_like(keypoints))
    distances = np.concatenate([np.linalg.norm(_anchors(shot, anchor), axis=1) for shot in shots])
    range_2 = (float(distances.min()), float(distances.max()))
    shown, scenes = _shown(shots, anchor, settings)
    scenes += _scenes(episodes, scenes[0], range_2, settings)
    book = Book(shown, scenes, keypoints, anchor, opening, settings.width_m, range_2)
    network = taught(book, settings, seed, told)
    return LearnedGripperModel.of(network, book, body)


def _anchors(shot: Labelled, anchor_3: np.ndarray) -> np.ndarray:
    """f64 [T,3] metres, camera frame."""
    return shot.poses_T44[:, :3, :3] @ anchor_3 + shot.poses_T44[:, :3, 3]


def _shown(
    shots: Sequence[Labelled], anchor_3: np.ndarray, settings: LearnedSettings
) -> tuple[list[Shown], list[Picture]]:
    """The frames of lessons, and the backgrounds of their episodes, all about as fine as crops are."""
    stride = max(1, -(-sum(len(shot.images) for shot in shots) // settings.frames))
    shown: list[Shown] = []
    scenes: list[Picture] = []
    number = 0
    for shot in shots:
        middle = np.median(_anchors(shot, anchor_3), axis=0)
        small = [_small(image, shot, middle, settings.width_m) for image in shot.images]
        empty = background(small)
        scenes.append(Picture(empty, shot.camera))
        for image, pose, opening in zip(small, shot.poses_T44, shot.opening_T, strict=True):
            number += 1
            if number % stride == 0:
                picture = Picture(image, shot.camera)
                shown.append(Shown(picture, stands_out(image, empty), pose, float(opening), len(scenes) - 1))
    return shown, scenes


def _small(image: np.ndarray, shot: Labelled, place_3: np.ndarray, width: float) -> np.ndarray:
    picture = Picture(image, shot.camera)
    return picture.halved(picture.level(gaze_at(place_3, width)))


def _scenes(
    episodes: Sequence[Episode], alike: Picture, range_2: tuple[float, float], settings: LearnedSettings
) -> list[Picture]:
    """Backgrounds of unlabelled videos, evenly chosen among them."""
    others = sorted((e for e in episodes if not e.sidecar.labelled), key=lambda episode: episode.episode_id)
    chosen = np.unique(np.linspace(0, len(others) - 1, min(len(others), settings.scenes)).round().astype(int))
    scenes = []
    for episode in (others[k] for k in chosen):
        try:
            scenes.append(_scene(episode, float(np.mean(range_2)), settings.width_m))
        except Unreadable:  # extraction will say so
            continue
    return scenes


def _scene(episode: Episode, distance: float, width: float) -> Picture:
    from extract.passage import camera_of

    camera = camera_of(episode, 60.0)
    start, end = episode.span
    stride = max(1, (end - start) // SCENE_FRAMES)
    images = []
    for number, frame in enumerate(EpisodeReader(episode).frames(None)):
        if number % stride == 0:
            picture = Picture(frame.image, camera)
            images.append(picture.halved(picture.level(gaze_at(np.array([0, 0, distance]), width))))
        if len(images) >= SCENE_FRAMES:
            break
    return Picture(background(images), camera)


def prepare_network(
    episodes: Sequence[Episode],
    config: GripperConfig,
    folder: Path,
    seed: int,
    told: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """Teaches the network that ``config`` needs into the stage's folder, unless it is there; more episodes leave it.

    Raises UserError as ``build_network`` does.
    """
    settings = config.detect
    if isinstance(settings, LearnedSettings) and not network_path(settings, folder).exists():
        if settings.model is not None:
            raise UserError(f"{FIELD}: model: {settings.model} does not exist; leave it out to have one taught")
        build_network(episodes, settings, seed, told).save(network_path(settings, folder))
