"""Clips that are good, and the same made bad on purpose, for the trust benchmark. Simulated and real footage.

A corruption is applied where it would arise: to pictures and depth before they are looked at, or to what the detector
said. None of this exists in the product.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from data.episode import Frame
from data.video import frames as read_frames
from extract.effector import Camera
from extract.hand.detection import Detection, hand_size, palm_centre
from extract.hand.observe import sample_surface_depth
from extract.hand.patch import hand_patch
from extract.hand.sight import HandSight
from extract.hand.signals import sharpness
from tests.benchmarks.hand_clips import read_clip
from tests.benchmarks.hand_real import video_camera

STEPS_MM = (20.0, 10.0, 5.0)
REAL_S = 2.4  # seconds of a real clip


@dataclass(frozen=True)
class Footage:
    """One clip. truth_HT213: f64 metres, camera frame, of the hands in it, with their sides; None for real footage.

    mask_THW: the hand's pixels, where there is one hand. uncovered_HT: how much of each hand the other leaves free.
    """

    name: str
    frames: Sequence[Frame]
    camera: Camera
    truth_HT213: np.ndarray | None
    sides: tuple[str, ...]
    mask_THW: np.ndarray | None = None
    uncovered_HT: np.ndarray | None = None


def closeup(folder: Path, seed: int, number: int) -> Footage:
    """A simulated hand, 2 s at 25 Hz with sensor depth; rendered once and kept in ``folder``. Every third is a left."""
    from data.simulation.closeup import CloseupSettings, make_closeup
    from data.simulation.write import is_finished, write_episode

    name = f"closeup-{seed}"
    if not is_finished(folder, name):
        settings = CloseupSettings(step_mm=STEPS_MM[number % 3], side="left" if number % 3 == 1 else "right")
        images, arrays, sidecar = make_closeup(seed, settings)
        write_episode(folder, name, images, settings.rate_hz, arrays, sidecar)
    clip = read_clip(folder / f"{name}.json")
    assert clip is not None
    frames = [replace(frame, mask=None) for frame in clip.frames(with_depth=True)]
    truth = clip.arrays["truth_joints"][None].astype(float)
    return Footage(name, frames, clip.camera, truth, (clip.side,), clip.arrays["mask"])


def two_hands(folder: Path, seed: int, act: str, sides: tuple[str, str]) -> Footage:
    """A simulated pair of hands of one person or of two, 3 s at 25 Hz with sensor depth."""
    from data.simulation.twohands import TwoHandsSettings, make_two_hands
    from data.simulation.write import DEPTH_UNIT_M, is_finished, write_episode

    name = f"two-{act}-{seed}"
    if not is_finished(folder, name):
        settings = TwoHandsSettings(act=act, sides=sides)
        images, arrays, sidecar = make_two_hands(seed, settings).episode(seed)
        write_episode(folder, name, images, settings.rate_hz, arrays, sidecar)
    sidecar = json.loads((folder / f"{name}.json").read_text())
    with np.load(folder / f"{name}.npz") as stored:
        depth, truth, uncovered = (stored[key] for key in ("depth", "truth_joints", "truth_uncovered"))
    camera = Camera(np.array(sidecar["intrinsics"]), (depth.shape[2], depth.shape[1]), "given")
    frames = [
        Frame(index, time, image, depth[index] * np.float32(DEPTH_UNIT_M))
        for index, time, image in read_frames(folder / f"{name}.mp4", None, None)
    ]
    return Footage(name, frames, camera, truth.astype(float), tuple(sidecar["truth_sides"]), None, uncovered)


def real(path: Path, starts_s: Sequence[float], rate_hz: float = 25.0) -> list[Footage]:
    """Stretches of a real video of ``REAL_S`` seconds each."""
    camera = video_camera(path)
    clips: list[list[Frame]] = [[] for _ in starts_s]
    for frame in read_frames(path, rate_hz, None):
        for clip, start in zip(clips, starts_s, strict=True):
            if start <= frame[1] < start + REAL_S:
                clip.append(Frame(*frame))
    return [
        Footage(f"{path.stem}-{start:g}s", clip, camera, None, ())
        for clip, start in zip(clips, starts_s, strict=True)
        if len(clip) > 30
    ]


# What was corrupted, and how. ``pictures``: frames -> (frames, which frame's truth each one shows).
Pictures = Callable[[list[Frame], list[HandSight], np.random.Generator], tuple[list[Frame], np.ndarray]]
Sights = Callable[[list[HandSight], Footage, np.random.Generator], list[HandSight]]


@dataclass(frozen=True)
class Corruption:
    """One way to make a clip bad: in its pictures, or in what the detector said. sensor: only with a depth sensor."""

    name: str
    told: str
    pictures: Pictures | None = None
    sights: Sights | None = None
    sensor: bool = False
    hands: int = 1


def _stretch(count: int, share: float, rng: np.random.Generator) -> range:
    """A random run of frames that holds that share of them."""
    length = max(round(share * count), 1)
    start = int(rng.integers(0, count - length + 1))
    return range(start, start + length)


def _bursts(count: int, share: float, longest: int, rng: np.random.Generator) -> list[int]:
    """Short random runs of frames, together about that share."""
    chosen: set[int] = set()
    while len(chosen) < share * count:
        start = int(rng.integers(count))
        chosen |= set(range(start, min(start + int(rng.integers(1, longest + 1)), count)))
    return sorted(chosen)


def _same(frames: Sequence[Frame]) -> np.ndarray:
    return np.arange(len(frames))


def _blurred(share: float) -> Pictures:
    def apply(frames: list[Frame], _: list[HandSight], rng: np.random.Generator) -> tuple[list[Frame], np.ndarray]:
        result = list(frames)
        for slot in _stretch(len(frames), share, rng):
            size = max(frames[slot].image.shape) / 640
            image = cv2.GaussianBlur(frames[slot].image, (0, 0), 9 * size)
            result[slot] = replace(frames[slot], image=image)
        return result, _same(frames)

    return apply


def _cut(share: float) -> Pictures:
    """The camera pans so that about half of the hand is outside."""

    def apply(frames: list[Frame], sights: list[HandSight], rng: np.random.Generator) -> tuple[list[Frame], np.ndarray]:
        height, width = frames[0].image.shape[:2]
        result = list(frames)
        axis = int(rng.integers(2))
        for slot in _stretch(len(frames), share, rng):
            centres = [palm_centre(found) for found in sights[slot].detections]
            centre = centres[0] if centres else np.array([width / 2, height / 2])
            shift = [0, 0]
            shift[axis] = -round(float(centre[axis]))
            move = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float64)
            frame = frames[slot]
            image = cv2.warpAffine(frame.image, move, (width, height), borderMode=cv2.BORDER_REPLICATE)
            depth = None if frame.depth is None else cv2.warpAffine(frame.depth, move, (width, height), flags=0)
            result[slot] = replace(frame, image=image, depth=depth)
        return result, _same(frames)

    return apply


def _dropped(frames: list[Frame], _: list[HandSight], rng: np.random.Generator) -> tuple[list[Frame], np.ndarray]:
    """Three gaps of 4 to 7 frames, closed by a converter: the times do not show them."""
    count = len(frames)
    gone = {k for start in rng.integers(5, count - 10, 3) for k in range(start, start + int(rng.integers(4, 8)))}
    kept = [k for k in range(count) if k not in gone]
    times = [frame.time for frame in frames]
    return [replace(frames[k], index=i, time=times[i]) for i, k in enumerate(kept)], np.array(kept)


def _duplicated(frames: list[Frame], _: list[HandSight], rng: np.random.Generator) -> tuple[list[Frame], np.ndarray]:
    """A third of the frames shows the picture before once more."""
    result = list(frames)
    for slot in _bursts(len(frames), 0.33, 3, rng):
        if slot:
            result[slot] = replace(frames[slot], image=result[slot - 1].image, depth=result[slot - 1].depth)
    return result, _same(frames)


Change = Callable[[list[Detection], int], list[Detection]]  # a frame's detections and its slot -> bad ones


def _detector(draw: Callable[[Footage, list[HandSight], np.random.Generator], tuple[Change, Sequence[int]]]) -> Sights:
    """A detector that is wrong in some frames; ``draw`` says how and where. Depth is read where it says the hand is."""

    def apply(sights: list[HandSight], footage: Footage, rng: np.random.Generator) -> list[HandSight]:
        change, slots = draw(footage, sights, rng)
        result = list(sights)
        for slot in slots:
            frame, found = footage.frames[slot], change(sights[slot].detections, slot)
            depth = None if sights[slot].surface_z and sights[slot].surface_z[0] is None else frame.depth
            result[slot] = replace(
                sights[slot],
                detections=found,
                surface_z=[None if depth is None else sample_surface_depth(depth, None, d.landmarks_px) for d in found],
                sharpness=[sharpness(frame.image, hand.box_4) for hand in found],
                patch=[None if depth is None else hand_patch(frame.image, depth, None, d.landmarks_px) for d in found],
            )
        return result

    return apply


def _at(hand: Detection, landmarks_px: np.ndarray) -> Detection:
    """The hand with other landmarks. A second look at it would still have found the real one."""
    look = hand.second_look
    if look is not None:
        away = float(np.linalg.norm(landmarks_px - hand.landmarks_px, axis=-1).mean()) / hand_size(hand)
        look = replace(look, place=float(np.hypot(look.place, away)))
    return replace(hand, landmarks_px=landmarks_px, second_look=look)


def _elsewhere(footage: Footage, sights: list[HandSight], rng: np.random.Generator) -> np.ndarray:
    """A shift of one to two hand sizes, towards where the picture has room."""
    size = np.array(footage.camera.image_size)
    hands = [hand for sight in sights for hand in sight.detections]
    centre = np.mean([palm_centre(hand) for hand in hands], axis=0) if hands else size / 2
    extent = float(np.median([hand_size(hand) for hand in hands])) if hands else 100.0
    towards = (size * rng.uniform(0.2, 0.8, 2) - centre) + 1e-3
    return towards / np.linalg.norm(towards) * extent * rng.uniform(1.0, 2.0)


def _moved(share: float, longest: int = 5) -> Sights:
    def draw(footage: Footage, sights: list[HandSight], rng: np.random.Generator) -> tuple[Change, Sequence[int]]:
        shift, count = _elsewhere(footage, sights, rng), len(sights)
        slots = range(count) if share == 1 else _bursts(count, share, longest, rng)
        return lambda found, _: [_at(hand, hand.landmarks_px + shift) for hand in found], slots

    return _detector(draw)


def _scaled(share: float, longest: int) -> Sights:
    def draw(footage: Footage, sights: list[HandSight], rng: np.random.Generator) -> tuple[Change, Sequence[int]]:
        factor = float(rng.uniform(1.35, 1.7)) ** (1 if rng.random() < 0.5 else -1)

        def change(found: list[Detection], _: int) -> list[Detection]:
            middles = [hand.landmarks_px.mean(0) for hand in found]
            return [
                _at(hand, middle + factor * (hand.landmarks_px - middle))
                for hand, middle in zip(found, middles, strict=True)
            ]

        count = len(sights)
        return change, _bursts(count, share, longest, rng) if longest else _stretch(count, share, rng)

    return _detector(draw)


def _mirrored(hand: Detection) -> Detection:
    """Taken for the other hand: another label, and depth turned round."""
    depth = None if hand.depth_px is None else -hand.depth_px
    side = "left" if hand.side == "right" else "right"
    return replace(hand, side=side, world_m=hand.world_m * [1, 1, -1], depth_px=depth)


def _mistaken(share: float) -> Sights:
    def draw(footage: Footage, sights: list[HandSight], rng: np.random.Generator) -> tuple[Change, Sequence[int]]:
        slots = range(len(sights)) if share == 1 else _bursts(len(sights), share, 8, rng)
        return lambda found, _: [_mirrored(hand) for hand in found], slots

    return _detector(draw)


def _swapped() -> Sights:
    """The detector exchanges two hands now and then: their order, their labels and so the sense of their depth."""

    def draw(footage: Footage, sights: list[HandSight], rng: np.random.Generator) -> tuple[Change, Sequence[int]]:
        return lambda found, _: [_mirrored(hand) for hand in found[::-1]], _bursts(len(sights), 0.35, 10, rng)

    return _detector(draw)


def _depth_changed(change: Callable[[np.ndarray, np.random.Generator], np.ndarray], share: float) -> Pictures:
    def apply(frames: list[Frame], _: list[HandSight], rng: np.random.Generator) -> tuple[list[Frame], np.ndarray]:
        result = list(frames)
        for slot in range(len(frames)) if share == 1 else _stretch(len(frames), share, rng):
            depth = frames[slot].depth
            assert depth is not None
            result[slot] = replace(frames[slot], depth=change(depth, rng).astype(np.float32))
        return result, _same(frames)

    return apply


def _holes(depth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Four fifths of blocks of 16 pixels are missing, in other places in every frame."""
    height, width = depth.shape
    blocks = rng.random((height // 16 + 1, width // 16 + 1)) < 0.8
    return np.where(np.kron(blocks, np.ones((16, 16), bool))[:height, :width], 0, depth)


CORRUPTIONS = (
    Corruption("blur", "60 % of the clip blurred (9 px at 640)", pictures=_blurred(0.6)),
    Corruption("blur, all", "the whole clip blurred", pictures=_blurred(1.0)),
    Corruption("cut by edge", "half of the hand outside the picture, 60 % of the clip", pictures=_cut(0.6)),
    Corruption("cut by edge, all", "the same, whole clip", pictures=_cut(1.0)),
    Corruption("frames dropped", "3 times 4 to 7 frames missing, times closed up", pictures=_dropped),
    Corruption("frames repeated", "a third of the frames shows the one before", pictures=_duplicated),
    Corruption("wrong place", "30 % of the frames, 1 to 2 hand sizes away", sights=_moved(0.3)),
    Corruption("wrong place, all", "all frames 1 to 2 hand sizes away", sights=_moved(1.0)),
    Corruption("mirrored", "40 % of the frames taken for the other hand", sights=_mistaken(0.4)),
    Corruption("mirrored, all", "all frames taken for the other hand", sights=_mistaken(1.0)),
    Corruption(
        "scale jumps", "30 % of the frames 1.35 to 1.7 times too large or small, in bursts", sights=_scaled(0.3, 5)
    ),
    Corruption("scale jump, long", "the same for half of the clip at once", sights=_scaled(0.5, 0)),
    Corruption("swapped", "two hands exchanged in 35 % of the frames", sights=_swapped(), hands=2),
    Corruption("depth holes", "80 % of the depth missing, whole clip", pictures=_depth_changed(_holes, 1), sensor=True),
    Corruption(
        "depth offset",
        "12 cm added, half of the clip",
        pictures=_depth_changed(lambda d, _: np.where(d > 0, d + 0.12, 0), 0.5),
        sensor=True,
    ),
    Corruption(
        "depth offset, all",
        "20 cm added, whole clip",
        pictures=_depth_changed(lambda d, _: np.where(d > 0, d + 0.2, 0), 1),
        sensor=True,
    ),
    Corruption(
        "depth scale",
        "depth times 1.2, half of the clip",
        pictures=_depth_changed(lambda d, _: d * 1.2, 0.5),
        sensor=True,
    ),
    Corruption(
        "depth scale, all",
        "depth times 1.4, whole clip",
        pictures=_depth_changed(lambda d, _: d * 1.4, 1),
        sensor=True,
    ),
)
