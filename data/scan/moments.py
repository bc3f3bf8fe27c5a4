"""Times that people wrote, and the frames of a video that they mean."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError

from data.video import Unreadable, VideoInfo

BEYOND_S = 1.0  # how far a stop may lie behind the end: headers, and people, round
_CLOCK = re.compile(r"(?:(\d+):)?(\d{1,2}):(\d{1,2}(?:\.\d*)?)", re.ASCII)
_PLAIN = re.compile(r"\d+(?:\.\d*)?(?:[eE]-?\d+)?|\.\d+", re.ASCII)


def seconds(value: Any, unit_s: float) -> float:
    """Of a number in units of ``unit_s``, or of ``hours:minutes:seconds``. Raises ValueError."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        found = float(value) * unit_s
    elif (clock := _CLOCK.fullmatch(str(value).strip())) is not None:
        found = 3600 * int(clock[1] or 0) + 60 * int(clock[2]) + float(clock[3])
    elif _PLAIN.fullmatch(str(value).strip()):
        found = float(value) * unit_s
    else:
        found = math.nan
    if not 0 <= found < math.inf:
        raise ValueError(f"{value!r} is not a time; write seconds (12.5) or hours:minutes:seconds (0:00:12.5)")
    return found


def around(moments: Iterable[float], reach_s: float) -> dict[float, tuple[float, float]]:
    """The stretch of each moment: half way to its neighbours, no further than ``reach_s``, not before the beginning."""
    times = sorted(set(moments))
    before, after = [-math.inf, *times], [*times[1:], math.inf]
    return {
        time: (max(0.0, time - reach_s, (last + time) / 2), min(time + reach_s, (time + following) / 2))
        for last, time, following in zip(before, times, after, strict=False)
    }


class Outside(Exception):
    """A time that is not in its video."""


class Clock:
    """Frames by seconds from the first frame on.

    At a constant rate they are counted; where a video's rates differ, presentation times are read packet by packet.
    """

    def __init__(self, path: Path, info: VideoInfo):
        self._path, self._info = path, info

    @cached_property
    def _times(self) -> np.ndarray | None:
        """f64 [T] seconds, increasing; None at a constant rate. Raises Unreadable."""
        try:
            with av.open(os.fspath(self._path)) as container:
                stream = container.streams.video[0]
                if self._info.frames and self._info.fps and stream.base_rate == stream.average_rate:
                    return None
                base = float(stream.time_base or 0)
                stamps = [packet.pts for packet in container.demux(stream) if packet.pts is not None]
        except (FFmpegError, OSError, IndexError) as error:
            raise Unreadable("unreadable", f"no times of frames could be read ({error})") from None
        if not stamps:
            raise Unreadable("unreadable", "no times of frames")
        times = np.sort(np.asarray(stamps, np.int64)) * base
        return times - times[0]

    @property
    def frames(self) -> int:
        times = self._times
        return self._info.frames if times is None else min(len(times), self._info.frames or len(times))

    @property
    def end_s(self) -> float:
        """When the last frame ends."""
        times = self._times
        if times is None or len(times) < 2:
            return self.frames / self._info.fps if self._info.fps else 0.0
        return float(times[-1] + (times[-1] - times[0]) / (len(times) - 1))

    def frame(self, second: float) -> int:
        """The frame that begins nearest to it; the number of frames for the end and what follows."""
        times = self._times
        if times is None:
            return min(round(second * self._info.fps), self.frames)
        return min(int(np.searchsorted(times, second - self.end_s / len(times) / 2)), self.frames)

    def span(self, start_s: float, stop_s: float) -> tuple[int, int]:
        """First frame of a stretch and the one after its last. Raises ValueError, and Outside."""
        if start_s >= stop_s:
            raise ValueError(f"start {start_s:g} s is not before stop {stop_s:g} s")
        if start_s >= self.end_s or stop_s > self.end_s + BEYOND_S:
            raise Outside(f"{start_s:g} to {stop_s:g} s; the video ends at {self.end_s:.2f} s")
        first, last = self.frame(start_s), self.frame(stop_s)
        if first >= last:
            raise ValueError(f"{start_s:g} to {stop_s:g} s is shorter than a frame")
        return first, last
