"""How far grasp points and openings of extracted clips are from the simulator's truth, task by task.

    python -m tests.benchmarks.task_grasps RUN [--embodiment human-hand] [--json FILE]

RUN: a run folder whose index and extract stages are done with simulated episodes, such as ``extract/DIGEST`` in the
folder that ``python -m tests.benchmarks.out_of_action --work DIR`` keeps. It is the clips that are judged, as training
gets them; the truth in the episodes' arrays is read by nothing else.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from data.clips import Clip, Shard
from data.index import Episode, read_index
from pipeline.atomic import write_json

ALL = "all"


def errors(clip: Clip, episode: Episode) -> tuple[np.ndarray, np.ndarray]:
    """Of every frame: grasp point against the truth, f64 [T,3] metres, camera frame, and the opening, f64 [T] metres.

    NaN where the clip does not tell. Raises ValueError for an episode without the simulator's truth.
    """
    path = episode.arrays_path
    with np.load(path if path is not None else "", allow_pickle=False) as stored:
        if "truth_tcp" not in stored:
            raise ValueError(f"{path}: truth_tcp is missing; these episodes are not the simulator's")
        frames = clip.meta.source_frames
        tcp = stored["truth_tcp"].astype(float)[frames]
        opening = stored["truth_opening" if "truth_opening" in stored else "opening"].astype(float)[frames]
    return clip.arrays["grasp"] - tcp, clip.arrays["opening"] - opening


def scores(rows: Iterable[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Millimetres. grasp: distance, median and 90th percentile; offset_*: median error along each axis of the camera
    frame; opening: median absolute error."""
    wrong, opened = (1000 * np.concatenate(parts) for parts in zip(*rows, strict=True))
    away = np.linalg.norm(wrong, axis=1)
    x, y, z = np.nanmedian(wrong, axis=0)
    return {
        "frames": float(len(away)),
        "grasp": float(np.nanmedian(away)),
        "grasp_p90": float(np.nanquantile(away, 0.9)),
        "offset_x": float(x),
        "offset_y": float(y),
        "offset_z": float(z),
        "opening": float(np.nanmedian(np.abs(opened))),
    }


def measure(run: Path, embodiment: str) -> dict[str, dict[str, float]]:
    """Scores by task, and of all clips. Raises ValueError when there is no clip of that embodiment."""
    episodes = {episode.episode_id: episode for episode in read_index(run / "index")}
    rows: dict[str, list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)
    for shard in (Shard(path) for path in sorted((run / "extract").glob("unit-*.tar"))):
        for key in shard.keys:
            if shard.meta(key).embodiment == embodiment:
                clip = shard.clip(key)
                rows[str(clip.meta.task)].append(errors(clip, episodes[clip.meta.episode_id]))
    if not rows:
        raise ValueError(f"{run}: no extracted clip of embodiment {embodiment!r}")
    every = [row for task in rows.values() for row in task]
    return {**{task: scores(rows[task]) for task in sorted(rows)}, ALL: scores(every)}


def main() -> None:
    """Prints a table; with --json also writes it."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.task_grasps", description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--embodiment", default="human-hand")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    found = measure(arguments.run, arguments.embodiment)
    for task, row in found.items():
        print(f"{task:24s}", "  ".join(f"{name} {value:6.1f}" for name, value in row.items()))
    if arguments.json is not None:
        write_json(arguments.json, found)


if __name__ == "__main__":
    main()
