"""What an episode's cameras and robot tell, from the simulator's full truth down to a plain video."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data.simulation.write import is_finished, write_arrays
from pipeline.atomic import publishing, write_json
from pipeline.errors import UserError

Sensors = Literal["truth", "rgbd", "rgb"]
TRUTH = "truth_"  # arrays that are kept for scores and never read by extraction
EXACT = ("mask", "actor", "grasp", "opening", "world_from_camera")  # what only the simulator knows
RECORDED = ("base_from_effector", "actions", "proprio")  # what a robot records of itself
CALIBRATED = ("opening", "world_from_camera")  # what else is known where a robot recorded itself


def sensed(
    arrays: dict[str, np.ndarray], sidecar: dict[str, Any], sensors: Sensors
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Content of NAME.npz and NAME.json as ``sensors`` would have given them.

    ``truth``: unchanged. ``rgbd``: depth, and for labelled robot episodes the recorded pose and opening, actions,
    proprioception and the calibrated camera; the effector is to be found (``hand`` or ``gripper``). ``rgb``: the same
    without depth. The camera's pose and the opening of all episodes stay as ``truth_world_from_camera`` and
    ``truth_opening``.
    """
    if sensors == "truth":
        return arrays, sidecar
    kept = {"depth"} if sensors == "rgbd" else set()
    if sidecar["labelled"]:
        kept |= {*RECORDED, *CALIBRATED}
    told = {name: value for name, value in arrays.items() if name in kept or name.startswith(TRUTH)}
    for name in CALIBRATED:
        if name in arrays:
            told[TRUTH + name] = arrays[name]
    effector = "hand" if sidecar["embodiment"] == "human-hand" else "gripper"
    return told, {**sidecar, "effector": effector}


def derive(folder: Path, out: Path, sensors: Sensors) -> int:
    """Writes the episodes of ``folder`` (made with ``sensors: truth``) to ``out`` as other sensors saw them.

    Nothing is rendered: videos are linked, or copied where links are not possible; arrays and sidecars are filtered as
    by ``sensed``. Episodes that ``out`` already has are kept. Returns how many episodes ``out`` then has of them.

    Raises UserError when ``folder`` holds no episode, or one whose arrays are not the simulator's truth.
    """
    names = sorted(path.stem for path in folder.glob("*.json") if is_finished(folder, path.stem))
    if not names:
        raise UserError(f"derive: {folder}: no finished simulated episode (NAME.mp4, NAME.npz, NAME.json) found")
    out.mkdir(parents=True, exist_ok=True)
    for name in names:
        if not is_finished(out, name):
            _derive_one(folder, out, name, sensors)
    return len(names)


def _derive_one(folder: Path, out: Path, name: str, sensors: Sensors) -> None:
    sidecar = json.loads((folder / f"{name}.json").read_text())
    with np.load(folder / f"{name}.npz", allow_pickle=False) as stored:
        arrays = {key: stored[key] for key in stored.files}
    if missing := {"mask", "depth"} - arrays.keys():
        raise UserError(
            f"derive: {folder / name}.npz: array {', '.join(sorted(missing))} is missing; "
            "derive from episodes that were made with simulate.sensors: truth"
        )
    arrays, sidecar = sensed(arrays, sidecar, sensors)
    with publishing(out / f"{name}.mp4") as temporary:
        _link(folder / f"{name}.mp4", temporary)
    write_arrays(out / f"{name}.npz", arrays)
    write_json(out / f"{name}.json", sidecar)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
