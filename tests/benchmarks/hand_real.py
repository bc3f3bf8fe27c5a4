"""The hand benchmark on real footage: plumbing against MediaPipe-derived references, distance against stereo."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from data.episode import Frame
from data.video import frames, intrinsics_from_fov, probe
from extract.effector import Camera
from extract.hand.config import HandConfig
from extract.hand.extractor import HandExtractor
from extract.hand.fit import IMAGE_ONLY, WITH_SENSOR
from extract.hand.lifted import LiftedHand
from extract.hand.observe import observe
from extract.hand.place import PlacedHand, place_hand
from extract.hand.skeleton import INDEX_TIP, PALM, PALM_SIZE, RADII, THUMB_TIP
from extract.hand.uncertainty import Assumptions
from tests.footage import FOOTAGE

STEREO_FOCAL_PX = 682.8  # implied by the disparities; the calibration file that comes with the images says 691.4


def video_camera(path: Path) -> Camera:
    """A camera with an assumed field of view of 60 degrees."""
    info = probe(path)
    return Camera(intrinsics_from_fov(60, info.width, info.height), (info.width, info.height), "assumed")


def video_hands(path: Path, extractor: HandExtractor, every: int = 1) -> tuple[list[LiftedHand], int]:
    """Hands in every ``every``-th frame of a video, and how many frames these are."""
    sighting = extractor.detect(Frame(*frame) for frame in islice(frames(path, None, None), 0, None, every))
    return extractor.hands(sighting, video_camera(path))[0], len(sighting.times)


def against_references(footage: Path, extractor: HandExtractor) -> dict[str, dict[str, float]]:
    """Share of frames with a hand; distances to the reference landmarks where they come in comparable frames.

    The references were made with MediaPipe itself: they tell whether frames, times and axes are right, not accuracy.
    """
    results = {}
    for name in ("asl_hand", "dex_hand"):
        path = footage / "human" / name / f"{name}.mp4"
        hands, count = video_hands(path, extractor)
        hand = max(hands, key=lambda h: h.measured_T.sum())
        row = {"frames": float(count), "hand_pct": 100 * sum(h.measured_T.sum() for h in hands) / count}
        row["right"] = float(all(h.side == "right" for h in hands))
        if (path.parent / "landmarks_px.json").exists():
            rows = hand.measured_T
            slots, joints = hand.slots[rows], hand.joints_T213[rows]
            pixels = np.array(json.loads((path.parent / "landmarks_px.json").read_text()))[slots, :, :2]
            world = np.array(json.loads((path.parent / "landmarks_world_m.json").read_text()))[slots]
            projected = video_camera(path).project(joints)
            row["detector_px"] = float(np.linalg.norm(hand.landmarks_T212[rows] - pixels, axis=-1).mean())
            row["fit_px"] = float(np.linalg.norm(projected - pixels, axis=-1).mean())
            row["detector_root_mm"] = _root_mm(hand.world_T213[rows], world)
            row["fit_root_mm"] = _root_mm(joints, world)
        results[name] = row
    return results


def _root_mm(joints: np.ndarray, reference: np.ndarray) -> float:
    error = (joints - joints[:, :1]) - (reference - reference[:, :1])
    return 1000 * float(np.linalg.norm(error, axis=-1).mean())


def stereo_frames(folder: Path) -> Iterator[Frame]:
    """Rectified images with metric depth at 1 Hz."""
    for index, path in enumerate(sorted((folder / "rgb_left").glob("*.jpg"))):
        image = cv2.cvtColor(_image(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        depth = _image(folder / "depth_mm" / f"{path.stem}.png", cv2.IMREAD_UNCHANGED).astype(np.float32) / 1000
        yield Frame(index, float(index), image, depth)


def _image(path: Path, mode: int) -> np.ndarray:
    image = cv2.imread(str(path), mode)
    if image is None:
        raise FileNotFoundError(f"{path}: not an image; {FOOTAGE} is incomplete")
    return image


def stereo_hands(footage: Path, config: HandConfig) -> tuple[list[LiftedHand], int, Camera]:
    """Hands in the stereo stills as extraction lifts them, how many stills there are, and their camera."""
    folder = footage / "rgbd" / "cerd_pour" / "pour_water_01"
    calibration = json.loads((folder / "calibration.json").read_text())["intrinsic_left"]
    intrinsics = np.array([[STEREO_FOCAL_PX, 0, calibration["cx"]], [0, STEREO_FOCAL_PX, calibration["cy"]], [0, 0, 1]])
    camera = Camera(intrinsics, (1280, 720), "given")
    # A hand is followed over one missing still; half a second is no demand on stills a second apart.
    extractor = HandExtractor(config.model_copy(update={"max_gap_s": 1.0, "min_seconds": 0.5}))
    sighting = extractor.detect(stereo_frames(folder))
    return extractor.hands(sighting, camera)[0], len(sighting.times), camera


def tips_from_landmarks(footage: Path, config: HandConfig) -> np.ndarray:
    """How far thumb and index tip of the stereo stills end from their landmarks, f64 [hands,2] millimetres across the
    view. Landmarks of these hands are right wherever one can see it, so little of that is a correction."""
    hands, _, camera = stereo_hands(footage, config)
    moved = []
    for hand in hands:
        joints = hand.joints_T213[hand.measured_T][:, [THUMB_TIP, INDEX_TIP]]
        pixels = camera.project(joints) - hand.landmarks_T212[hand.measured_T][:, [THUMB_TIP, INDEX_TIP]]
        moved.append(1000 * np.linalg.norm(pixels, axis=-1) * joints[..., 2] / camera.focal_px)
    return np.concatenate(moved)


def against_stereo(footage: Path, config: HandConfig) -> dict[str, float]:
    """Error of the palm's distance, percent, against the sensor: median depth at five landmarks plus the skin."""
    hands, stills, camera = stereo_hands(footage, config)
    skin = RADII[list(PALM)] * config.palm_size_m / PALM_SIZE
    errors: dict[str, list[float]] = {"image": [], "sensor": []}
    in_sigmas: dict[str, list[float]] = {"image": [], "sensor": []}
    for hand in hands:
        surface = hand.surface_z_T21[:, PALM]
        seen_T = np.isfinite(surface).any(1)
        truth = np.nanmedian((surface + skin)[seen_T], axis=1)
        for name in errors:
            placed = _placed_as_stills(hand, camera, config.palm_size_m, sensed=name == "sensor")
            away = np.abs(placed.joints_T213[seen_T][:, PALM, 2].mean(1) - truth)
            errors[name] += list(100 * away / truth)
            in_sigmas[name] += list(away / placed.sigma_T2[seen_T, 1])
    row = {"stills": float(stills), "hands": float(len(errors["image"]))}
    for name, values in errors.items():
        row[f"{name}_within_1"], row[f"{name}_within_2"] = (
            float(np.sum(np.array(in_sigmas[name]) <= k)) for k in (1, 2)
        )
        row[f"{name}_p50"], row[f"{name}_p90"] = map(float, np.percentile(values, [50, 90]))
    return row


def _placed_as_stills(hand: LiftedHand, camera: Camera, palm_m: float, sensed: bool) -> PlacedHand:
    """With one bone shape, but no smoothness in time: a second is too long for that."""
    surface = hand.surface_z_T21 if sensed else np.full_like(hand.surface_z_T21, np.nan)
    observed = observe(
        hand.time_T,
        hand.landmarks_T212,
        hand.unmirrored_world_T213,
        surface,
        hand.measured_T,
        camera,
        palm_m,
        hand.unmirrored_depth_px_T21,
    )
    config = HandConfig()
    model = replace(WITH_SENSOR if sensed else IMAGE_ONLY, smooth=False)
    return place_hand(observed, palm_m, config.sensor_depth_sigma_m, Assumptions(palm=config.palm_size_sigma), model)
