"""A gripper model from episodes with depth, recorded effector poses and recorded opening."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.episode import Frame
from data.index import Episode
from data.reader import EpisodeReader
from data.video import Unreadable
from extract.effector import Camera
from extract.gripper.config import GripperConfig
from extract.gripper.labelled import usable_episodes
from extract.gripper.registered.jaws import jaw_axes, jaw_surfaces, refined_axis, without
from extract.gripper.registered.model import JAW_DOWN, JAW_UP, PALM, GripperModel
from extract.gripper.registered.settings import RegisteredSettings
from extract.gripper.registered.surface import Surface, View, fixed_surface
from pipeline.errors import UserError

NEEDED = ("depth", "base_from_effector", "world_from_camera", "opening")
FIELD = "extract.gripper.detect: registered"
CHECK = (
    "check that base_from_effector, world_from_camera, opening and depth fit each other (world_from_camera must be in "
    "the robot's base frame, all metres), or raise reach_m"
)
STEPS_M = 0.005  # least standard deviation of the opening: jaws that never move cannot be told from the palm
PALM_MARGIN_M = 0.006
LEAST_POINTS = 30  # of palm and of either jaw
TIP_M = 0.012  # of a jaw that touches things
BETWEEN_M = 0.02  # a recorded pose so near to the tips has its origin at the tool centre point
AXIS_ROUNDS = 4
ROTATION_DEG = 5.0  # rotations that differ less are one
FACE_QUANTILE = 0.03


def build_model(episodes: Sequence[Episode], settings: RegisteredSettings) -> GripperModel:
    """The model from every labelled episode that has what it needs; poses are taken in the cameras' world frame.

    Raises UserError naming what is missing.
    """
    usable = usable_episodes(episodes, settings.embodiment, NEEDED, FIELD)
    views = _views(usable, settings)
    opening_T = np.array([view.opening for view in views] or [0.0])
    if opening_T.std() < STEPS_M:
        raise UserError(
            f"{FIELD}: opening: changes by only {1000 * opening_T.std():.1f} mm (standard deviation) in the labelled "
            f"episodes, {1000 * STEPS_M:g} mm are needed to tell jaws from palm; add episodes that open and close"
        )
    palm = fixed_surface(views, np.zeros((len(views), 3)))
    _enough(palm, "palm")
    moving = [without(view, palm, PALM_MARGIN_M) for view in views]
    none = np.zeros(len(moving))
    tried = [(axis, *jaw_surfaces(moving, axis, none)) for axis in jaw_axes(moving)]
    if not tried:
        raise UserError(f"{FIELD}: the jaws are hardly to be seen in the labelled episodes; {CHECK}")
    # Along a wrong axis, less of both jaws stays together.
    axis, up, down, centre_T = max(tried, key=lambda found: min(len(found[1].points_M3), len(found[2].points_M3)))
    for _ in range(AXIS_ROUNDS):
        _enough(up, "one jaw")
        _enough(down, "the other jaw")
        axis = refined_axis(moving, up, down, centre_T, axis)
        up, down, centre_T = jaw_surfaces(moving, axis, centre_T)
    _enough(up, "one jaw")
    _enough(down, "the other jaw")
    return _assembled(palm, up, down, axis, centre_T, views)


def _views(episodes: Sequence[Episode], settings: RegisteredSettings) -> list[View]:
    total = sum(episode.span[1] - episode.span[0] for episode in episodes)
    stride = max(1, -(-total // settings.model_frames))
    views: list[View] = []
    number = 0
    for episode in episodes:
        reader, before = EpisodeReader(episode), len(views)
        camera = Camera(np.asarray(episode.sidecar.intrinsics), (episode.width, episode.height), "given")
        try:
            for frame in reader.frames(None):
                number += 1
                if number % stride == 0 and (view := _labelled(frame, reader, camera, settings.reach_m)) is not None:
                    views.append(view)
        except (Unreadable, np.linalg.LinAlgError):  # used whole or not at all; extraction will say so
            del views[before:]
    return views


def _labelled(frame: Frame, reader: EpisodeReader, camera: Camera, reach_m: float) -> View | None:
    """A frame of a labelled episode; None where its pose or opening is not known."""
    at = np.array([frame.index])
    world_from_camera, opening = reader.per_frame("world_from_camera", at), reader.per_frame("opening", at)
    assert frame.depth is not None and frame.base_from_effector is not None
    assert world_from_camera is not None and opening is not None
    pose = np.linalg.inv(world_from_camera[0].astype(np.float64)) @ frame.base_from_effector
    if not (np.isfinite(pose).all() and np.isfinite(opening[0])):
        return None
    return _view(frame.image, frame.depth, camera, pose, float(opening[0]), reach_m)


def _view(
    image: np.ndarray, depth: np.ndarray, camera: Camera, pose_44: np.ndarray, opening: float, reach_m: float
) -> View:
    """What of a frame is within reach of the effector."""
    rows, columns = np.nonzero(depth > 0)
    cloud = camera.unproject(np.stack([columns, rows], -1) + 0.5, depth[rows, columns].astype(np.float64))
    cloud = (cloud - pose_44[:3, 3]) @ pose_44[:3, :3]
    near = (cloud**2).sum(1) < reach_m**2
    return View(cloud[near], image[rows[near], columns[near]], depth, camera, pose_44, opening)


def _enough(surface: Surface, name: str) -> None:
    if len(surface.points_M3) < LEAST_POINTS:
        raise UserError(
            f"{FIELD}: {name} has {len(surface.points_M3)} surface points that stay together in the labelled "
            f"episodes, at least {LEAST_POINTS} are needed; add labelled episodes that open and close the gripper "
            f"before the camera, or name a model of an earlier run (extract.gripper.detect.model), or {CHECK}"
        )


def _assembled(
    palm: Surface, up: Surface, down: Surface, axis_3: np.ndarray, centre_T: np.ndarray, views: Sequence[View]
) -> GripperModel:
    approach, reach = _approach(palm, up, down, axis_3)
    # Both inner faces are at 0 on the axis: what both stand off it is the middle of the jaws, not their opening.
    tips = [jaw.points_M3[jaw.points_M3 @ approach > reach - 2 * TIP_M] @ axis_3 for jaw in (up, down)]
    middle = (np.quantile(tips[0], FACE_QUANTILE) + np.quantile(tips[1], 1 - FACE_QUANTILE)) / 2
    tip = np.concatenate([jaw.points_M3[jaw.points_M3 @ approach > reach - TIP_M] for jaw in (up, down)]).mean(0)
    grasp = np.zeros(3) if abs(reach) < BETWEEN_M else tip - (tip @ axis_3) * axis_3
    parts = (palm, up, down)
    points = np.concatenate([palm.points_M3, up.points_M3 - middle * axis_3, down.points_M3 - middle * axis_3])
    opening_T = np.array([view.opening for view in views])
    jaws_T2 = np.stack([centre_T + middle + opening_T / 2, centre_T + middle - opening_T / 2], -1)
    poses = np.stack([view.camera_from_effector_44 for view in views])
    return GripperModel(
        points_M3=points.astype(np.float32),
        normals_M3=np.concatenate([part.normals_M3 for part in parts]).astype(np.float32),
        colours_M3=np.concatenate([part.colours_M3 for part in parts]).round().astype(np.uint8),
        part_M=np.repeat([PALM, JAW_UP, JAW_DOWN], [len(part.points_M3) for part in parts]).astype(np.int8),
        jaw_axis_3=axis_3,
        grasp_3=grasp,
        rotations_K33=_distinct(poses[:, :3, :3]),
        range_23=np.stack([poses[:, :3, 3].min(0), poses[:, :3, 3].max(0)]),
        jaws_22=jaws_T2[[opening_T.argmin(), opening_T.argmax()]],
    )


def _approach(palm: Surface, up: Surface, down: Surface, axis_3: np.ndarray) -> tuple[np.ndarray, float]:
    """Where the jaws point, f64 [3] unit across the jaw axis, and how far they reach along it, metres."""
    jaws = np.concatenate([up.points_M3, down.points_M3])
    way = jaws.mean(0) - palm.points_M3.mean(0)
    way -= (way @ axis_3) * axis_3
    # The longest side of the jaws across their axis, on the side away from the palm.
    across = jaws - jaws.mean(0)
    across -= (across @ axis_3)[:, None] * axis_3
    approach = np.linalg.eigh(across.T @ across)[1][:, -1]
    approach = approach * (1.0 if approach @ way >= 0 else -1.0)
    return approach, float(np.quantile(jaws @ approach, 0.99))


def _distinct(rotations_T33: np.ndarray) -> np.ndarray:
    """f64 [K,3,3]: one of every group of rotations that are within a few degrees of each other."""
    kept: list[np.ndarray] = []
    for rotation in rotations_T33:
        turns = [np.degrees(np.arccos(np.clip((np.trace(other.T @ rotation) - 1) / 2, -1, 1))) for other in kept]
        if not turns or min(turns) > ROTATION_DEG:
            kept.append(rotation)
    return np.stack(kept)


def model_path(settings: RegisteredSettings, folder: Path) -> Path:
    """Where the model is: as the settings say, else in the stage's folder."""
    return settings.model or folder / "gripper-model.npz"


def prepare_model(episodes: Sequence[Episode], config: GripperConfig, folder: Path) -> None:
    """Builds the model that ``config`` needs into the stage's folder, unless it is there; more episodes leave it alone.

    Raises UserError as ``build_model`` does.
    """
    settings = config.detect
    if isinstance(settings, RegisteredSettings) and not model_path(settings, folder).exists():
        if settings.model is not None:
            raise UserError(f"{FIELD}: model: {settings.model} does not exist; leave it out to have one built")
        build_model(episodes, settings).save(model_path(settings, folder))
