"""A clip as a Rerun recording: frames, camera, points in 3D and the clip's quality over time.

Rerun (https://rerun.io, MIT or Apache-2.0) is optional: it is imported when a recording is asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from data.clips import Clip
from data.overlay import point_colours
from pipeline.atomic import publishing
from pipeline.errors import UserError

REQUIREMENT = "rerun-sdk==0.41.0"
POINT_RADIUS_M = 0.002
CARRIED_ALPHA = 70  # of 255: points that are not measured in a frame are pale


def write_recording(clip: Clip, path: Path) -> None:
    """Writes ``path`` (.rrd), to be opened with ``rerun FILE.rrd``. Raises UserError when Rerun is not installed.

    Timelines: ``time``, the clip's timestamps, and ``frame``, its place in the clip. Entities: ``world/camera`` (pose,
    metres), ``world/camera/image`` (pinhole and picture), ``world/camera/points`` (metres, camera frame, a colour for
    each point), ``quality/...`` (scalars; opening only where it is known).
    """
    rr = _rerun()
    arrays = clip.arrays
    # No wall-clock times and no random identity: the same clip gives the same content.
    recording = rr.RecordingStream("kinecloud", recording_id=clip.key, send_properties=False)
    recording.set_log_time_enabled(False)
    recording.set_log_tick_enabled(False)
    with publishing(path) as temporary:
        recording.save(temporary)
        recording.log("world", rr.ViewCoordinates.RIGHT_HAND_Y_DOWN, static=True)
        recording.log("about", rr.TextDocument(_about(clip)), static=True)
        width, height = clip.meta.image_size
        pinhole = rr.Pinhole(
            image_from_camera=arrays["intrinsics"],
            width=width,
            height=height,
            camera_xyz=rr.ViewCoordinates.RDF,
            image_plane_distance=0.3,
        )
        recording.log("world/camera/image", pinhole, static=True)
        colours = np.array(point_colours(clip), np.uint8)
        for frame in range(clip.frames):
            recording.set_time("time", duration=float(arrays["timestamps"][frame]))
            recording.set_time("frame", sequence=frame)
            pose = arrays["world_from_camera"][frame]
            recording.log("world/camera", rr.Transform3D(translation=pose[:3, 3], mat3x3=pose[:3, :3]))
            picture = rr.EncodedImage(contents=clip.images[frame], media_type="image/jpeg")
            recording.log("world/camera/image", picture)
            alpha = np.where(arrays["visible"][frame], 255, CARRIED_ALPHA).astype(np.uint8)
            shown = np.column_stack([colours, alpha])
            cloud = rr.Points3D(arrays["points"][frame], colors=shown, radii=POINT_RADIUS_M)
            recording.log("world/camera/points", cloud)
            for name, value in _quality(clip, frame).items():
                recording.log(f"quality/{name}", rr.Scalars(value))
        recording.flush()
        recording.disconnect()


def _quality(clip: Clip, frame: int) -> dict[str, float]:
    arrays = clip.arrays
    across, along = (float(sigma) for sigma in arrays["sigma"][frame])
    values = {
        "confidence": float(arrays["confidence"][frame]),
        "sigma_across_m": across,
        "sigma_along_m": along,
        "visible_share": float(arrays["visible"][frame].mean()),
    }
    opening = float(arrays["opening"][frame])
    return values | ({} if np.isnan(opening) else {"opening_m": opening})


def _about(clip: Clip) -> str:
    meta = clip.meta
    scores = "\n".join(f"{name}: {value:g}" for name, value in meta.quality.items())
    said = [clip.key, f"{meta.embodiment}: {meta.instruction}", f"scale {meta.scale}, depth {meta.depth_source}"]
    return "\n".join([*said, f"camera motion {meta.camera_motion}", f"extractor {meta.extractor}", "", scores])


def _rerun() -> Any:
    try:
        import rerun  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError(f"--rerun needs Rerun, which is not installed: pip install {REQUIREMENT}") from None
    return rerun
