"""Human hands in a video: detection, identity, metric placement, surface points, uncertainty."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace

import numpy as np

from data.episode import Frame
from extract.effector import Camera, EffectorTrack, Extraction
from extract.gates import Gate
from extract.hand.bundle import NETWORKS
from extract.hand.config import HandConfig
from extract.hand.detect import HandFinder
from extract.hand.identity import HandTrack, link
from extract.hand.lifted import LiftedHand, unmirrored
from extract.hand.observe import observe, sample_surface_depth
from extract.hand.patch import HandPatch, before_the_scene, hand_patch
from extract.hand.place import Surroundings, place_hand
from extract.hand.sight import HandSight, Sighting, seen_of
from extract.hand.signals import Repeats, sharpness
from extract.hand.skeleton import JOINTS, PALM_SIZE, palm_size
from extract.hand.surface import facing_camera, hidden_by_hand, make_surface, pinch_middle, pinch_opening
from extract.hand.trust import rightness, scores, second_look, sides, trusted
from extract.hand.uncertainty import Assumptions, smoothed_away
from extract.segments import Segment, split_at_gaps

NAME = "mediapipe-hands-fit/3"
SIDE_KNOWN = 0.1  # certainty, 0..1, below which the side is told as unknown
OFF = 0.025  # share of the distance
TOGETHER = 0.5  # two hands are seen at once when they share this part of the shorter track's frames


class HandExtractor:
    """Up to two hands, each its own track. Built once and used for many videos; the detector is new for each."""

    name = NAME
    nothing = "no_hand"

    def __init__(self, config: HandConfig):
        self.config = config
        self.weights_sha256 = {file: sha for file, (_, sha) in NETWORKS.items()}
        self.finder = HandFinder(config)
        self.surface = make_surface(config.points, config.palm_size_m)

    @property
    def gates(self) -> Mapping[str, Gate | None]:
        """Limits of the scores in EffectorTrack.quality."""
        return self.config.gates

    def with_depth_noise(self, sigma_m: float) -> HandExtractor:
        """The same for depth that is less sure than a sensor's, one sigma in metres."""
        other = copy(self)
        other.config = self.config.model_copy(update={"sensor_depth_sigma_m": sigma_m})
        return other

    def look(self, frames: Iterable[Frame], camera: Camera | None = None) -> Iterator[HandSight]:
        """Hands in every frame of one video; keeps no image but the one before."""
        repeats = Repeats()
        for frame, found in self.finder(frames, camera):
            depth = frame.depth if self.config.use_sensor_depth else None
            yield HandSight(
                time=frame.time,
                detections=found,
                surface_z=[
                    None if depth is None else sample_surface_depth(depth, frame.mask, d.landmarks_px) for d in found
                ],
                sharpness=[sharpness(frame.image, detection.box_4) for detection in found],
                patch=[
                    None if depth is None else hand_patch(frame.image, depth, frame.mask, d.landmarks_px) for d in found
                ],
                repeated=repeats(frame.image),
            )

    def lift(self, sights: Sequence[HandSight], camera: Camera) -> Extraction:
        """Tracks of all hands, in the order in which they appear, and the stretches that were dropped."""
        hands, rejections = self.hands(Sighting.of(sights), camera)
        return Extraction([self.track(hand, camera) for hand in hands], rejections)

    def detect(self, frames: Iterable[Frame]) -> Sighting:
        """All sights of a short video."""
        return Sighting.of(list(self.look(frames)))

    def hands(self, sighting: Sighting, camera: Camera) -> tuple[list[LiftedHand], list[tuple[str, str]]]:
        """Hands in metric 3D, and the stretches that were too short or seen too seldom."""
        hands: list[LiftedHand] = []
        rejections: list[tuple[str, str]] = []
        tracks = link(sighting.times, sighting.detections, self.config.max_gap_s)
        observed = [seen_of(track, sighting) for track in tracks]
        good = [trusted(seen, camera.image_size) for seen in observed]
        evidence = [rightness(seen.part(rows)) for seen, rows in zip(observed, good, strict=True)]
        found_sides = sides(evidence, _at_once(tracks))
        for number, track in enumerate(tracks):
            slots = np.array(track.slots)
            seen = np.zeros(len(sighting.times), bool)
            seen[slots[good[number]]] = True
            segments, short = split_at_gaps(sighting.times, seen, self.config.max_gap_s, self.config.min_seconds)
            rejections += short
            for segment in segments:
                share = segment.measured.mean()
                if share < self.config.min_measured:
                    start = sighting.times[segment.slots[0]]
                    detail = f"seen in {share:.0%} of {len(segment.slots)} frames from {start:.2f} s on"
                    rejections.append(("too_many_gaps", detail))
                    continue
                within = (slots >= segment.slots[0]) & (slots <= segment.slots[-1])
                told = scores(observed[number].part(within & good[number]), camera, self.config.palm_size_m)
                told |= second_look(observed[number].part(within)) | {"side_certainty": abs(evidence[number])}
                hand = self._lift(track, found_sides[number], segment, sighting, camera)
                if (share := hand.measured_T.mean()) < self.config.min_measured:
                    detail = f"where the sensor sees it in {share:.0%} of {len(hand.slots)} frames"
                    rejections.append(("off_the_sensor", f"{detail} from {hand.time_T[0]:.2f} s on"))
                    continue
                hands.append(replace(hand, scores=told))
        return hands, rejections

    def _lift(self, track: HandTrack, side: str, segment: Segment, sighting: Sighting, camera: Camera) -> LiftedHand:
        count, first = len(segment.slots), segment.slots[0]
        landmarks, world = np.zeros((count, JOINTS, 2)), np.zeros((count, JOINTS, 3))
        surface_z, score = np.full((count, JOINTS), np.nan), np.zeros(count)
        agrees, behind = np.zeros(count, bool), np.zeros((count, JOINTS))
        patches: list[HandPatch | None] = [None] * count
        for slot, detection in zip(track.slots, track.detections, strict=True):
            row = slot - first
            if not 0 <= row < count or not segment.measured[row]:
                continue
            landmarks[row], world[row], score[row] = detection.landmarks_px, detection.world_m, detection.score
            agrees[row] = detection.side == side
            behind[row] = np.nan if detection.depth_px is None else detection.depth_px
            number = sighting.number(slot, detection)
            patches[row] = sighting.patches[slot][number]
            depth = sighting.surface_z[slot][number]
            if depth is not None:
                surface_z[row] = depth
        turned, turned_depth = unmirrored(world, agrees), np.where(agrees[:, None], 1, -1) * behind
        times = sighting.times[segment.slots]
        palm = self.config.palm_size_m
        observed = observe(times, landmarks, turned, surface_z, segment.measured, camera, palm, turned_depth)
        focal_sigma = self.config.assumed_focal_sigma if camera.origin == "assumed" else 0.0
        assumed = Assumptions(focal_sigma, self.config.palm_size_sigma)
        around = Surroundings(before_the_scene(patches, landmarks), side, camera)
        placed = place_hand(observed, palm, self.config.sensor_depth_sigma_m, assumed, around=around)
        hand = LiftedHand(
            slots=segment.slots,
            time_T=times,
            measured_T=segment.measured,
            joints_T213=placed.joints_T213,
            side=side,
            side_agrees_T=agrees,
            score_T=score,
            landmarks_T212=landmarks,
            world_T213=world,
            depth_px_T21=behind,
            surface_z_T21=surface_z,
            placed=placed,
        )
        return replace(hand, measured_T=hand.measured_T & ~_off_the_sensor(hand)) if placed.sensed else hand

    def track(self, hand: LiftedHand, camera: Camera) -> EffectorTrack:
        """The hand as a track of surface points."""
        surface = replace(self.surface, scale=hand.placed.palm_m / PALM_SIZE)
        sigma = hand.placed.sigma_T2
        points, normals = surface.points(hand.joints_T213, hand.side)
        raw, _ = surface.points(hand.placed.raw_joints_T213, hand.side)
        visible = hand.measured_T[:, None] & facing_camera(points, normals)
        visible &= ~hidden_by_hand(points, hand.joints_T213, surface.scale)
        visible &= ~smoothed_away(points, raw, sigma)
        projected = camera.project(hand.joints_T213)
        overlay = np.where(hand.measured_T[:, None, None], hand.landmarks_T212, projected)
        size = np.array([hand_size_px(pixels) for pixels in overlay])
        misfit_px = np.sqrt(np.mean(np.sum((projected - overlay) ** 2, -1), -1))
        sensed = hand.placed.sensed
        return EffectorTrack(
            frame_slots=hand.slots,
            points=points.astype(np.float32),
            visible=visible,
            sigma=sigma.astype(np.float32),
            confidence=_confidence(hand, misfit_px / size),
            opening=pinch_opening(hand.joints_T213, surface.scale).astype(np.float32),
            side=hand.side if hand.scores.get("side_certainty", 1.0) >= SIDE_KNOWN else None,
            scale="metric" if sensed else "assumed",
            depth_source="sensor" if sensed else "hand-size",
            quality={
                "measured": float(hand.measured_T.mean()),
                "visible": float(visible.mean()),
                "misfit_px": float(misfit_px[hand.measured_T].mean()),
                "misfit": float((misfit_px / size)[hand.measured_T].mean()),
                "side_agreement": float(hand.side_agrees_T[hand.measured_T].mean()),
                "palm_size_m": float(np.median(palm_size(hand.joints_T213))),
                "detector_palm_size_m": float(np.median(palm_size(hand.world_T213[hand.measured_T]))),
                **hand.scores,
            },
            overlay_px=overlay.astype(np.float32),
            raw_points=raw.astype(np.float32),
            grasp=pinch_middle(hand.joints_T213).astype(np.float32),
        )


