"""Reading videos: what a file is, and its frames at a rate with their real presentation times."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError

DENSE = 0.5  # share of the frames from which decord is used, which converts every picture that it passes

logging.getLogger("libav").setLevel(logging.CRITICAL)


class Unreadable(Exception):
    """A file that cannot be used as a video; ``reason`` is a short name, ``detail`` says what was found."""

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class VideoInfo:
    """What the container says. ``frames`` and ``duration_s`` are 0 when it does not say.

    width, height: upright, as people see it. rotation: degrees counter-clockwise that bring the stored picture upright.
    """

    bytes: int
    width: int
    height: int
    fps: float
    frames: int
    duration_s: float
    rotation: int
    focal_35mm: float | None


def probe(path: Path) -> VideoInfo:
    """Opens a file and reads its headers. Raises Unreadable (empty_file, unreadable, no_video_stream)."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise Unreadable("unreadable", str(error.strerror)) from None
    if size == 0:
        raise Unreadable("empty_file", "0 bytes")
    try:
        with av.open(os.fspath(path)) as container:
            if not container.streams.video:
                kinds = sorted({stream.type for stream in container.streams}) or ["nothing"]
                raise Unreadable("no_video_stream", f"the file holds only {', '.join(kinds)}")
            stream = container.streams.video[0]
            rate = float(stream.average_rate or 0)
            duration = (stream.duration or 0) * float(stream.time_base or 0) or (container.duration or 0) / av.time_base
            first = next(container.decode(stream), None)
            if first is None:
                raise Unreadable("truncated", "not one frame can be decoded")
            upright = first.rotation % 180 == 0
            return VideoInfo(
                bytes=size,
                width=first.width if upright else first.height,
                height=first.height if upright else first.width,
                fps=rate,
                frames=stream.frames or round(duration * rate),
                duration_s=round(duration, 6),
                rotation=first.rotation,
                focal_35mm=_focal_35mm({**container.metadata, **stream.metadata}),
            )
    except (FFmpegError, OSError) as error:
        raise Unreadable("unreadable", f"no video could be opened ({error.strerror or error})") from None


def _focal_35mm(metadata: dict[str, str]) -> float | None:
    """The 35 mm equivalent focal length that phones write into the container."""
    for name, value in metadata.items():
        if "focal_length.35mm" in name.lower():
            try:
                return float(value)
            except ValueError:
                return None
    return None


def intrinsics_from_35mm(focal_35mm: float, width: int, height: int) -> np.ndarray:
    """[3,3] pixels. A 36 x 24 mm frame has a diagonal of 43.27 mm, which spans the image's diagonal."""
    return pinhole(focal_35mm / np.hypot(36, 24) * np.hypot(width, height), width, height)


def intrinsics_from_fov(fov_deg: float, width: int, height: int) -> np.ndarray:
    """[3,3] pixels, for a field of view along the longer side."""
    return pinhole(max(width, height) / 2 / np.tan(np.radians(fov_deg) / 2), width, height)


def pinhole(focal_px: float, width: int, height: int) -> np.ndarray:
    """[3,3] with the principal point in the image's centre."""
    return np.array([[focal_px, 0, width / 2], [0, focal_px, height / 2], [0, 0, 1]])


def select(times: np.ndarray, rate_hz: float | None) -> np.ndarray:
    """Indices of the frames nearest to a regular grid of times, each at most once; all frames for ``None``."""
    if rate_hz is None or len(times) < 2:
        return np.arange(len(times))
    ticks = np.arange(times[0], times[-1] + 0.5 / rate_hz, 1 / rate_hz)
    after = np.clip(np.searchsorted(times, ticks), 1, len(times) - 1)
    nearest = np.where(times[after] - ticks < ticks - times[after - 1], after, after - 1)
    return np.unique(nearest)


def frames(
    path: Path, rate_hz: float | None, frame_range: tuple[int, int] | None
) -> Iterator[tuple[int, float, np.ndarray]]:
    """Yields (index, seconds, uint8 RGB [H,W,3]) of the selected frames.

    decord is used where it opens the file, PyAV otherwise. Raises Unreadable when any selected frame cannot be decoded:
    a file is used whole or not at all.
    """
    info = probe(path)
    reader = _open(path, info.rotation)
    times = reader.times
    if len(times) < 0.98 * info.frames - 2:
        raise Unreadable("truncated", f"the header promises {info.frames} frames, the file holds {len(times)}")
    first, last = frame_range or (0, len(times))
    last = min(last, len(times))
    if first >= last:
        raise Unreadable("unreadable", f"frame range {first}..{last} is empty in a file of {len(times)} frames")
    if (np.diff(times[first:last]) <= 0).any():
        raise Unreadable("bad_timestamps", "presentation times do not increase")
    chosen = first + select(times[first:last], rate_hz)
    if isinstance(reader, _Decord) and len(chosen) < DENSE * (chosen[-1] - chosen[0] + 1):
        reader = _PyAV(path)  # converts only the pictures that are wanted
    yield from reader.read(chosen)


