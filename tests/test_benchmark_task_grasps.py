"""Grasp points of extracted clips against the simulator's truth: frames of the clip, task by task."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.clips import write_shard
from data.index import Episode
from data.sidecar import Sidecar
from tests.benchmarks import task_grasps
from tests.pretrain_clips import moving_clip

ASIDE = np.array([0.003, 0.0, 0.004], np.float32)  # 5 mm


def run_with(folder: Path, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two clips of hands that are 5 mm beside their truth, of frames 2, 4, 6, ... of their episodes."""
    clips, episodes = [], []
    for number in (2, 4):
        clip = moving_clip(number)
        frames = list(range(2, 2 + 2 * clip.frames, 2))
        grasp = clip.arrays["points"].mean(1)
        truth = np.full((60, 3), 9.0, np.float32)
        truth[frames] = grasp - ASIDE
        opening = np.full(60, 9.0, np.float32)
        opening[frames] = clip.arrays["opening"] + 0.01
        arrays = dict(zip(names, (truth, opening), strict=False))
        np.savez(folder / f"{number}.npz", **arrays)  # pyright: ignore[reportArgumentType]
        meta = clip.meta.model_copy(update={"task": f"task-{number}", "source_frames": frames})
        clips.append(replace(clip, arrays=clip.arrays | {"grasp": grasp}, meta=meta))
        sidecar = Sidecar.model_construct(arrays=f"{number}.npz")
        episodes.append(
            Episode.model_construct(episode_id=meta.episode_id, path=folder / f"{number}.mp4", sidecar=sidecar)
        )
    (folder / "extract").mkdir()
    write_shard(folder / "extract" / "unit-0.tar", clips)
    monkeypatch.setattr(task_grasps, "read_index", lambda path: episodes)
    return folder


def test_a_clip_is_held_against_the_truth_of_its_own_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = task_grasps.measure(run_with(tmp_path, ("truth_tcp", "truth_opening"), monkeypatch), "human-hand")
    assert set(found) == {"task-2", "task-4", "all"}
    for row in found.values():
        assert row["grasp"] == pytest.approx(5.0, abs=0.01) and row["grasp_p90"] == pytest.approx(5.0, abs=0.01)
        offset = [row[f"offset_{axis}"] for axis in "xyz"]
        np.testing.assert_allclose(offset, 1000 * ASIDE, atol=0.01)
        assert row["opening"] == pytest.approx(10.0, abs=0.01)
    with pytest.raises(ValueError, match="no extracted clip of embodiment 'robot'"):
        task_grasps.measure(tmp_path, "robot")


def test_episodes_without_truth_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"2\.npz: truth_tcp is missing"):
        task_grasps.measure(run_with(tmp_path, ("depth",), monkeypatch), "human-hand")
