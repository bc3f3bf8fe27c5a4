"""A gripper network from labelled episodes in colour: their frames become lessons, and what rides becomes the cloud."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from data.index import Episode
from data.reader import EpisodeReader
from data.video import Unreadable
from extract.effector import Camera
from extract.gripper.config import GripperConfig
from extract.gripper.labelled import usable_episodes
from extract.gripper.learned.body import Body, body_of, riders
from extract.gripper.learned.gaze import Picture, gaze_at
from extract.gripper.learned.labels import ASSUMED_FOV_DEG, Labelled, labelled
from extract.gripper.learned.lessons import Book, Shown, crop_of_mask
from extract.gripper.learned.model import LearnedGripperModel, network_path
from extract.gripper.learned.settings import LearnedSettings
from extract.gripper.learned.teach import taught
from extract.passage import camera_of
from extract.robot.background import background, stands_out
from pipeline.errors import UserError

NEEDED = ("base_from_effector", "opening")
FIELD = "extract.gripper.detect: learned"
ARM = 0.25  # of the crop's width: how far keypoints are from the anchor
LEAST_FRAMES = 20
WHOLE = 0.6  # of what usually stands out of a crop: less is a part of the gripper
RIDDEN = 24  # episodes, at most, that points of the cloud are taken from
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
    total = sum(min(episode.span[1] - episode.span[0], settings.camera.max_frames) for episode in usable)
    stride = max(1, -(-total // settings.frames))
    pages, found = [], []
    for number, shot in enumerate(labelled(usable, settings)):  # one at a time: pictures are large
        pages.append(_page(shot, stride, settings.width_m))
        if number < RIDDEN:
            found += riders(shot, settings.reach_m, settings.camera.tracks)
    frames = sum(len(page.images) for page in pages)
    if frames < LEAST_FRAMES:
        raise UserError(
            f"{FIELD}: {frames} frames of {len(usable)} labelled episodes show where the gripper is in the camera, at "
            f"least {LEAST_FRAMES} are needed; add world_from_camera, or episodes of one static camera that move more"
        )
    opening = max(float(page.opening_T.max()) for page in pages)
    if opening <= 0:
        raise UserError(f"{FIELD}: opening: is 0 in all labelled episodes; it is the space between the jaws, metres")
    body = body_of(found)
    anchor = body.at(opening / 2).mean(0) if len(body.points_M3) else np.zeros(3)
    arm = ARM * settings.width_m * np.concatenate([np.eye(3), -np.eye(3)])
    keypoints = np.concatenate([np.array([settings.grasp_m]), anchor + arm])
    if not len(body.points_M3):
        body = Body(keypoints, np.zeros_like(keypoints))
    distances = np.concatenate([np.linalg.norm(_moved(page.poses_T44, anchor), axis=1) for page in pages])
    range_2 = (float(distances.min()), float(distances.max()))
    scenes = [page.scene for page in pages] + _scenes(episodes, float(np.median(distances)), settings)
    book = Book(_shown(pages, anchor, settings.width_m), scenes, keypoints, anchor, opening, settings.width_m, range_2)
    network = taught(book, settings, seed, told)
    return LearnedGripperModel.of(network, book, body)


@dataclass(frozen=True)
class Page:
    """What lessons need of T frames of an episode. images: u8 [h,w,3], about as fine as crops are. masks_T: bool [h,w].

    scene: without the gripper. poses_T44, opening_T: as in ``Labelled``.
    """

    images: list[np.ndarray]
    masks_T: list[np.ndarray]
    scene: Picture
    poses_T44: np.ndarray
    opening_T: np.ndarray


def _page(shot: Labelled, stride: int, width: float) -> Page:
    """Of every so many frames of a shot; the background is that of all."""
    middle = np.median(shot.poses_T44[:, :3, 3], axis=0)
    small = [_small(image, shot.camera, middle, width) for image in shot.images]
    empty = background(small)
    kept = small[stride // 2 :: stride]
    masks = [stands_out(image, empty) for image in kept]
    scene = Picture(empty, shot.camera)
    return Page(kept, masks, scene, shot.poses_T44[stride // 2 :: stride], shot.opening_T[stride // 2 :: stride])


def _small(image: np.ndarray, camera: Camera, place_3: np.ndarray, width: float) -> np.ndarray:
    picture = Picture(image, camera)
    return picture.halved(picture.level(gaze_at(place_3, width)))


def _shown(pages: Sequence[Page], anchor_3: np.ndarray, width: float) -> list[Shown]:
    """All frames; those in which far less stands out than usual without a mask: it would cut the gripper apart."""
    shares = [
        float(crop_of_mask(mask, Picture(image, page.scene.camera), gaze_at(place, width)).mean())
        for page in pages
        for image, mask, place in zip(page.images, page.masks_T, _moved(page.poses_T44, anchor_3), strict=True)
    ]
    least, share = WHOLE * float(np.median(shares)), iter(shares)
    return [
        Shown(Picture(image, page.scene.camera), mask if next(share) >= least else None, pose, float(opening))
        for page in pages
        for image, mask, pose, opening in zip(page.images, page.masks_T, page.poses_T44, page.opening_T, strict=True)
    ]


def _moved(poses_T44: np.ndarray, point_3: np.ndarray) -> np.ndarray:
    """f64 [T,3] metres, camera frame."""
    return poses_T44[:, :3, :3] @ point_3 + poses_T44[:, :3, 3]


def _scenes(episodes: Sequence[Episode], distance: float, settings: LearnedSettings) -> list[Picture]:
    """Backgrounds of unlabelled videos, evenly chosen among them. distance: metres, at which things are shown fully."""
    others = sorted((e for e in episodes if not e.sidecar.labelled), key=lambda episode: episode.episode_id)
    chosen = np.unique(np.linspace(0, len(others) - 1, min(len(others), settings.scenes)).round().astype(int))
    scenes = []
    for episode in (others[k] for k in chosen):
        with contextlib.suppress(Unreadable):  # extraction will say so
            scenes.append(_scene(episode, np.array([0, 0, distance]), settings.width_m))
    return scenes


def _scene(episode: Episode, place_3: np.ndarray, width: float) -> Picture:
    camera = camera_of(episode, ASSUMED_FOV_DEG)
    start, end = episode.span
    stride = max(1, (end - start) // SCENE_FRAMES)
    frames = islice(EpisodeReader(episode).frames(None), 0, stride * SCENE_FRAMES, stride)
    return Picture(background([_small(frame.image, camera, place_3, width) for frame in frames]), camera)


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