def _open(path: Path, rotation: int) -> _Decord | _PyAV:
    if rotation:  # decord2 3.4.0 gives garbled four-channel pictures for rotated videos
        return _PyAV(path, rotation)
    try:
        return _Decord(path)
    except Exception as error:  # decord raises its own and bare errors on files that PyAV may still read
        logging.getLogger(__name__).info("%s: decord: %s; trying PyAV", path, error)
        return _PyAV(path)


class _Decord:
    """Sequential decoding with decord (the maintained decord2 build)."""

    def __init__(self, path: Path):
        import decord

        decord.logging.set_level(decord.logging.FATAL)
        self._reader: Any = decord.VideoReader(os.fspath(path), ctx=decord.cpu(0), num_threads=1)
        stamps = np.asarray(self._reader.get_frame_timestamp(range(len(self._reader))), np.float64)
        self.times = stamps.reshape(len(self._reader), -1)[:, 0]

    def read(self, chosen: np.ndarray) -> Iterator[tuple[int, float, np.ndarray]]:
        # Frame by frame: what decord's get_batch jumps over by itself, it miscounts now and then on a busy machine.
        keys, at = np.asarray(self._reader.get_key_indices()), 0
        for index in chosen:
            try:
                key = int(keys[np.searchsorted(keys, index, side="right") - 1])
                if key > at:
                    self._reader.seek(key)
                    at = key
                while at < index:
                    self._reader.next()
                    at += 1
                image = _three_channels(np.from_dlpack(_Shared(self._reader.next())))
                at += 1
            except Exception as error:
                detail = f"frame {index} of {len(self.times)} cannot be decoded"
                raise Unreadable("truncated", detail) from error
            yield int(index), float(self.times[index]), image


def _three_channels(image: np.ndarray) -> np.ndarray:
    """decord takes the padding of a line for more channels where it is a multiple of the width (16, 48, 96, 144)."""
    height, width = image.shape[:2]
    return image if image.shape[2] == 3 else image.reshape(height, -1)[:, : 3 * width].reshape(height, width, 3)


class _Shared:
    """Lets NumPy look at decoded pictures where they are, read-only: copying them would take a tenth of decoding."""

    def __init__(self, pictures: Any):
        self._pictures = pictures

    def __dlpack__(self, **_: Any) -> Any:
        return self._pictures.to_dlpack()

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0  # the CPU


class _PyAV:
    """Sequential decoding with PyAV."""

    def __init__(self, path: Path, rotation: int = 0):
        self._path = path
        self._quarter_turns = rotation // 90
        try:
            with av.open(os.fspath(path)) as container:
                stream = container.streams.video[0]
                base = float(stream.time_base or 0)
                stamps = [packet.pts for packet in container.demux(stream) if packet.pts is not None]
        except (FFmpegError, OSError, IndexError) as error:
            raise Unreadable("unreadable", f"no video could be opened ({error})") from None
        if not stamps:
            raise Unreadable("unreadable", "no frames")
        self._stamps = np.sort(np.asarray(stamps, np.int64))
        self.times = self._stamps * base

    def read(self, chosen: np.ndarray) -> Iterator[tuple[int, float, np.ndarray]]:
        wanted = set(chosen.tolist())
        seen = 0
        try:
            with av.open(os.fspath(self._path)) as container:
                stream = container.streams.video[0]
                stream.thread_type = "NONE"  # parallelism comes from processes
                if chosen[0] > 0:
                    container.seek(int(self._stamps[chosen[0]]), stream=stream)
                for frame in container.decode(stream):
                    index = int(np.searchsorted(self._stamps, frame.pts or 0))
                    if index in wanted:
                        seen += 1
                        image = np.rot90(frame.to_ndarray(format="rgb24"), self._quarter_turns)
                        yield index, float(self.times[index]), np.ascontiguousarray(image)
                    if index >= chosen[-1]:
                        break
        except FFmpegError as error:
            raise Unreadable("truncated", f"only {seen} of {len(chosen)} frames can be decoded ({error})") from None
        if seen != len(chosen):
            raise Unreadable("truncated", f"only {seen} of {len(chosen)} frames can be decoded")
