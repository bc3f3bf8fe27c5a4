"""Rollouts: counted honestly, the same for any number of workers, on seeds that were not recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scipy.stats import binomtest

from align.config import RolloutConfig
from align.followers import Following, MaskFollower
from align.origin import policy_folder, rollout_made_from
from align.rollout import RolloutTask, fresh_seeds, make_handler, rollout
from align.wilson import wilson_interval
from data.simulation.config import SimulateConfig
from extract.config import ExtractConfig
from extract.mask.config import MaskConfig
from extract.mask.extractor import NAME as MASKS
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.fingerprint import DONE, read_done
from pretrain.model.configuration_kinecloud import KinecloudConfig
from tests.align_runs import simulated_run

TASKS = ("drawer-close-v3", "button-press-v3")


@pytest.mark.parametrize(("successes", "trials"), [(0, 5), (3, 5), (5, 5), (17, 40)])
def test_wilson_interval_matches_scipy(successes: int, trials: int) -> None:
    expected = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert wilson_interval(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_nothing_tried_says_nothing() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


@pytest.fixture(scope="module")
def aligned(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return simulated_run(tmp_path_factory.mktemp("aligned"), TASKS)


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


def test_what_cannot_be_followed_or_seen_is_told_before_the_first_episode(
    aligned: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    rolled_out(aligned, 1)
    done = aligned.folder("rollout") / DONE
    mark = read_done(aligned.folder("align"))
    assert mark is not None
    moved = mark | {"labelled": mark["labelled"] | {"extractor": "steps/1"}}
    with monkeypatch.context() as patched:
        patched.setattr("align.rollout.read_done", lambda folder: moved)
        with pytest.raises(UserError, match="extracted by steps/1, which cannot follow a running policy"):
            rolled_out(aligned, 1)
    with monkeypatch.context() as patched:
        in_colour = Following(lambda camera: MaskFollower(camera, MaskConfig()), "rgb", "in colour")
        patched.setattr("align.rollout.following", lambda *_: in_colour)
        patched.setattr("align.rollout.KinecloudConfig.from_pretrained", lambda folder: KinecloudConfig(depth=True))
        with pytest.raises(UserError, match="learned from pictures with depth"):
            rolled_out(aligned, 1)
    assert done.exists()  # the result before is still there


def test_a_gpu_that_is_not_there_is_named_and_where_a_policy_ran_decides_nothing(
    aligned: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = aligned.section("rollout", RolloutConfig)
    on_gpu = settings.model_copy(update={"device": "cuda"})
    assert rollout_made_from(aligned, settings) == rollout_made_from(aligned, on_gpu)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match=r"rollout\.device: cuda was asked for"):
        make_handler(policy_folder(aligned), on_gpu, SimulateConfig(), ExtractConfig(), aligned.folder("extract"),  # pyright: ignore[reportCallIssue]
                     {"embodiments": ["sawyer-gripper"], "extractor": MASKS})  # fmt: skip


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
