"""Writes a simulated episode exactly as a user could write one: a video, an array file, and last a JSON sidecar."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from pipeline.atomic import publishing, write_json

DEPTH_UNIT_M = 1e-4
FAR_M = 65535 * DEPTH_UNIT_M
# x264 looks ahead on half-size pictures whose padding it does not always fill: with it on, the same images now and then
# give other bytes.
REPRODUCIBLE = {"mbtree": "0", "rc-lookahead": "0", "weightp": "none", "sc_threshold": "0"}


def encode_depth(depth: np.ndarray) -> np.ndarray:
    """Depth in metres [..., H, W] -> uint16 in units of 0.1 mm; 0 where it is further than the format can hold."""
    units = np.rint(np.asarray(depth, np.float64) / DEPTH_UNIT_M)
    return np.where((units > 0) & (units <= 65535), units, 0).astype(np.uint16)


def encode_video(path: Path, images: Sequence[np.ndarray], rate_hz: int, crf: int = 16) -> None:
    """H.264 at ``rate_hz`` frames per second; the same images give the same bytes.

    No B-frames, so that the first presentation time is zero; a key frame every 10 frames keeps random access cheap.
    """
    height, width = images[0].shape[:2]
    options = {"crf": str(crf), "preset": "fast", "bf": "0", "g": "10", "threads": "1", **REPRODUCIBLE}
    with publishing(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(rate_hz), options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
        container.mux(stream.encode())


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """An npz file, compressed: depth and masks are mostly flat and get ten times smaller. numpy's own writer takes more
    than twice as long for the last sixth."""
    with publishing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for name, array in arrays.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array, order="C"), allow_pickle=False)


def write_episode(
    folder: Path,
    name: str,
    images: Sequence[np.ndarray],
    rate_hz: int,
    arrays: dict[str, np.ndarray],
    sidecar: dict[str, Any],
) -> None:
    """Writes NAME.mp4, NAME.npz and, as the mark of completion, NAME.json. Each file appears whole or not at all."""
    encode_video(folder / f"{name}.mp4", images, rate_hz)
    write_arrays(folder / f"{name}.npz", arrays)
    write_json(folder / f"{name}.json", {**sidecar, "arrays": f"{name}.npz", "depth_unit_m": DEPTH_UNIT_M})


def is_finished(folder: Path, name: str) -> bool:
    """True when all three files of the episode are there; each was published whole, the sidecar last."""
    return all((folder / f"{name}{suffix}").exists() for suffix in (".mp4", ".npz", ".json"))
