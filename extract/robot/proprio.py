"""Grippers of robots that recorded where their end-effector was, in videos of a camera that nobody calibrated.

The recorded path, seen by the camera, is a calibration target of known size: what moves in the picture as the recorded
poses say is the effector, and its motion tells the camera (see ``solve.py``). No network, no depth sensor; metric.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np

from data.episode import Frame
from extract.effector import Camera, EffectorTrack, Extraction
from extract.robot.config import ProprioSettings
from extract.robot.judge import Ridden, Solved
from extract.robot.solve import solve
from extract.segments import split_at_gaps
from extract.steps import BoxDetection, Detection, Shot

LABEL = "gripper"
SPAN = (0.02, 0.98)  # quantiles of the points that a box spans
MARGIN = 0.08  # of a box's longer side: points lie inside the outline
NEAR_FRAMES = 5  # a frame without a measured point is told by its neighbours so far away
MAX_GAP_S, MIN_SECONDS = 0.5, 0.4


class ProprioDetector:
    """A box around what moves as the recorded poses say, in every frame in which some of it is in the picture.

    Holds back one shot of at most ``max_frames`` frames. Nothing is found where poses are missing, where too little
    moves, or where nothing moves as recorded.
    """

    def __init__(self, settings: ProprioSettings):
        self.settings = settings

    def __call__(self, frames: Iterable[Frame], camera: Camera) -> Iterator[tuple[Frame, Sequence[Detection]]]:
        source = iter(frames)
        while held := list(islice(source, self.settings.max_frames)):
            solved = solve([Shot(held, camera)], self.settings)
            boxes = ridden_boxes(solved, solved.episodes[0]) if solved.episodes else [None] * len(held)
            for frame, box in zip(held, boxes, strict=True):
                yield frame, [] if box is None else [box]


def ridden_boxes(solved: Solved, ridden: Ridden) -> list[BoxDetection | None]:
    """The box of the effector's points in every frame; None where fewer than four are in the picture.

    score: how well the points agree with the recorded motion, half of it where none was measured near by.
    """
    assert solved.camera is not None
    points_TK3 = _in_camera(solved, ridden)
    pixels_TK2 = solved.camera.project(points_TK3)
    width, height = solved.camera.image_size
    x, y = pixels_TK2[..., 0], pixels_TK2[..., 1]
    inside = np.asarray((x >= 0) & (x < width) & (y >= 0) & (y < height) & (points_TK3[..., 2] > 0))
    measured = np.logical_or.reduce(ridden.agrees_TK, axis=1)
    boxes: list[BoxDetection | None] = []
    shown_T = np.count_nonzero(inside, axis=1)
    for slot in range(len(pixels_TK2)):
        if shown_T[slot] < 4:
            boxes.append(None)
            continue
        low, high = np.quantile(pixels_TK2[slot][points_TK3[slot, :, 2] > 0], SPAN, axis=0)
        margin = MARGIN * float((high - low).max()) + 0.5
        box = np.concatenate([np.maximum(low - margin, 0), np.minimum(high + margin, [width, height])])
        near = measured[max(0, slot - NEAR_FRAMES) : slot + NEAR_FRAMES + 1].any()
        boxes.append(BoxDetection(LABEL, solved.quality["agreeing"] * (1.0 if near else 0.5), box))
    return boxes


def gripper_tracks(shots: Sequence[Shot], settings: ProprioSettings) -> list[Extraction]:
    """One extraction for every shot. Neighbours in the list (``together`` of them) are solved with one static camera.

    Raises what ``solve`` raises.
    """
    found: list[Extraction] = []
    for start in range(0, len(shots), settings.together):
        group = shots[start : start + settings.together]
        solved = solve(group, settings)
        if solved.reason is not None or not solved.episodes:
            reason = (solved.reason or "no_effector", solved.detail)
            found += [Extraction([], [reason]) for _ in group]
            continue
        found += [_extraction(shot, solved, ridden) for shot, ridden in zip(group, solved.episodes, strict=True)]
    return found


def gripper_track(shot: Shot, settings: ProprioSettings) -> Extraction:
    """The gripper of one shot: at most one track, or a rejection with its reason."""
    return gripper_tracks([shot], settings)[0]


def _extraction(shot: Shot, solved: Solved, ridden: Ridden) -> Extraction:
    boxes = ridden_boxes(solved, ridden)
    seen = np.array([box is not None and box.score > 0 for box in boxes]) & (ridden.agrees_TK.sum(1) >= 3)
    if not seen.any() or ridden.agrees_TK.shape[1] < 4:
        return Extraction([], [("no_effector", "no point of the effector is in the picture")])
    segments, rejections = split_at_gaps(shot.times_T, seen, MAX_GAP_S, MIN_SECONDS)
    points_TK3 = _in_camera(solved, ridden)
    tracks = []
    for segment in segments:
        slots = segment.slots
        confidence = [box.score if box is not None else 0.0 for box in (boxes[slot] for slot in slots)]
        tracks.append(
            EffectorTrack(
                frame_slots=slots,
                points=points_TK3[slots].astype(np.float32),
                visible=ridden.agrees_TK[slots],
                sigma=np.median(ridden.sigma_TK2[slots], 1).astype(np.float32),
                confidence=np.array(confidence, np.float32),
                opening=np.full(len(slots), np.nan, np.float32),
                side=None,
                scale="metric",
                depth_source="proprio",
                quality={**solved.quality, "camera_score": solved.score},
                camera=solved.camera,
                world_from_camera_T44=np.tile(_inverse(solved), (len(slots), 1, 1)),
            )
        )
    return Extraction(tracks, rejections)


def _in_camera(solved: Solved, ridden: Ridden) -> np.ndarray:
    """f64 [T,K,3] metres: the effector's points carried by the recorded poses."""
    assert solved.camera_from_base is not None
    camera_from_effector = solved.camera_from_base @ ridden.poses
    turned = np.einsum("tij,kj->tki", camera_from_effector[:, :3, :3], ridden.offsets_K3)
    return turned + camera_from_effector[:, None, :3, 3]


def _inverse(solved: Solved) -> np.ndarray:
    assert solved.camera_from_base is not None
    return np.linalg.inv(solved.camera_from_base)
