"""Close-up hand clips for the hand benchmark: rendered with fixed seeds, or read from a folder. Simulated."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.episode import Frame
from data.video import frames
from extract.effector import Camera

# Constants of the fit and of sigma were set on seeds from 1000 on; published figures use these.
SEEDS = range(100, 118)
STEPS_MM = (20.0, 10.0, 5.0)


@dataclass(frozen=True)
class HandClip:
    """One simulated episode with its truth."""

    path: Path
    side: str
    camera: Camera
    arrays: dict[str, np.ndarray]
    depth_unit_m: float

    def frames(self, with_depth: bool) -> Iterator[Frame]:
        """All frames, with exact depth and the hand's mask or without both."""
        for index, time, image in frames(self.path, None, None):
            depth = self.arrays["depth"][index] * np.float32(self.depth_unit_m) if with_depth else None
            yield Frame(index, time, image, depth, self.arrays["mask"][index] if with_depth else None)


def render_clips(folder: Path, count: int) -> None:
    """Renders the first ``count`` benchmark clips into ``folder``; every fourth shows a left hand."""
    from data.simulation.closeup import CloseupSettings, make_closeup
    from data.simulation.write import write_episode

    for number, seed in enumerate(list(SEEDS)[:count]):
        settings = CloseupSettings(
            step_mm=STEPS_MM[number % len(STEPS_MM)], side="left" if number % 4 == 3 else "right"
        )
        images, arrays, sidecar = make_closeup(seed, settings)
        write_episode(folder, f"closeup-{seed}", images, settings.rate_hz, arrays, sidecar)


def read_clips(folder: Path) -> list[HandClip]:
    """All episodes in ``folder`` that carry exact joints."""
    return [clip for path in sorted(folder.glob("*.json")) if (clip := read_clip(path)) is not None]


def read_clip(path: Path) -> HandClip | None:
    """The episode of a sidecar, or None when it carries no exact joints."""
    sidecar = json.loads(path.read_text())
    if not sidecar.get("arrays") or sidecar.get("effector") != "hand":
        return None
    with np.load(path.with_name(sidecar["arrays"]), allow_pickle=False) as stored:
        if "truth_joints" not in stored:
            return None
        arrays = {name: stored[name] for name in ("depth", "mask", "truth_joints", "truth_surface", "opening")}
    height, width = arrays["depth"].shape[1:]
    camera = Camera(np.array(sidecar["intrinsics"], float), (width, height), "given")
    return HandClip(path.with_suffix(".mp4"), sidecar["side"], camera, arrays, sidecar["depth_unit_m"])
