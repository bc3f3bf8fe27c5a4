"""The benchmark of tasks seen only in video, all of it in small: from simulation to a row's result, and once more."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from data.clips import Shard
from data.pack import packed
from pipeline.errors import KinecloudError
from tests.benchmarks.out_of_action.__main__ import main, run_row
from tests.benchmarks.out_of_action.code import snapshot
from tests.benchmarks.out_of_action.episodes import names
from tests.benchmarks.out_of_action.lines import FRESH, lines_of
from tests.benchmarks.out_of_action.plan import Plan, plan
from tests.benchmarks.out_of_action.results import read_row
from tests.benchmarks.out_of_action.rows import MAIN, ROWS
from tests.benchmarks.out_of_action.sections import impossible
from tests.benchmarks.out_of_action.steps import Runner
from tests.benchmarks.out_of_action.suite import SMOKE, Budget

TRAINING = {"steps": 2, "batch_size": 4, "checkpoint_every": 2, "validation_windows": 8, "device": "cpu"}
SMALLEST = Budget(
    "smallest", ("drawer-close-v3",), ("drawer-open-v3",), ("truth",), (0,), episodes=1, judged=1, labelled=1, robot=2,
    hand=1, resolution=64, align=TRAINING, rollout={"max_seconds": 0.4},
    pretrain=TRAINING | {"evaluation_candidates": 0, "model": {"width": 32, "layers": 1, "heads": 2},
                         "window": {"image_size": 32}},
)  # fmt: skip
ROW = ROWS["direct"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("benchmark")


@pytest.fixture(scope="module")
def planned(folder: Path) -> Plan:
    """A plan whose row has been run."""
    found = plan(ROW, "truth", 0, SMALLEST, snapshot(folder / "work"))
    assert run_row(Runner(folder / "work", 1, say=lambda line: None), found, folder / "results") == "done"
    return found


def test_a_row_goes_from_simulation_to_its_result(folder: Path, planned: Plan) -> None:
    entry = read_row(folder / "results", "smallest", ROW.name)["truth"]["0"]
    assert set(entry["tasks"]) == set(SMALLEST.tasks) and all(len(t["tried"]) == 1 for t in entry["tasks"].values())
    assert all(task["path_mm"] > 0 for task in entry["tasks"].values())
    assert entry["labelled_episodes"] == {"drawer-close-v3": 1} and set(entry["seconds"]) == set(planned.steps)
    assert all(
        (folder / "results" / "smallest" / film["file"]).read_bytes()[:2] == b"\xff\xd8" for film in entry["films"]
    )
    assert entry["films"]
    line = lines_of(folder / "results", SMALLEST)[ROW.name, "truth"]
    assert line.state == FRESH


def test_clips_are_those_of_the_row_and_the_labelled_one_is_learnt_from(folder: Path, planned: Plan) -> None:
    pack = planned.steps["pack"].folder((folder / "work").resolve()) / "pack"
    metas = [shard.meta(key) for shard in map(Shard, packed(pack, "train")) for key in shard.keys]
    held = [shard.meta(key) for shard in map(Shard, packed(pack, "val")) for key in shard.keys]
    assert sum(meta.action_spec is not None for meta in metas) == 1
    assert len(metas) + len(held) == 2 * (SMALLEST.robot + SMALLEST.hand)
    assert all(meta.task == "drawer-close-v3" for meta in metas if meta.action_spec is not None)
    assert not any(meta.episode_id.startswith("drawer-open-v3-robot-000") for meta in metas + held)  # for judging


def test_a_row_with_more_episodes_extracts_only_those_that_main_has_not(folder: Path, planned: Plan) -> None:
    oracle = plan(ROWS["oracle"], "truth", 0, SMALLEST, planned.steps["pack"].root, planned.contents)
    assert oracle.steps["extract_of_main"].digest == planned.steps["extract"].digest
    until = list(oracle.steps).index("extract") + 1
    runner = Runner(folder / "work", 1, say=lambda line: None)
    runner.run(replace(oracle, steps=dict(list(oracle.steps.items())[:until])))
    of_main, own = (runner.folder(step) / "extract" for step in (planned.steps["extract"], oracle.steps["extract"]))
    shards = {path.name for path in of_main.glob("unit-*.tar")}
    assert shards and all((own / name).samefile(of_main / name) for name in shards)
    (added,) = {path.name for path in own.glob("unit-*.tar")} - shards
    assert len(Shard(own / added).keys) == SMALLEST.labelled * len(SMALLEST.video_only_tasks)
    assert json.loads((of_main / "plan.json").read_text()).keys() == {Path(name).stem for name in shards}
    learnt = names(oracle.clips, SMALLEST)
    assert json.loads((own / "summary.json").read_text())["clips"] == sum(len(found) for found in learnt.values())


def test_a_lost_result_is_made_again_without_doing_any_step_again(
    folder: Path, planned: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "results" / "smallest" / f"{ROW.name}.json"
    before = json.loads(path.read_text())
    monkeypatch.setattr(Runner, "process", lambda *words: pytest.fail("a stage was run again"))
    assert run_row(Runner(folder / "work", 1), planned, folder / "results") == "there already"
    path.unlink()
    assert run_row(Runner(folder / "work", 1), planned, folder / "results") == "done"
    assert json.loads(path.read_text())["chains"]["truth"]["0"]["tasks"] == before["chains"]["truth"]["0"]["tasks"]


def test_a_stage_that_fails_is_named_with_its_log(folder: Path, planned: Plan) -> None:
    nowhere = plan(ROW, "truth", 0, replace(SMALLEST, rollout={"tasks": ["fly-v3"]}), planned.steps["pack"].root)
    with pytest.raises(KinecloudError, match=r"align rollout.*exit code 2") as raised:
        run_row(Runner(folder / "work", 1, say=lambda line: None), nowhere, folder / "results")
    assert "log.txt" in str(raised.value) and "fly-v3" in str(raised.value)


@pytest.mark.skipif(impossible(ROWS[MAIN], "truth", SMOKE) is not None, reason="no head of inverse dynamics")
def test_videos_of_the_tasks_help(tmp_path: Path) -> None:
    """The smoke budget: under two minutes on two cores that have nothing else to do."""
    words = ["--budget", "smoke", "--work", str(tmp_path / "work"), "--json", str(tmp_path / "figures.json")]
    assert main([*words, "--results", str(tmp_path / "results")]) == 0
