"""The benchmark of tasks seen only in video, all of it in small: from simulation to a row's result, and once more."""

from __future__ import annotations

import json
from collections import Counter
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
from tests.benchmarks.out_of_action.results import known_contents, read_row
from tests.benchmarks.out_of_action.rows import MAIN, ROWS
from tests.benchmarks.out_of_action.steps import Runner
from tests.benchmarks.out_of_action.suite import SMOKE

ROW = ROWS[MAIN]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("benchmark")


@pytest.fixture(scope="module")
def code(folder: Path) -> int:
    """Exit code of the smoke budget's command: under two minutes on two cores that have nothing else to do."""
    words = ["--budget", "smoke", "--work", str(folder / "work"), "--json", str(folder / "figures.json")]
    return main([*words, "--results", str(folder / "results")])


@pytest.fixture(scope="module")
def planned(folder: Path, code: int) -> Plan:
    """A plan whose row has been run."""
    root = snapshot(folder / "work")
    return plan(ROW, "truth", 0, SMOKE, root, known_contents(folder / "results", SMOKE.name))


def test_videos_of_the_tasks_help(code: int) -> None:
    assert code == 0


def test_a_row_goes_from_simulation_to_its_result(folder: Path, planned: Plan) -> None:
    entry = read_row(folder / "results", SMOKE.name, ROW.name)["truth"]["0"]
    assert set(entry["tasks"]) == set(SMOKE.tasks)
    assert all(len(task["tried"]) == SMOKE.episodes for task in entry["tasks"].values())
    assert all(task["path_mm"] > 0 for task in entry["tasks"].values())
    assert entry["labelled_episodes"] == dict.fromkeys(SMOKE.labelled_tasks, SMOKE.labelled)
    assert set(entry["seconds"]) == set(planned.steps)
    assert all((folder / "results/smoke" / film["file"]).read_bytes()[:2] == b"\xff\xd8" for film in entry["films"])
    # another chain or training seed has pictures of its own
    assert entry["films"] and all(film["file"].startswith(f"{ROW.name}-truth-0-") for film in entry["films"])
    line = lines_of(folder / "results", SMOKE)[ROW.name, "truth"]
    assert line.state == FRESH


def test_clips_are_those_of_the_row_and_the_labelled_one_is_learnt_from(folder: Path, planned: Plan) -> None:
    pack = planned.steps["pack"].folder((folder / "work").resolve()) / "pack"
    metas = [shard.meta(key) for shard in map(Shard, packed(pack, "train")) for key in shard.keys]
    held = [shard.meta(key) for shard in map(Shard, packed(pack, "val")) for key in shard.keys]
    learnt = Counter(meta.task for meta in metas if meta.action_spec is not None)
    assert learnt == dict.fromkeys(SMOKE.labelled_tasks, SMOKE.labelled)
    assert len(metas) + len(held) == len(SMOKE.tasks) * (SMOKE.robot + SMOKE.hand)
    judged = [f"{task}-robot-000" for task in SMOKE.video_only_tasks]
    assert not any(meta.episode_id.startswith(name) for meta in metas + held for name in judged)


def test_a_row_with_more_episodes_extracts_only_those_that_main_has_not(folder: Path, planned: Plan) -> None:
    oracle = plan(ROWS["oracle"], "truth", 0, SMOKE, planned.steps["pack"].root, planned.contents)
    assert oracle.steps["extract_of_main"].digest == planned.steps["extract"].digest
    until = list(oracle.steps).index("extract") + 1
    runner = Runner(folder / "work", 1, say=lambda line: None)
    runner.run(replace(oracle, steps=dict(list(oracle.steps.items())[:until])))
    of_main, own = (runner.folder(step) / "extract" for step in (planned.steps["extract"], oracle.steps["extract"]))
    shards = {path.name for path in of_main.glob("unit-*.tar")}
    assert shards and all((own / name).samefile(of_main / name) for name in shards)
    added = {path.name for path in own.glob("unit-*.tar")} - shards
    assert sum(len(Shard(own / name).keys) for name in added) == SMOKE.labelled * len(SMOKE.video_only_tasks)
    assert json.loads((of_main / "plan.json").read_text()).keys() == {Path(name).stem for name in shards}
    learnt = names(oracle.clips, SMOKE)
    assert json.loads((own / "summary.json").read_text())["clips"] == sum(len(found) for found in learnt.values())


def test_a_lost_result_is_made_again_without_doing_any_step_again(
    folder: Path, planned: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "results" / SMOKE.name / f"{ROW.name}.json"
    before = json.loads(path.read_text())
    monkeypatch.setattr(Runner, "process", lambda *words: pytest.fail("a stage was run again"))
    assert run_row(Runner(folder / "work", 1), planned, folder / "results") == "there already"
    path.unlink()
    assert run_row(Runner(folder / "work", 1), planned, folder / "results") == "done"
    assert json.loads(path.read_text())["chains"]["truth"]["0"]["tasks"] == before["chains"]["truth"]["0"]["tasks"]


def test_a_stage_that_fails_is_named_with_its_log(folder: Path, planned: Plan) -> None:
    nowhere = plan(ROW, "truth", 0, replace(SMOKE, rollout={"tasks": ["fly-v3"]}), planned.steps["pack"].root)
    with pytest.raises(KinecloudError, match=r"align rollout.*exit code 2") as raised:
        run_row(Runner(folder / "work", 1, say=lambda line: None), nowhere, folder / "results")
    assert "log.txt" in str(raised.value) and "fly-v3" in str(raised.value)
