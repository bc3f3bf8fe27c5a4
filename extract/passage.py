"""One episode's way from frames to clips, as a stream: no more than a few stretches of it are in memory at any time.

Decoding, looking and lifting overlap (``pipeline.ahead``, a thread each) where there are more cores than workers; where
there are not, threads would only get into each other's way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from data.clips import Clip, encode_image
from data.episode import Frame
from data.index import Episode
from data.overlay import strip_image
from data.reader import EpisodeReader
from data.schema import FIELD_BY_NAME, ClipMeta
from data.video import Unreadable, intrinsics_from_35mm, intrinsics_from_fov
from extract.camera.motion import estimate_camera_motion
from extract.camera.observations import Row
from extract.camera.tracks import BackgroundTracks
from extract.config import ExtractConfig
from extract.effector import Camera, EffectorTrack, Extractor, Sight
from extract.gates import faults
from extract.kinematics import kinematics
from extract.rest import without_rest
from extract.scene_pictures import scene_pictures
from extract.small import Small, half_size, halved, small_frame
from extract.stretches import Stretch, stretches
from pipeline.ahead import ahead

FRAMES_AHEAD = 16
STRIP = 4  # frames side by side in the picture of a clip
ALIVE_EVERY = 100  # frames between signs of life


@dataclass(frozen=True)
class Record:
    """What is kept of one frame: its place in the video, what is stored of it, what the extractor and the camera keep.

    background: None where the camera's path is given. small: the picture alone where no scenes are stored.
    """

    index: int
    small: Small
    sight: Sight
    background: Row | None

    @property
    def image(self) -> np.ndarray:
        return self.small.image

    @property
    def time(self) -> float:
        return self.sight.time

    @property
    def found(self) -> bool:
        return self.sight.found

    @property
    def boxes(self) -> np.ndarray:
        return self.sight.boxes


@dataclass(frozen=True)
class Path:
    """The camera's path during a clip. kind: as in ClipMeta.camera_motion. scores: of quality, by name."""

    world_from_camera_T44: np.ndarray
    kind: Literal["static", "given", "estimated", "unknown"]
    scores: dict[str, float]


@dataclass(frozen=True)
class Rejected:
    """Something that gives no clip. picture: JPEG of what was rejected, or None."""

    reason: str
    detail: str
    picture: bytes | None


