"""How well a gripper is found and followed in video of tasks that nothing about it was learnt from.

    python -m tests.benchmarks.gripper_following EPISODES --way registered|learned [--labelled 3] [--json FILE]

EPISODES: a folder that ``python -m data simulate`` made, with its truth. What the way needs is made from the first
labelled episodes of every task that has some. The other tasks judge; of them, ``registered`` is shown pictures, depth
and intrinsics, ``learned`` pictures and intrinsics; their empty backgrounds are among the scenes of its lessons, as
they are in a run.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from data.config import IndexConfig, Source
from data.index import Episode
from data.reader import EpisodeReader
from extract.config import ExtractConfig
from extract.effector import EffectorTrack
from extract.effectors import build_extractor
from extract.gripper.followed import FollowedExtractor, GripperSight
from extract.gripper.learned.build import prepare_network
from extract.gripper.registered.build import prepare_model
from extract.passage import camera_of
from tests.indexed import indexed

WAYS = ("registered", "learned")
ASSUMED_FOV_DEG = 60.0


def episodes_of(folder: Path) -> list[Episode]:
    """All episodes of a folder, in the order of their names."""
    source = Source(name="benchmark", kind="video", path=folder, effector="gripper", embodiment="gripper")
    with tempfile.TemporaryDirectory() as out:
        episodes, _ = indexed(IndexConfig(sources=[source]), Path(out), folder)
    return sorted(episodes, key=lambda episode: episode.path.name)


def first_of_each_task(episodes: Sequence[Episode], count: int) -> list[Episode]:
    """The first ``count`` labelled episodes of every task."""
    chosen: dict[str, list[Episode]] = defaultdict(list)
    for episode in episodes:
        if episode.sidecar.labelled and len(chosen[str(episode.sidecar.task)]) < count:
            chosen[str(episode.sidecar.task)].append(episode)
    return [episode for rows in chosen.values() for episode in rows]


def made_extractor(way: str, episodes: Sequence[Episode], labelled: int, folder: Path, seed: int) -> FollowedExtractor:
    """The extractor of a way; what it needs is built into ``folder`` from the first labelled episodes of each task."""
    config = ExtractConfig.model_validate({"gripper": {"detect": {"name": way}}})
    shown = first_of_each_task(episodes, labelled)
    if way == "learned":
        shown += [episode for episode in episodes if not episode.sidecar.labelled]
        prepare_network(shown, config.gripper, folder, seed)
    else:
        prepare_model(shown, config.gripper, folder)
    extractor = build_extractor("gripper", config, folder)
    assert isinstance(extractor, FollowedExtractor)
    return extractor


def followed(extractor: FollowedExtractor, episode: Episode, colour_only: bool) -> dict[str, np.ndarray]:
    """Per frame of an episode, of the live estimates (``live_``) and of the tracks that extraction makes of them:

    off: error of the grasp point in the true effector frame, metres; ray: direction of the true viewing ray there;
    wrong: error in the camera frame; opening: its error, metres; sigma: across and along the ray, of the tracks only.
    ms: milliseconds of this thread per frame. NaN where nothing was found.
    """
    camera = camera_of(episode, ASSUMED_FOV_DEG)
    with np.load(episode.path.with_suffix(".npz")) as stored:
        truth = stored["truth_tcp"].astype(float)
        opening = stored["opening" if "opening" in stored else "truth_opening"].astype(float)
        world_from_camera = stored["world_from_camera" if "world_from_camera" in stored else "truth_world_from_camera"]
        poses = np.linalg.inv(world_from_camera.astype(float)) @ stored["base_from_effector"].astype(float)
    frames = EpisodeReader(episode).frames(None)
    if colour_only:
        frames = (replace(frame, depth=None, mask=None, actor=None, base_from_effector=None) for frame in frames)
    sights: list[GripperSight] = []
    spent, looking = [], extractor.look(frames, camera)
    start = time.thread_time()
    for sight in looking:
        spent.append(1000 * (time.thread_time() - start))
        sights.append(sight)
        start = time.thread_time()
    live = _table(
        len(sights),
        [(k, s.estimate.grasp_3, s.estimate.opening) for k, s in enumerate(sights) if s.estimate is not None],
    )
    extraction = extractor.lift(sights, camera)
    track = _table(len(sights), [row for found in extraction.tracks for row in _rows(found)])
    sigma = np.full((len(sights), 2), np.nan)
    for found in extraction.tracks:
        sigma[found.frame_slots] = found.sigma
    turned = np.einsum("tji,tj->ti", poses[:, :3, :3], truth)
    row = {"ms": np.array(spent), "sigma": sigma, "ray": turned / np.linalg.norm(turned, axis=1, keepdims=True)}
    for name, table in (("live_", live), ("", track)):
        wrong = table[:, :3] - truth
        row[f"{name}wrong"], row[f"{name}opening"] = wrong, np.abs(table[:, 3] - opening)
        row[f"{name}off"] = np.einsum("tji,tj->ti", poses[:, :3, :3], wrong)
    return row


def _rows(track: EffectorTrack) -> list[tuple[int, np.ndarray, float]]:
    assert track.grasp is not None
    return list(zip(track.frame_slots, track.grasp, track.opening, strict=True))


def _table(count: int, rows: Sequence[tuple[int, np.ndarray, float]]) -> np.ndarray:
    table = np.full((count, 4), np.nan)
    for slot, grasp, opening in rows:
        table[slot] = *grasp, opening
    return table


def scores(rows: Sequence[dict[str, np.ndarray]], offset_3: np.ndarray, live: bool) -> dict[str, float]:
    """Millimetres. Grasp point: without ``offset_3`` (metres, effector frame), across and along the viewing ray.

    step: error of the motion from frame to frame. within: share of frames whose error along the ray is less than one
    sigma; across, less than 1.52 sigma, which is as much in two directions. live: of the estimates, not the tracks.
    """
    name = "live_" if live else ""
    joined = {key: np.concatenate([row[key] for row in rows]) for key in rows[0]}
    off = joined[f"{name}off"] - offset_3
    along = np.einsum("ti,ti->t", off, joined["ray"])
    across = np.linalg.norm(off - along[:, None] * joined["ray"], axis=1)
    step = np.concatenate([np.linalg.norm(np.diff(row[f"{name}wrong"], axis=0), axis=1) for row in rows])
    opening, found = joined[f"{name}opening"], np.isfinite(along)
    values = {
        "frames": float(len(found)),
        "found": float(found.mean()),
        "grasp_mm": 1000 * _quantile(np.linalg.norm(off, axis=1), 0.5),
        "across_mm": 1000 * _quantile(across, 0.5),
        "across_p90_mm": 1000 * _quantile(across, 0.9),
        "along_mm": 1000 * _quantile(np.abs(along), 0.5),
        "along_p90_mm": 1000 * _quantile(np.abs(along), 0.9),
        "step_mm": 1000 * _quantile(step, 0.5),
        "opening_mm": 1000 * _quantile(opening, 0.5),
        "opening_p90_mm": 1000 * _quantile(opening, 0.9),
        "first_ms": float(np.median([row["ms"][0] for row in rows])),
        "next_ms": float(np.median(np.concatenate([row["ms"][1:] for row in rows]))),
    }
    if not live:
        sigma = joined["sigma"][found]
        values["within_across"] = float((across[found] < 1.52 * sigma[:, 0]).mean())
        values["within_along"] = float((np.abs(along[found]) < sigma[:, 1]).mean())
    return values


def _quantile(values: np.ndarray, share: float) -> float:
    return float(np.nanquantile(values, share)) if np.isfinite(values).any() else float("nan")


def measure(folder: Path, way: str, labelled: int, most: int | None, seed: int = 0) -> dict[str, dict[str, float]]:
    """Scores by task and of all (``all``; ``live``: frame by frame), and the constant offset (``offset``: millimetres,

    effector frame). most: episodes of each task that are judged; None = all.
    """
    episodes = episodes_of(folder)
    labels = [episode for episode in episodes if episode.sidecar.labelled]
    taught, tasks = {episode.embodiment for episode in labels}, {str(episode.sidecar.task) for episode in labels}
    rows: dict[str, list[dict[str, np.ndarray]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as made:
        start = time.thread_time()
        extractor = made_extractor(way, episodes, labelled, Path(made), seed)
        built_s = time.thread_time() - start
        for episode in episodes:
            task = str(episode.sidecar.task)
            judged = task not in tasks and episode.embodiment in taught
            if judged and (most is None or len(rows[task]) < most):
                rows[task].append(followed(extractor, episode, colour_only=way == "learned"))
    every = [row for task in rows.values() for row in task]
    offset = np.nanmedian(np.concatenate([row["off"] for row in every]), axis=0)
    x, y, z = (float(1000 * value) for value in offset)
    return {
        "offset": {"x_mm": x, "y_mm": y, "z_mm": z, "built_s": built_s},
        **{task: scores(rows[task], offset, live=False) for task in sorted(rows)},
        "live": scores(every, offset, live=True),
        "all": scores(every, offset, live=False),
    }


def main() -> None:
    """Prints a table; with --json also writes it."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gripper_following", description=__doc__)
    parser.add_argument("episodes", type=Path)
    parser.add_argument("--labelled", type=int, default=3, help="labelled episodes of each task to learn from")
    parser.add_argument("--way", choices=WAYS, default="registered", help="as extract.gripper.detect")
    parser.add_argument("--most", type=int, default=None, help="episodes of each task that are judged, at most")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    found = measure(arguments.episodes, arguments.way, arguments.labelled, arguments.most)
    for name, row in found.items():
        print(f"{name:26s}", "  ".join(f"{key} {value:.2f}" for key, value in row.items()))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
