"""Depth videos of LeRobot: 12-bit grey levels that stand for distances, on a logarithmic or an even scale."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError

from data.sources.lerobot_info import Feature
from data.video import Unreadable

LEVELS = 4095


@dataclass(frozen=True)
class Quantised:
    """What grey level q means: log(z + shift), or z, runs evenly from nearest_m at 0 to farthest_m at 4095.

    The defaults are those of LeRobot's writer (``lerobot.configs.video``), which leaves them out of info.json.
    """

    nearest_m: float = 0.01
    farthest_m: float = 10.0
    shift_m: float = 3.5
    logarithmic: bool = True

    @staticmethod
    def declared(feature: Feature) -> Quantised:
        """From ``video.depth_min`` and so on in info.json. Raises Unreadable (bad_info)."""
        told = {key: feature.info.get(f"video.{key}") for key in ("depth_min", "depth_max", "shift", "use_log")}
        try:
            default = Quantised()
            found = Quantised(
                float(default.nearest_m if told["depth_min"] is None else told["depth_min"]),
                float(default.farthest_m if told["depth_max"] is None else told["depth_max"]),
                float(default.shift_m if told["shift"] is None else told["shift"]),
                bool(default.logarithmic if told["use_log"] is None else told["use_log"]),
            )
        except (TypeError, ValueError):
            raise Unreadable("bad_info", f"meta/info.json: {feature.name}: {told} are not numbers") from None
        if not (0 <= found.nearest_m < found.farthest_m < math.inf and found.nearest_m + found.shift_m > 0):
            raise Unreadable("bad_info", f"meta/info.json: {feature.name}: no scale of depth is made of {told}")
        return found

    def metres(self, levels: np.ndarray) -> np.ndarray:
        """f32 metres of u16 levels. The lowest level, where holes end up too, is told as 0, not measured."""
        share = levels.astype(np.float32) / LEVELS
        if self.logarithmic:
            low, high = math.log(self.nearest_m + self.shift_m), math.log(self.farthest_m + self.shift_m)
            depth = np.exp(low + share * (high - low)) - np.float32(self.shift_m)
        else:
            depth = self.nearest_m + share * (self.farthest_m - self.nearest_m)
        return np.where(levels == 0, 0, depth).astype(np.float32)


def depth_frames(path: Path, due: np.ndarray, slack_s: float, scale: Quantised) -> Iterator[tuple[float, np.ndarray]]:
    """Yields (seconds, f32 [H,W] metres) of as many frames as are due, from the first due one on."""
    left = len(due)
    try:
        with av.open(os.fspath(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "NONE"  # parallelism comes from processes
            base = float(stream.time_base or 0)
            container.seek(max(0, int((due[0] - slack_s) / base)), stream=stream)
            for frame in container.decode(stream):
                time = float((frame.pts or 0) * base)
                if time < due[0] - slack_s:
                    continue
                yield time, scale.metres(frame.to_ndarray(format="gray12le"))
                left -= 1
                if not left:
                    return
    except (FFmpegError, OSError, IndexError, ValueError, ZeroDivisionError) as error:
        raise Unreadable("truncated", f"{left} of {len(due)} depth frames cannot be decoded ({error})") from None