class Passage:
    """Passes one episode through an extractor.

    alive: called now and then, so that a long video is not taken for a hanging one. overlap: use threads. After
    ``clips`` is used up, ``rejections``, ``frames`` and ``frames_with_effector`` say what became of the rest.
    """

    def __init__(
        self,
        episode: Episode,
        extractor: Extractor,
        config: ExtractConfig,
        alive: Callable[[], None],
        overlap: bool = True,
    ):
        self._ahead = partial(ahead, size=FRAMES_AHEAD) if overlap else iter
        self.rejections: list[Rejected] = []
        self.frames = self.frames_with_effector = 0
        self._episode, self._extractor, self._config, self._alive = episode, extractor, config, alive
        self._reader = EpisodeReader(episode)
        self._camera = camera_of(episode, config.assumed_fov_deg)
        scale = min(1.0, config.image_side / max(episode.width, episode.height))
        self._size = max(1, round(episode.width * scale)), max(1, round(episode.height * scale))
        self._tracks: BackgroundTracks | None = None
        self._made = 0

    def clips(self) -> Iterator[Clip]:
        """The episode's clips in order of time. Raises data.video.Unreadable."""
        if "world_from_camera" not in self._reader.arrays:
            self._tracks = BackgroundTracks(self._config.camera_motion)
        for stretch in stretches(self._counted(self._ahead(self._records())), self._config.clips):
            yield from self._lifted(stretch)
        if not self.frames_with_effector:
            detail = f"no effector in {self.frames} frames"
            self.rejections.append(Rejected(self._extractor.nothing, detail, self._middle))

    def _records(self) -> Iterator[Record]:
        waiting: deque[Frame] = deque()

        def noted(frames: Iterable[Frame]) -> Iterator[Frame]:
            for frame in frames:
                waiting.append(frame)
                yield frame

        frames = self._ahead(self._reader.frames(self._config.rate_hz))
        for sight in self._extractor.look(noted(frames), self._camera):
            frame = waiting.popleft()
            half = halved(frame.image)
            row = None
            if self._tracks is not None:
                scale = np.tile(np.array(half.shape[1::-1]) / frame.image.shape[1::-1], 2)
                row = self._tracks.take(self._tracks.add(half, frame.depth, sight.boxes * scale))
            small = small_frame(frame, half, self._size, self._config.scenes)
            yield Record(frame.index, small, sight, row)

    def _counted(self, records: Iterable[Record]) -> Iterator[Record]:
        self._middle: bytes | None = None
        for record in records:
            if self._middle is None and record.index >= sum(self._episode.span) // 2:
                self._middle = encode_image(record.image)
            if self.frames % ALIVE_EVERY == 0:
                self._alive()
            self.frames += 1
            self.frames_with_effector += record.found
            yield record

    def _lifted(self, stretch: Stretch[Record]) -> Iterator[Clip]:
        records = stretch.sights
        times_T = np.array([record.time for record in records])
        extraction = self._extractor.lift([record.sight for record in records], self._camera)
        for reason, detail in extraction.rejections:
            self._reject(reason, detail, records)
        for track in extraction.tracks:
            if track.frame_slots[-1] < stretch.known:
                continue  # the stretch before held all of it
            wanted = self._episode.sidecar.side
            if wanted is not None and track.side not in (None, wanted):
                self._reject("other_side", f"a {track.side} hand; the sidecar asks for {wanted}", records)
                continue
            parts = [track]
            if not self._episode.sidecar.labelled:  # actions are kept whole: a robot at rest is told to rest
                parts, at_rest = without_rest(track, times_T[track.frame_slots], self._config.clips)
                for reason, detail in at_rest:
                    self._reject(reason, detail, records)
            for part in parts:
                clip = self._clip(part, records)
                found = faults(clip.meta.quality, self._extractor.gates)
                for reason, detail in found:
                    span = f"{clip.arrays['timestamps'][0]:.2f} to {clip.arrays['timestamps'][-1]:.2f} s"
                    strip = encode_image(strip_image(clip, STRIP))
                    self.rejections.append(Rejected(reason, f"{detail}, {span}", strip))
                if not found:
                    self._made += 1
                    yield clip

    def _reject(self, reason: str, detail: str, records: list[Record]) -> None:
        self.rejections.append(Rejected(reason, detail, encode_image(records[len(records) // 2].image)))

    def _clip(self, track: EffectorTrack, records: list[Record]) -> Clip:
        episode, shown = self._episode, [records[slot] for slot in track.frame_slots]
        camera = track.camera or self._camera
        indices = np.array([record.index for record in shown])
        opening, grasp = self._told("opening", indices), self._told("grasp", indices)
        if grasp is None and track.grasp is not None:
            grasp = track.grasp.astype(np.float32)
        path = self._path(track, shown, camera)
        arrays: dict[str, np.ndarray] = {
            "points": track.points.astype(np.float32),
            "visible": track.visible.astype(bool),
            "sigma": track.sigma.astype(np.float32),
            "confidence": track.confidence.astype(np.float32),
            "timestamps": np.array([record.time for record in shown]),
            "intrinsics": camera.scaled(self._size).intrinsics_33.astype(np.float32),
            "world_from_camera": path.world_from_camera_T44,
            "opening": (track.opening if opening is None else opening).astype(np.float32),
        }
        if grasp is not None:
            arrays["grasp"] = grasp
        if track.raw_points is not None:
            arrays["raw_points"] = track.raw_points.astype(np.float32)
        if episode.sidecar.labelled:
            for name in ("actions", "proprio"):
                labels = self._told(name, indices)
                assert labels is not None
                arrays[name] = labels
        quality = track.quality | kinematics(track.points, arrays["timestamps"]) | path.scores
        meta = ClipMeta(
            episode_id=episode.episode_id,
            group=episode.group,
            source=episode.source,
            embodiment=episode.embodiment,
            side=track.side if track.side in ("left", "right") else None,
            instruction=episode.instruction,
            task=episode.sidecar.task,
            scale=_scale(track.scale, camera.origin),
            depth_source=track.depth_source,
            camera_origin=camera.origin,
            camera_motion=path.kind,
            image_size=self._size,
            source_frames=indices.tolist(),
            extractor=self._extractor.name,
            weights_sha256=self._extractor.weights_sha256,
            quality={name: round(value, 6) for name, value in quality.items()},
            simulated=episode.sidecar.simulated,
            action_spec=episode.sidecar.action_spec if episode.sidecar.labelled else None,
        )
        key = f"{episode.episode_id}-{self._made:04d}"
        scenes, depths = [], []
        if self._config.scenes:
            poses = path.world_from_camera_T44
            still = path.kind in ("static", "given") and bool((poses == poses[0]).all())
            scenes, depths = scene_pictures(
                [record.small for record in shown], track, grasp, camera.scaled(self._size), still
            )
        return Clip(key, arrays, [encode_image(record.image) for record in shown], meta, scenes, depths)

    def _told(self, name: str, indices: np.ndarray) -> np.ndarray | None:
        """What the episode says in these frames, None where it says nothing. Raises Unreadable for what no clip may
        hold."""
        values = self._reader.per_frame(name, indices)
        if values is None:
            return None
        spec = FIELD_BY_NAME[name]
        if (wrong := spec.check(values)) is not None:
            where = self._episode.sidecar.arrays or self._episode.path.name
            detail = f"{where}: {name}: {wrong}, in frames {indices[0]} to {indices[-1]}; expected {spec.rule}"
            raise Unreadable("bad_arrays", detail)
        return values

    def _path(self, track: EffectorTrack, shown: list[Record], camera: Camera) -> Path:
        """How the camera moved during a track: as given, as the extractor found, or as the background tells."""
        given = self._told("world_from_camera", np.array([record.index for record in shown]))
        if given is not None:
            return Path(given, "given", {})
        if track.world_from_camera_T44 is not None:
            return Path(track.world_from_camera_T44.astype(np.float32), "estimated", {})
        assert self._tracks is not None
        rows = [record.background for record in shown if record.background is not None]
        halved = camera.scaled(half_size(camera.image_size))
        moved = estimate_camera_motion(rows, halved, self._tracks.config, self._tracks.zoom, "metric", None)
        scores = {"background_points": moved.points, "background_agreement": moved.inliers}
        if moved.kind != "unknown":
            scores["background_residual_px"] = moved.residual_px
        # A path in units that nobody knows cannot be joined to points in metres.
        kind = "unknown" if moved.scale == "relative" else moved.kind
        poses = moved.world_from_camera_T44 if kind == "estimated" else np.tile(np.eye(4), (len(rows), 1, 1))
        return Path(poses.astype(np.float32), kind, scores)


def camera_of(episode: Episode, assumed_fov_deg: float) -> Camera:
    """Intrinsics as given beside the video, else from the container's metadata, else from an assumed field of view."""
    size = (episode.width, episode.height)
    if episode.sidecar.intrinsics is not None:
        return Camera(np.asarray(episode.sidecar.intrinsics, np.float64), size, "given")
    if episode.focal_35mm:
        return Camera(intrinsics_from_35mm(episode.focal_35mm, *size), size, "metadata")
    return Camera(intrinsics_from_fov(assumed_fov_deg, *size), size, "assumed")


def _scale(scale: str, camera_origin: str) -> Any:
    """Without known intrinsics depth is off by f_assumed / f_true, whatever measured it."""
    return "assumed" if scale == "metric" and camera_origin == "assumed" else scale
