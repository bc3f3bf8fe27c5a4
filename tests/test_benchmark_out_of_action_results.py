"""The benchmark of tasks seen only in video: intervals, results that age, the page, the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.simulation.sensors import Sensors
from pipeline.errors import KinecloudError
from tests.benchmarks.out_of_action import __main__ as benchmark
from tests.benchmarks.out_of_action import code
from tests.benchmarks.out_of_action.figures import clips_in_words, figures_of
from tests.benchmarks.out_of_action.intervals import Trials, difference, figure
from tests.benchmarks.out_of_action.lines import FRESH, NOT_RUN, STALE, line_of, lines_of
from tests.benchmarks.out_of_action.page import BARS, CELLS, CURVES, page, pictures
from tests.benchmarks.out_of_action.plan import Plan, Step, plan
from tests.benchmarks.out_of_action.results import collect, is_fresh, keep, known_contents, read_row, timed_before
from tests.benchmarks.out_of_action.rows import MAIN, ROWS, Clips
from tests.benchmarks.out_of_action.steps import DOERS, Runner
from tests.benchmarks.out_of_action.suite import CPU, SMOKE

MAIN_ROW = ROWS[MAIN]


def test_an_interval_knows_of_episodes_and_of_training_seeds() -> None:
    one = figure(Trials("a", {"x": [(20, 40)], "y": [(40, 40)]}))
    assert one["mean"] == 0.75 and one["low"] < 0.75 < one["high"]
    # standard error of the mean over two tasks, one of which never varies, known in closed form
    assert one["high"] - one["low"] == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 40) / 2, rel=0.15)
    alike = figure(Trials("a", {"x": [(20, 40)] * 3}))
    apart = figure(Trials("a", {"x": [(0, 40), (20, 40), (40, 40)]}))
    assert apart["mean"] == alike["mean"] and apart["high"] - apart["low"] > 2 * (alike["high"] - alike["low"])
    sure = figure(Trials("a", {"x": [(5, 5)] * 2}))
    assert (sure["low"], sure["high"]) == (1.0, 1.0)
    against = difference(Trials("a", {"x": [(5, 5)]}), Trials("b", {"x": [(0, 5)]}))
    assert against == {"mean": 1.0, "low": 1.0, "high": 1.0}
    with pytest.raises(ValueError, match="every training seed"):
        Trials("a", {"x": [(1, 2)], "y": [(1, 2), (1, 2)]})


def entry(planned: Plan, share: float, episodes: int = 10) -> dict[str, Any]:
    """A made-up result: labelled tasks always succeed, the others in a share of the episodes."""
    tasks = {}
    for task in planned.budget.tasks:
        labelled = task in planned.budget.labelled_tasks
        tried = list(range(episodes))
        succeeded = tried if labelled else tried[: round(share * episodes)]
        tasks[task] = {"labelled": labelled, "tried": tried, "successes": succeeded, "confused": 1, "path_mm": 12.34}
    return {
        "fingerprint": planned.fingerprint, "tasks": tasks, "films": [{"file": "film.jpg", "words": "a film"}],
        "seconds": {"rollout": 60.0}, "versions": {"python": "3", "kinecloud": "abc"}, "date": "2026-01-02",
        "hardware": {"cpu": "a CPU", "cores": 2, "gpu": None}, "labelled_episodes": {},
        "steps": {name: step.digest[:16] for name, step in planned.steps.items()},
    }  # fmt: skip


SMALL = replace(CPU, episodes=10)


def store(results: Path, row: str, chain: Sensors, share: float, **more: Any) -> None:
    for seed in SMALL.seeds:
        planned = plan(ROWS[row], chain, seed, SMALL)
        keep(results, planned, entry(planned, share) | more)


def test_a_result_is_fresh_until_what_it_was_made_from_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = plan(MAIN_ROW, "rgbd", 0, SMALL)
    assert not is_fresh(tmp_path, planned)
    keep(tmp_path, planned, entry(planned, 0.5))
    other = plan(MAIN_ROW, "truth", 0, SMALL)
    keep(tmp_path, other, entry(other, 0.8))
    assert is_fresh(tmp_path, planned) and is_fresh(tmp_path, other)  # one does not replace the other
    assert not is_fresh(tmp_path, plan(MAIN_ROW, "rgbd", 1, SMALL))
    assert not is_fresh(tmp_path, plan(MAIN_ROW, "rgbd", 0, replace(SMALL, episodes=11)))
    entries = read_row(tmp_path, "cpu", MAIN)["rgbd"]
    assert (
        line_of(MAIN_ROW, "rgbd", CPU, entries, {}).state == FRESH
    )  # fewer episodes than the budget's are told, not stale
    monkeypatch.setattr("tests.benchmarks.out_of_action.plan.code_digest", lambda step, root: "changed")
    assert line_of(MAIN_ROW, "rgbd", CPU, entries, {}).state == STALE
    assert not is_fresh(tmp_path, plan(MAIN_ROW, "rgbd", 0, SMALL))
    newer = plan(MAIN_ROW, "rgbd", 1, SMALL)
    keep(tmp_path, newer, entry(newer, 0.5))
    mixed = line_of(MAIN_ROW, "rgbd", CPU, read_row(tmp_path, "cpu", MAIN)["rgbd"], {})
    assert mixed.state == FRESH and list(mixed.entries) == ["1"]  # old and new results are never put together


def test_results_stand_while_changed_extraction_gives_the_same_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {"clips": b"some clips", "times": 0}

    def pretend(runner: Runner, step: Step, folder: Path) -> None:
        made["times"] += step.name == "pretrain"
        target = {"extract": "extract/unit-0.tar", "pack": "pack/train-0.tar"}.get(step.name)
        if target is not None:
            (folder / target).parent.mkdir(parents=True)
            (folder / target).write_bytes(made["clips"])

    for name in DOERS:
        monkeypatch.setitem(DOERS, name, pretend)
    monkeypatch.setattr(Runner, "_check_labels", lambda *words: {})
    monkeypatch.setattr(
        benchmark, "collect", lambda runner, p, seconds, results: entry(p, 0.5) | {"contents": p.contents}
    )
    results, runner = tmp_path / "results", Runner(tmp_path / "work", say=lambda line: None)

    def run(code: str) -> str:
        def digest_of(step: str, root: Path) -> str:
            return f"{step} {code if step in ('extract', 'pack') else ''}"

        monkeypatch.setattr("tests.benchmarks.out_of_action.plan.code_digest", digest_of)
        planned = plan(MAIN_ROW, "rgbd", 0, SMALL, contents=known_contents(results, "cpu"))
        return benchmark.run_row(runner, planned, results)

    def state() -> str:
        return lines_of(results, SMALL)[MAIN, "rgbd"].state

    assert run("old") == "done" and state() == FRESH and made["times"] == 1
    assert run("new") == "there already, from the very same clips" and state() == FRESH
    assert run("new") == run("old") == "there already" and made["times"] == 1
    made["clips"] = b"other clips"
    monkeypatch.setattr("tests.benchmarks.out_of_action.plan.code_digest", lambda step, root: f"{step} newer")
    assert state() == STALE
    assert run("newer") == "done" and state() == FRESH and made["times"] == 2


def test_rows_that_were_taught_on_other_threads_do_not_age_each_other(tmp_path: Path) -> None:
    extract = plan(MAIN_ROW, "rgb", 0, SMALL).steps["extract"].digest
    rows = {"main": "clips of one thread", "true_future": "clips of two threads"}
    for row, clips in rows.items():
        planned = plan(ROWS[row], "rgb", 0, SMALL, contents={extract: clips})
        keep(tmp_path, planned, entry(planned, 0.5) | {"contents": planned.contents})
    lines = lines_of(tmp_path, SMALL)
    for row, clips in rows.items():
        assert lines[row, "rgb"].entries["0"]["contents"] == {extract: clips}
        assert lines[row, "rgb"].state == FRESH


def test_the_page_tells_rows_targets_stale_results_and_what_was_not_run(tmp_path: Path) -> None:
    store(tmp_path, MAIN, "rgbd", 0.9)
    store(tmp_path, MAIN, "truth", 1.0)
    store(tmp_path, "labelled_videos", "rgbd", 0.1)
    store(tmp_path, "blind", "rgbd", 0.9)
    store(tmp_path, "labelled_5", "rgbd", 1.0)
    store(tmp_path, "labelled_10", "rgbd", 1.0)
    store(tmp_path, "direct", "rgbd", 0.2, fingerprint="old")
    store(tmp_path, "no_pretraining", "rgbd", 0.1)
    store(tmp_path, "oracle", "rgbd", 1.0)
    store(tmp_path, "tracks2d", "rgbd", 0.9)
    store(tmp_path, "latent", "rgbd", 0.3)
    figures = figures_of(lines_of(tmp_path, SMALL), SMALL, {})
    by_words = {line["words"]: line for line in figures["acceptance"]}
    met = {
        "tasks seen only in video succeed": True, "no video-only task is hopeless": True,
        "nearly as good as with labels for all tasks": False, "blind policies fail": False,
        "without videos of the tasks they fail": False, "better than 2D tracks": False,
        "better than latent actions": True, "labelled tasks do not get worse": True,
        "it takes an hour, data included": True,
    }  # fmt: skip
    assert {words: by_words[words]["met"] for words in met} == met
    assert by_words["nearly as good as with labels for all tasks"]["found"].startswith("-0.10")
    assert by_words["it takes an hour, data included"]["found"].startswith("1 (training seed 0, 2 cores, 10 episodes")
    direct = by_words["a direct head learns the tasks, too"]
    assert direct["met"] is None and "direct" in direct["found"]  # a stale row decides nothing
    main = next(row for row in figures["rows"] if (row["row"], row["chain"]) == (MAIN, "rgbd"))
    assert main["unseen"]["mean"] == 0.9 and main["seen"]["mean"] == 1.0 and main["worst"]["rate"] == 0.9
    assert main["tasks"][0]["confused"] == 0.1 and main["path_mm"] == 12.3
    assert [point["x"] for point in figures["curves"]["labelled"]["rgbd"]] == [3, 5, 10]
    assert figures["curves"]["videos"] == {}  # two points are no curve
    text = page(figures, "out_of_action/cpu")
    assert "**met**" in text and "**missed**" in text and "| direct (**stale**) | rgbd |" in text
    assert "simulated" in text and "overlays" in text and "| drawer-open | no, video only | 100 (100 to 100)" in text
    assert text.count("(out_of_action/cpu/film.jpg)") == 2  # of one training seed of each chain
    assert "| rgbd | 2 | 2026-01-02 | 2 | 10 | 0.0 | 0.0 | 0.0 | 0.0 | 1.0 | 0.0 | 1.0 |" in text
    told = " ".join(text.split("## What was not run")[1].split("##")[0].split())
    assert "as_hand (rgbd)" in told and "labelled_5" not in told and "direct (rgbd)" in told
    assert max(len(line) for line in text.splitlines() if line[0:1] not in ("|", "!")) <= 120
    drawn = pictures(figures)
    assert set(drawn) == {BARS, CELLS, CURVES} and all(f"out_of_action/cpu/{name}" in text for name in drawn)
    assert "direct (rgbd, stale)" in drawn[BARS] and drawn[BARS].count('fill-opacity="0.25"') == 1
    assert drawn[BARS].count("main (") == 2


def test_the_papers_ablations_are_compared_over_the_training_seeds_that_both_rows_have(tmp_path: Path) -> None:
    for row, seed, share in (
        (MAIN, 0, 0.1),
        (MAIN, 1, 0.9),
        ("grid", 1, 0.5),
        ("points200", 2, 0.9),
        ("tracks2d", 1, 1),
    ):
        planned = plan(ROWS[row], "rgbd", seed, SMALL)
        keep(tmp_path, planned, entry(planned, share))
    figures = figures_of(lines_of(tmp_path, SMALL), SMALL, {})
    found = {(line["changed"], line["full"]): line for line in figures["ablations"]}
    grid = found["grid", MAIN]
    assert grid["paper"] == -13.5 and grid["here"]["seeds"] == [1]
    assert grid["here"]["difference"]["mean"] == pytest.approx(-0.4) and grid["here"]["full"]["mean"] == 0.9
    assert found[MAIN, "points200"]["here"] is None and found["joint", "direct"]["here"] is None
    text = page(figures, "x")
    row = next(line for line in text.splitlines() if line.endswith("| yes | 1 | grid, main |"))
    assert [cell.split(" (")[0] for cell in row.split(" | ")[1:5]] == ["-13.5", "50", "90", "-40"]
    assert ") | **no**: better | 1 | tracks2d, main |" in text and "| not measured | - |" in text


def test_episodes_that_came_to_no_end_are_no_result(tmp_path: Path) -> None:
    planned, runner = plan(MAIN_ROW, "truth", 0, SMOKE), Runner(tmp_path)
    folder = runner.folder(planned.steps["rollout"]) / "rollout"
    folder.mkdir(parents=True)
    episodes = [{"seed": 3, "success": True, "lost": None}, {"seed": 4, "success": False, "lost": "timeout"}]
    (folder / "rollout.json").write_text(json.dumps({"tasks": [{"task": "push-v3", "episodes": episodes}]}))
    with pytest.raises(KinecloudError, match=r"1 episodes came to no end.*push-v3, seed 4: timeout\. Remove .*rollout"):
        collect(runner, planned, {}, tmp_path)


def test_the_time_of_fewer_episodes_is_kept_beside_that_of_more(tmp_path: Path) -> None:
    few, many = (plan(MAIN_ROW, "rgbd", 1, replace(CPU, episodes=episodes)) for episodes in (10, 40))
    assert timed_before(tmp_path, few) == []
    keep(tmp_path, few, entry(few, 0.5))
    slow = entry(many, 0.5, 40) | {"seconds": {"rollout": 4200.0}, "earlier": timed_before(tmp_path, many)}
    keep(tmp_path, many, slow)
    assert [time["episodes"] for time in timed_before(tmp_path, few)] == [10, 40]
    assert timed_before(tmp_path, plan(MAIN_ROW, "rgbd", 2, SMALL)) == []
    keep(tmp_path, many, slow | {"steps": slow["steps"] | {"align": "of other code"}})
    assert timed_before(tmp_path, few) == []

    keep(tmp_path, many, slow)
    figures = figures_of(lines_of(tmp_path, SMALL), SMALL, {})
    hour = next(target for target in figures["acceptance"] if "hour" in target["words"])
    both = "1 (training seed 1, 2 cores, 10 episodes per task); 70 (training seed 1, 2 cores, 40 episodes per task)"
    assert hour["met"] and hour["found"] == both
    assert "| rgbd | 1 | 2026-01-02 | 2 | 10 |" in page(figures, "x") and "| 40 | 0.0 |" in page(figures, "x")


def test_the_path_of_a_predictor_that_the_policy_does_not_use_is_not_told(tmp_path: Path) -> None:
    for row in ("direct", "joint"):
        store(tmp_path, row, "rgbd", 0.5)
    rows = {row["row"]: row for row in figures_of(lines_of(tmp_path, SMALL), SMALL, {"episodes": 10})["rows"]}
    assert rows["direct"]["path_mm"] == 12.3 and rows["joint"]["path_mm"] is None
    assert all(task["path_mm"] is None for task in rows["joint"]["tasks"])


def test_a_page_without_results_says_so(tmp_path: Path) -> None:
    figures = figures_of(lines_of(tmp_path, CPU), CPU, {})
    assert all(line["met"] is None for line in figures["acceptance"]) and pictures(figures) == {}
    assert "No row has been measured." in page(figures, "x")


def test_the_command_keeps_results_and_writes_the_page_and_a_missed_margin_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shares = {MAIN: 0.75, "labelled_videos": 0.75}
    monkeypatch.setattr(benchmark, "impossible", lambda row, chain, budget: None)
    monkeypatch.setattr(benchmark, "snapshot", lambda work: code.ROOT)
    runs: list[str] = []

    def run(self: Runner, planned: Plan, clips_only: bool = False) -> dict[str, float]:
        runs.extend([] if clips_only else [planned.row.name])
        return {}

    monkeypatch.setattr(Runner, "run", run)
    monkeypatch.setattr(benchmark, "collect", lambda runner, p, seconds, results: entry(p, shares[p.row.name], 4))
    results = tmp_path / "docs" / "results"
    words = ["--budget", "smoke", "--work", str(tmp_path / "w"), "--json", str(tmp_path / "f.json"),
             "--results", str(results), "--page", str(tmp_path / "docs" / "page.md")]  # fmt: skip
    assert benchmark.main(words) == 1 and "does not help" in capsys.readouterr().err
    assert sorted(runs) == ["labelled_videos", MAIN]  # side by side: either may come first
    assert (
        f"results/smoke/{BARS}" in (tmp_path / "docs" / "page.md").read_text() and (results / "smoke" / BARS).exists()
    )
    assert benchmark.main(words) == 1 and len(runs) == 2  # nothing is measured twice
    shares["labelled_videos"] = 0.0
    (results / "smoke" / "labelled_videos.json").unlink()
    assert benchmark.main(words) == 0 and len(runs) == 3
    assert json.loads((tmp_path / "f.json").read_text())["budget"] == "smoke"


def test_a_row_that_fails_is_told_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "impossible", lambda row, chain, budget: None)
    monkeypatch.setattr(benchmark, "snapshot", lambda work: code.ROOT)

    def run(runner: Runner, planned: Plan, results: Path) -> str:
        if planned.row.name == MAIN:
            raise KinecloudError("the disk is full")
        keep(results, planned, entry(planned, 0.5, 4))
        return "done"

    monkeypatch.setattr(benchmark, "run_row", run)
    words = ["--budget", "smoke", "--work", str(tmp_path), "--json", str(tmp_path / "f.json"), "--results"]
    assert benchmark.main([*words, str(tmp_path / "r")]) == 1
    told = capsys.readouterr()
    assert "main (truth, seed 0): the disk is full" in told.err and "labelled_videos (truth, fresh): 0.50" in told.out


def test_a_row_that_the_present_code_does_not_know_is_refused_by_name_and_else_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = replace(ROWS["direct"], name="new", align={"no_such_setting": 1})
    monkeypatch.setitem(ROWS, "new", unknown)
    words = ["--budget", "smoke", "--work", str(tmp_path), "--json", str(tmp_path / "f.json"), "--rows", "new"]
    assert benchmark.main([*words, "--results", str(tmp_path / "r")]) == 2
    assert "align.no_such_setting: unknown key" in capsys.readouterr().err
    line = lines_of(tmp_path, SMOKE)["new", "truth"]
    assert line.state not in (FRESH, NOT_RUN) and "no_such_setting" in line.why


@pytest.mark.parametrize(("asked", "named", "expected"), [
    (None, None, ["rgbd"]), (["truth"], None, []), (["truth"], ["blind"], ["truth"]),
    (["truth", "rgbd"], ["blind"], ["rgbd"]),
])  # fmt: skip
def test_a_row_is_run_for_its_chains_unless_asked_otherwise_by_name(
    asked: list[Sensors] | None, named: list[str] | None, expected: list[str]
) -> None:
    assert benchmark.chains_of(ROWS["blind"], CPU, asked, named) == expected
    assert benchmark.chains_of(ROWS["blind"], SMOKE, None, None) == ["truth"]


def test_clips_say_what_they_are() -> None:
    assert clips_in_words(Clips()) == "3; 20+20; 20+20"
    assert clips_in_words(Clips(labelled=1, unseen=(0, 0), oracle=True)) == "1 (all tasks); 20+20; none"
