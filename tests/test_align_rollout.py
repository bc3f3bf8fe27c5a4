"""Rollouts: counted honestly, the same for any number of workers, on seeds that were not recorded."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy.stats import binomtest

from align.config import RolloutConfig
from align.origin import policy_folder, rollout_made_from
from align.rollout import RolloutTask, fresh_seeds, make_handler, rollout
from align.train import align
from align.wilson import wilson_interval
from data.clips import Clip, write_shard
from data.simulation.config import SimulateConfig
from data.simulation.metaworld import ACTION_SPEC
from extract.config import ExtractConfig
from extract.mask.extractor import NAME as MASKS
from pipeline.config import Config, load
from pretrain.train import pretrain
from tests.align_runs import config_file
from tests.pretrain_clips import moving_clip

TASKS = ("drawer-close-v3", "button-press-v3")


@pytest.mark.parametrize(("successes", "trials"), [(0, 5), (3, 5), (5, 5), (17, 40)])
def test_wilson_interval_matches_scipy(successes: int, trials: int) -> None:
    expected = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert wilson_interval(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_nothing_tried_says_nothing() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


def simulator_clip(number: int) -> Clip:
    """A made-up clip with labels of the simulator's kind."""
    clip = moving_clip(number, labelled=True)
    random = np.random.default_rng(number)
    arrays = {name: random.uniform(-1, 1, (clip.frames, 4)).astype(np.float32) for name in ("actions", "proprio")}
    meta = clip.meta.model_dump() | {"action_spec": ACTION_SPEC, "embodiment": "sawyer-gripper", "task": TASKS[0]}
    meta["extractor"] = MASKS
    return replace(clip, arrays=clip.arrays | arrays, meta=type(clip.meta).model_validate(meta))


@pytest.fixture(scope="module")
def aligned(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A run whose policy fits the simulator, though it knows nothing."""
    folder = tmp_path_factory.mktemp("aligned")
    shards = folder / "train.tar", folder / "val.tar"
    for number, shard in enumerate(shards):
        write_shard(shard, (simulator_clip(10 * number + n) for n in range(4)))
    path = config_file(folder, shards)
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    document["rollout"] = {"tasks": list(TASKS), "episodes": 1, "max_seconds": 0.4}
    document["simulate"] = {"resolution": 64}
    path.write_text(yaml.safe_dump(document))
    config = load(path)
    pretrain(config, resume=True)
    align(config, resume=True)
    return config


def rolled_out(config: Config, workers: int) -> bytes:
    config.raw["run"]["workers"] = workers
    rollout(config, rollout_made_from(config, config.section("rollout", RolloutConfig)))
    return (config.folder("rollout") / "rollout.json").read_bytes()


def test_the_number_of_workers_changes_nothing(aligned: Config) -> None:
    one, two = rolled_out(aligned, 1), rolled_out(aligned, 2)
    assert one == two
    result = json.loads(one)
    assert result["simulated"] is True
    assert [row["task"] for row in result["tasks"]] == list(TASKS)
    for row in result["tasks"]:
        assert row["labelled"] is (row["task"] == TASKS[0])
        assert row["policy"]["successes"] == sum(episode["success"] for episode in row["episodes"])
        assert row["policy"]["episodes"] == 1
        assert all(episode["seconds"] == pytest.approx(0.4) for episode in row["episodes"])
        assert "mean action of all labels" in row["references"]
    section = json.loads((aligned.folder("rollout") / "report" / "section.json").read_text())
    assert {item["kind"] for item in section["items"]} >= {"note", "table", "film"}


def test_recorded_seeds_are_not_used_again() -> None:
    candidates = fresh_seeds(0, TASKS[0], 6, set())
    assert len(set(candidates)) == 6
    assert fresh_seeds(0, TASKS[0], 5, {candidates[0]}) == candidates[1:]
    assert not set(candidates) & set(fresh_seeds(1, TASKS[0], 6, set()))


def test_an_episode_that_was_lost_counts_as_a_failure(aligned: Config, tmp_path: Path) -> None:
    handle = make_handler(
        policy_folder(aligned),
        RolloutConfig(),  # pyright: ignore[reportCallIssue]
        SimulateConfig(),  # pyright: ignore[reportCallIssue]
        ExtractConfig(),  # pyright: ignore[reportCallIssue]
        aligned.folder("extract"),
        {"embodiments": ["sawyer-gripper"], "extractor": MASKS},
    )
    result = handle(RolloutTask(TASKS[0], (7,), 0, {}), {"7": "timeout: longer than 1 s"}, lambda item: None)
    assert [(o.success, o.lost) for o in result["policy"]] == [(False, "timeout: longer than 1 s")]
