"""How well a gripper is found and followed by its model in RGB-D video of tasks that the model was not made from.

    python -m tests.benchmarks.gripper_registration EPISODES [--labelled 3] [--json FILE]

EPISODES: a folder that ``python -m data simulate`` made, with its truth. The model is built from the first labelled
episodes of every task; nothing but pictures, depth and intrinsics of the other tasks' episodes is shown to it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.config import IndexConfig, Source
from data.index import Episode, build_index
from data.reader import EpisodeReader
from extract.gripper.registered.build import build_model
from extract.gripper.registered.live import RegisteredGripper
from extract.gripper.registered.model import GripperModel
from extract.gripper.registered.settings import RegisteredSettings
from extract.passage import camera_of

ASSUMED_FOV_DEG = 60.0


def episodes_of(folder: Path) -> list[Episode]:
    """All episodes of a folder, in the order of their names."""
    source = Source(name="benchmark", kind="video", path=folder, effector="gripper", embodiment="gripper")
    with tempfile.TemporaryDirectory() as out:
        episodes, _ = build_index(IndexConfig(sources=[source]), Path(out), folder)
    return sorted(episodes, key=lambda episode: episode.path.name)


def first_of_each_task(episodes: Sequence[Episode], count: int) -> list[Episode]:
    """The first ``count`` labelled episodes of every task."""
    chosen: dict[str, list[Episode]] = defaultdict(list)
    for episode in episodes:
        if episode.sidecar.labelled and len(chosen[str(episode.sidecar.task)]) < count:
            chosen[str(episode.sidecar.task)].append(episode)
    return [episode for rows in chosen.values() for episode in rows]


def followed(model: GripperModel, episode: Episode) -> dict[str, np.ndarray]:
    """Per frame: found; error of the grasp point in the camera frame (wrong) and in the true effector frame (off);

    error of the opening; all metres; and milliseconds of this thread for the first frame and the others.
    """
    gripper = RegisteredGripper(model, camera_of(episode, ASSUMED_FOV_DEG))
    with np.load(episode.path.with_suffix(".npz")) as stored:
        truth, opening = stored["truth_tcp"].astype(float), stored["opening"].astype(float)
        poses = np.linalg.inv(stored["world_from_camera"].astype(float)) @ stored["base_from_effector"].astype(float)
    grasp, opened, spent = [], [], []
    for frame in EpisodeReader(episode).frames(None):
        start = time.thread_time()
        estimate = gripper.see(frame)
        spent.append(1000 * (time.thread_time() - start))
        grasp.append(np.full(3, np.nan) if estimate is None else estimate.grasp_3)
        opened.append(np.nan if estimate is None else estimate.opening)
    off = np.einsum("tji,tj->ti", poses[:, :3, :3], np.array(grasp) - truth)
    return {
        "found": np.isfinite(off[:, 0]),
        "wrong": np.array(grasp) - truth,
        "off": off,
        "opening": np.abs(np.array(opened) - opening),
        "first_ms": np.array(spent[:1]),
        "next_ms": np.array(spent[1:]),
    }


def scores(rows: Sequence[dict[str, np.ndarray]], offset_3: np.ndarray) -> dict[str, float]:
    """Millimetres. Grasp point: without ``offset_3`` (metres, effector frame); step: from frame to frame."""
    grasp = np.concatenate([np.linalg.norm(row["off"] - offset_3, axis=1) for row in rows])
    step = np.concatenate([np.linalg.norm(np.diff(row["wrong"], axis=0), axis=1) for row in rows])
    opening = np.concatenate([row["opening"] for row in rows])
    found = np.concatenate([row["found"] for row in rows])
    return {
        "frames": float(len(found)),
        "found": float(found.mean()),
        "grasp_mm": float(1000 * np.nanmedian(grasp)),
        "grasp_p95_mm": float(1000 * np.nanquantile(grasp, 0.95)),
        "step_mm": float(1000 * np.nanmedian(step)),
        "opening_mm": float(1000 * np.nanmedian(opening)),
        "opening_p95_mm": float(1000 * np.nanquantile(opening, 0.95)),
        "first_ms": float(np.median(np.concatenate([row["first_ms"] for row in rows]))),
        "next_ms": float(np.median(np.concatenate([row["next_ms"] for row in rows]))),
    }


def measure(folder: Path, labelled: int) -> dict[str, dict[str, float]]:
    """Scores by task, of all (``all``), and the constant offset (``offset``: millimetres, effector frame)."""
    episodes = episodes_of(folder)
    start = time.thread_time()
    model = build_model(first_of_each_task(episodes, labelled), RegisteredSettings())
    built_s = time.thread_time() - start
    rows: dict[str, list[dict[str, np.ndarray]]] = defaultdict(list)
    for episode in episodes:
        if not episode.sidecar.labelled:
            rows[str(episode.sidecar.task)].append(followed(model, episode))
    every = [row for task in rows.values() for row in task]
    offset = np.nanmedian(np.concatenate([row["off"] for row in every]), axis=0)
    x, y, z = (float(1000 * value) for value in offset)
    return {
        "offset": {"x_mm": x, "y_mm": y, "z_mm": z, "built_s": built_s},
        **{task: scores(rows[task], offset) for task in sorted(rows)},
        "all": scores(every, offset),
    }


def main() -> None:
    """Prints a table; with --json also writes it."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gripper_registration", description=__doc__)
    parser.add_argument("episodes", type=Path)
    parser.add_argument("--labelled", type=int, default=3, help="labelled episodes of each task that make the model")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    found = measure(arguments.episodes, arguments.labelled)
    for name, row in found.items():
        print(f"{name:26s}", "  ".join(f"{key} {value:.2f}" for key, value in row.items()))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