def _at_once(tracks: list[HandTrack]) -> list[tuple[int, int]]:
    """Pairs of tracks that are seen in the same frames for long."""
    slots = [set(track.slots) for track in tracks]
    return [
        (first, second)
        for second in range(len(slots))
        for first in range(second)
        if len(slots[first] & slots[second]) >= TOGETHER * min(len(slots[first]), len(slots[second]))
    ]


def hand_size_px(landmarks_212: np.ndarray) -> float:
    """Longer side of the box around the landmarks, pixels, at least 1."""
    return float(max(np.ptp(landmarks_212, axis=0).max(), 1.0))


def _off_the_sensor(hand: LiftedHand) -> np.ndarray:
    """bool [T]: the smooth hand is not where the sensor sees it in this frame, by more than OFF of its distance."""
    depth = hand.joints_T213[..., 2]
    before = np.full(len(depth), np.nan)
    before[hand.sensed_T] = np.nanmedian((depth - hand.surface_z_T21)[hand.sensed_T], axis=1)
    away = np.abs(before - np.nanmedian(before)) / depth.mean(1)
    return np.nan_to_num(away) > OFF


def _confidence(hand: LiftedHand, relative_misfit_T: np.ndarray) -> np.ndarray:
    """f32 [T]: certainty of the side, less for a poor fit (sigma: a tenth of the hand); halved in gaps."""
    side = np.where(hand.side_agrees_T, hand.score_T, 1 - hand.score_T)
    confidence = side * np.exp(-0.5 * (relative_misfit_T / 0.1) ** 2)
    known = hand.measured_T
    filled = 0.5 * np.interp(hand.time_T, hand.time_T[known], confidence[known])
    return np.where(known, confidence, filled).clip(0, 1).astype(np.float32)
