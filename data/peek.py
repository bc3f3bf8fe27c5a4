"""Looking at one clip: a filmstrip, with the scene below where the clip has it, a video at the clip's own times, and a
Rerun recording on request."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from data.clips import Clip, Shard
from data.overlay import overlay, scene_strip, strip_image
from pipeline.atomic import publishing
from pipeline.errors import UserError

TICKS_PER_SECOND = 90_000  # of the video's clock, as MPEG counts


def peek(shard: Path, key: str | None, out: Path, recording: Path | None) -> str:
    """Writes ``out`` (a picture), the overlay video of the same name as MP4, and ``recording`` (.rrd) if one is named.

    key: the clip; None takes the first one. Returns a line that says what was written. Raises UserError for a shard or
    clip that is not there, and when Rerun is asked for and not installed.
    """
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise UserError(f"--out {out}: name a picture (.png, .jpg); the video is written beside it as .mp4")
    clip = _clip(shard, key)
    if recording is not None:
        from data.rerun_log import write_recording

        write_recording(clip, recording)
    rows = [strip_image(clip), scene_strip(clip)] if clip.scenes else [strip_image(clip)]
    with publishing(out) as temporary:
        Image.fromarray(np.concatenate(rows)).save(temporary, "PNG" if out.suffix.lower() == ".png" else "JPEG")
    video = out.with_suffix(".mp4")
    write_video(clip, video)
    written = ", ".join(str(path) for path in (out, video, recording) if path is not None)
    return f"{clip.key}: {clip.frames} frames, {clip.meta.embodiment}, '{clip.meta.instruction}' -> {written}"


def _clip(path: Path, key: str | None) -> Clip:
    shard = Shard(path)
    if not shard.keys:
        raise UserError(f"{path}: the shard is empty")
    key = key or shard.keys[0]
    if key not in shard.keys:
        raise UserError(f"{path}: no clip {key}; it holds: {', '.join(shard.keys[:20])}")
    return shard.clip(key)


def write_video(clip: Clip, path: Path) -> None:
    """The clip's frames with its points on them, H.264, each frame at its own time after the first one."""
    times = clip.arrays["timestamps"] - clip.arrays["timestamps"][0]
    ticks = np.rint(times * TICKS_PER_SECOND).astype(int)
    typical = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
    options = {"crf": "18", "preset": "fast", "bf": "0", "threads": "1"}
    movie = {"video_track_timescale": str(TICKS_PER_SECOND), "movflags": "faststart"}
    with publishing(path) as temporary, av.open(str(temporary), "w", format="mp4", options=movie) as container:
        stream = container.add_stream("libx264", rate=Fraction(1 / typical).limit_denominator(1001), options=options)
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, TICKS_PER_SECOND)
        stream.height, stream.width = _even(overlay(clip, 0)).shape[:2]
        for frame, tick in enumerate(ticks):
            image = _even(overlay(clip, frame))
            picture = av.VideoFrame.from_ndarray(image, format="rgb24")
            picture.pts, picture.time_base = int(tick), Fraction(1, TICKS_PER_SECOND)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def _even(image_HW3: np.ndarray) -> np.ndarray:
    """H.264 halves the resolution of colour: sides must be even; the last row or column is shown twice if need be."""
    height, width = image_HW3.shape[:2]
    return np.ascontiguousarray(np.pad(image_HW3, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge"))
