"""One unit of extraction: its episodes in, one shard of motion clips out, with every rejection listed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.clips import Clip, encode_image, write_shard
from data.episode import Frame
from data.index import Episode
from data.letterbox import resize
from data.reader import EpisodeReader
from data.schema import ClipMeta
from data.video import Unreadable, intrinsics_from_35mm, intrinsics_from_fov
from extract.config import ExtractConfig
from extract.effector import Camera, EffectorTrack, Extraction, Extractor
from extract.effectors import build_extractor
from pipeline.atomic import publishing, write_bytes
from pipeline.units import Unit, UnitStore
from pipeline.workers import Handler

REJECTED = "rejected"  # folder of one picture per episode with a rejection


@dataclass(frozen=True)
class ExtractTask:
    """A unit with its episodes."""

    unit: Unit
    episodes: tuple[Episode, ...]

    @property
    def name(self) -> str:
        return self.unit.name


def make_handler(config: ExtractConfig, folder: Path, made_from: dict[str, Any]) -> Handler:
    """The function that a worker process calls for each unit; extractors are built once and reused."""
    store = UnitStore(folder, made_from)
    extractors: dict[str, Extractor] = {}

    def handle(task: ExtractTask, skip: dict[str, str], begin: Callable[[str], None]) -> dict[str, Any]:
        clips: list[Clip] = []
        rejections: list[dict[str, str]] = []
        accounts: dict[str, dict[str, int]] = {}
        for episode in task.episodes:
            name = episode.episode_id
            account = accounts[name] = {"clips": 0, "frames": 0, "frames_with_effector": 0}
            if name in skip:
                rejections.append(_rejection(name, *skip[name].split(": ", 1)))
                continue
            begin(name)
            kind = episode.sidecar.effector
            if kind not in extractors:
                extractors[kind] = build_extractor(kind, config)
            recorder = _Recorder(episode, config)
            try:
                made, extraction = _clips(episode, recorder, extractors[kind], config)
            except Unreadable as error:
                rejections.append(_rejection(name, error.reason, error.detail))
                made, extraction = [], Extraction([])
            clips += made
            rejections += [_rejection(name, reason, detail) for reason, detail in extraction.rejections]
            account["clips"] = len(made)
            account["frames"] = extraction.frames_seen
            account["frames_with_effector"] = extraction.frames_with_effector
            if recorder.jpegs and (extraction.rejections or not made):
                write_bytes(folder / REJECTED / f"{name}.jpg", recorder.jpegs[len(recorder.jpegs) // 2])
        with publishing(store.shard(task.unit)) as temporary:
            write_shard(temporary, clips)
        return store.complete(task.unit, len(clips), rejections, episodes=accounts)

    return handle


def camera_of(episode: Episode, assumed_fov_deg: float) -> Camera:
    """Intrinsics as given beside the video, else from the container's metadata, else from an assumed field of view."""
    size = (episode.width, episode.height)
    if episode.sidecar.intrinsics is not None:
        return Camera(np.asarray(episode.sidecar.intrinsics, np.float64), size, "given")
    if episode.focal_35mm:
        return Camera(intrinsics_from_35mm(episode.focal_35mm, *size), size, "metadata")
    return Camera(intrinsics_from_fov(assumed_fov_deg, *size), size, "assumed")


class _Recorder:
    """Passes frames on to an extractor and keeps what the clip stores: small images, times and indices."""

    def __init__(self, episode: Episode, config: ExtractConfig):
        self.reader = EpisodeReader(episode)
        scale = min(1.0, config.image_side / max(episode.width, episode.height))
        self.size = max(1, round(episode.width * scale)), max(1, round(episode.height * scale))
        self.jpegs: list[bytes] = []
        self.times: list[float] = []
        self.indices: list[int] = []
        self._rate = config.rate_hz

    def frames(self) -> Iterator[Frame]:
        for frame in self.reader.frames(self._rate):
            self.jpegs.append(encode_image(resize(frame.image, *self.size)))
            self.times.append(frame.time)
            self.indices.append(frame.index)
            yield frame


def _clips(
    episode: Episode, recorder: _Recorder, extractor: Extractor, config: ExtractConfig
) -> tuple[list[Clip], Extraction]:
    camera = camera_of(episode, config.assumed_fov_deg)
    extraction = extractor(recorder.frames(), camera)
    wanted = episode.sidecar.side
    clips = []
    for track in extraction.tracks:
        if wanted is not None and track.side not in (None, wanted):
            extraction.rejections.append(("other_side", f"a {track.side} hand; the sidecar asks for {wanted}"))
            continue
        clips.append(_clip(f"{episode.episode_id}-{len(clips):02d}", episode, recorder, track, camera, extractor))
    return clips, extraction


def _clip(
    key: str, episode: Episode, recorder: _Recorder, track: EffectorTrack, camera: Camera, extractor: Extractor
) -> Clip:
    slots = track.frame_slots
    indices = np.asarray(recorder.indices)[slots]
    image_from_video = np.diag([recorder.size[0] / episode.width, recorder.size[1] / episode.height, 1.0])
    poses = recorder.reader.per_frame("world_from_camera", indices)
    opening = recorder.reader.per_frame("opening", indices)
    arrays: dict[str, np.ndarray] = {
        "points": track.points.astype(np.float32),
        "visible": track.visible.astype(bool),
        "sigma": track.sigma.astype(np.float32),
        "confidence": track.confidence.astype(np.float32),
        "timestamps": np.asarray(recorder.times)[slots],
        "intrinsics": (image_from_video @ camera.intrinsics_33).astype(np.float32),
        "world_from_camera": np.tile(np.eye(4, dtype=np.float32), (len(slots), 1, 1)) if poses is None else poses,
        "opening": (track.opening if opening is None else opening).astype(np.float32),
    }
    if episode.sidecar.labelled:
        for name in ("actions", "proprio"):
            labels = recorder.reader.per_frame(name, indices)
            assert labels is not None
            arrays[name] = labels
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
        image_size=recorder.size,
        source_frames=indices.tolist(),
        extractor=extractor.name,
        weights_sha256=extractor.weights_sha256,
        quality={name: round(value, 6) for name, value in track.quality.items()},
        simulated=episode.sidecar.simulated,
        action_spec=episode.sidecar.action_spec if episode.sidecar.labelled else None,
    )
    return Clip(key, arrays, [recorder.jpegs[slot] for slot in slots], meta)


def _scale(scale: str, camera_origin: str) -> Any:
    """Without known intrinsics depth is off by f_assumed / f_true, whatever measured it."""
    return "assumed" if scale == "metric" and camera_origin == "assumed" else scale


def _rejection(item: str, reason: str, detail: str = "") -> dict[str, str]:
    return {"item": item, "reason": reason, "detail": detail}
