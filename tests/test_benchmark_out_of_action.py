"""The benchmark of tasks seen only in video: what rows learn from, and what their steps are made from."""

from __future__ import annotations

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.clips import Clip, write_shard
from data.index import Episode
from data.simulation.sensors import RECORDED, Sensors
from data.simulation.tasks import INSTRUCTIONS
from pipeline.errors import KinecloudError, UserError
from tests.benchmarks.out_of_action import code, suite
from tests.benchmarks.out_of_action.acceptance import TARGETS
from tests.benchmarks.out_of_action.code import code_digest
from tests.benchmarks.out_of_action.definitions import reached
from tests.benchmarks.out_of_action.episodes import (
    JUDGED,
    LABELLED,
    SOURCES,
    VIDEOS,
    chosen,
    gather,
    names,
    put,
    stock,
)
from tests.benchmarks.out_of_action.labels import check_labels
from tests.benchmarks.out_of_action.plan import plan
from tests.benchmarks.out_of_action.rows import MAIN, ROWS, Clips
from tests.benchmarks.out_of_action.sections import merged, sections, simulated
from tests.benchmarks.out_of_action.steps import DOERS, Runner
from tests.benchmarks.out_of_action.suite import BUDGETS, CPU, SMOKE
from tests.pretrain_clips import moving_clip

MAIN_ROW = ROWS[MAIN]


def test_the_suite_is_of_known_tasks_and_no_task_is_both_labelled_and_seen_only() -> None:
    for budget in BUDGETS.values():
        assert set(budget.tasks) <= set(INSTRUCTIONS) and len(set(budget.tasks)) == len(budget.tasks)
        assert set(budget.rows or ()) <= set(ROWS)
    assert (len(CPU.labelled_tasks), len(CPU.video_only_tasks), CPU.episodes, len(CPU.seeds)) == (5, 12, 40, 3)
    needed = {target.of for target in TARGETS} | {target.over for target in TARGETS if target.over}
    assert all(chain in ROWS[row].chains for row, chain in needed)


def test_what_is_recorded_is_enough_for_every_row_and_hands_show_other_motions_than_mains_robots() -> None:
    section = simulated(CPU, main_only=False)
    robots = {f"{number:03d}" for number in range(section["robot_episodes"])}
    hands = {f"{number:03d}" for number in range(section["hand_episodes"])}
    for row in ROWS.values():
        for found in names(row.clips, CPU).values():
            assert all(name[-3:] in (robots if "-robot-" in name else hands) for name in found), row.name
    of_main = {name for found in names(MAIN_ROW.clips, CPU).values() for name in found}
    shown = {int(name[-3:]) for name in of_main if "-robot-" in name}
    assert section["hand_first"] == max(shown) + 1
    modest = simulated(CPU, main_only=True)
    assert {name for name in of_main if int(name[-3:]) < modest[f"{name.split('-')[-2]}_episodes"]} == of_main
    counts = ("robot_episodes", "hand_episodes")
    assert all(modest[name] < section[name] for name in counts)
    assert {**modest, **{name: section[name] for name in counts}} == section  # so an episode of a name is the same
    assert section["labelled_episodes"] >= CPU.judged + max(row.clips.labelled for row in ROWS.values())


def test_a_row_learns_from_the_episodes_that_its_numbers_say() -> None:
    found = names(MAIN_ROW.clips, CPU)
    assert len(found[LABELLED]) == 3 * 5 and len(found[JUDGED]) == CPU.judged * 17
    assert sum(name.startswith("drawer-open-v3-") for name in found[VIDEOS]) == 40
    assert sum(name.startswith("drawer-close-v3-") for name in found[VIDEOS]) == 40 - 3
    together = [name for chosen_ in found.values() for name in chosen_]
    assert len(together) == len(set(together))
    without = names(ROWS["labelled_videos"].clips, CPU)
    learnt = {name.rsplit("-", 2)[0] for source in (LABELLED, VIDEOS) for name in without[source]}
    assert learnt == set(CPU.labelled_tasks)
    assert not any("-hand-" in n for s in SOURCES for n in names(ROWS["robot_only"].clips, CPU)[s])
    assert not any("-robot-" in name for name in names(ROWS["human_only"].clips, CPU)[VIDEOS])
    assert len(names(ROWS["oracle"].clips, CPU)[LABELLED]) == 3 * 17
    assert sum(name.startswith("push-v3-") for name in names(ROWS["videos_5"].clips, CPU)[VIDEOS]) == 5
    pool = names(stock(ROWS["robot_only"], SMOKE), SMOKE)
    assert sum(name.startswith("button-press-topdown-v3-robot-") for name in pool[VIDEOS]) == SMOKE.robot


def test_rows_with_the_same_episodes_are_extracted_together_and_others_go_on_from_main() -> None:
    for row in ROWS.values():
        pool, own = names(stock(row, CPU), CPU), names(row.clips, CPU)
        assert pool[LABELLED] == own[LABELLED]
        assert all(set(own[source]) <= set(pool[source]) for source in SOURCES), row.name
    digests = {name: plan(ROWS[name], "rgbd", 0, CPU).steps["extract"].digest for name in ROWS}
    assert digests[MAIN] == digests["videos_5"] == digests["labelled_videos"]
    more = ("robot_only", "human_only", "labelled_1", "labelled_5", "oracle")
    assert len({digests[name] for name in (MAIN, *more)}) == 1 + len(more)  # none waits for what it does not need
    goes_on = {name for name in ROWS if "extract_of_main" in plan(ROWS[name], "rgbd", 0, CPU).steps}
    assert goes_on == {*more, "labelled_10", "as_hand"}  # the looks of a robot are learned once


def test_steps_are_shared_exactly_where_nothing_that_decides_them_differs() -> None:
    def digests(name: str, seed: int = 0, chain: Sensors = "rgbd", budget: suite.Budget = CPU) -> dict[str, str]:
        return {step: found.digest for step, found in plan(ROWS[name], chain, seed, budget).steps.items()}

    def differing(one: dict[str, str], other: dict[str, str]) -> set[str]:
        return {step for step in one if one[step] != other.get(step)}

    main = digests(MAIN)
    assert main == digests(MAIN)
    assert differing(main, digests("p_controller")) == {"rollout"}
    assert differing(main, digests(MAIN, budget=replace(CPU, episodes=5))) == {"rollout"}
    assert differing(main, digests("direct")) == {"align", "rollout"}
    assert differing(digests("human_only"), digests("as_hand")) == {"align", "rollout"}
    assert differing(main, digests(MAIN, seed=1)) == {"pretrain", "judge", "align", "rollout"}
    assert differing(main, digests("tracks2d")) == {"pretrain", "judge", "align", "rollout"}
    assert differing(main, digests("videos_5")) == {"pack", "pretrain", "judge", "align", "rollout"}
    assert differing(main, digests(MAIN, chain="truth")) == set(main) - {"simulate"}
    every = {plan(row, chain, 0, CPU).fingerprint for row in ROWS.values() for chain in row.chains}
    assert len(every) == sum(len(row.chains) for row in ROWS.values())


def test_sections_are_the_budgets_with_the_rows_on_top() -> None:
    assert merged({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}) == {"a": {"b": 3, "c": 2}}
    found = sections(ROWS["points200"], "rgbd", SMOKE)
    assert found["pretrain"]["window"]["points"] == found["align"]["points"] == 200
    assert found["pretrain"]["window"]["image_size"] == SMOKE.pretrain["window"]["image_size"] == 64
    assert sections(ROWS["p_controller"], "rgbd", CPU)["rollout"]["control"] == "p_controller"
    assert sections(MAIN_ROW, "rgbd", CPU)["align"]["head"] == "inverse_dynamics"
    assert sections(ROWS["direct"], "truth", SMOKE)["rollout"]["tasks"] == list(SMOKE.tasks)
    for name in sections(MAIN_ROW, "truth", CPU)["pretrain"], sections(MAIN_ROW, "truth", CPU)["simulate"]:
        json.dumps(name)


def test_code_is_what_is_imported_and_a_change_of_it_changes_only_what_it_decides(tmp_path: Path) -> None:
    assert set(code.ENTRIES) == set(DOERS)
    names_of = {step: set(reached(entries, code.ROOT, code.decides)) for step, entries in code.ENTRIES.items()}
    trunk, window, source = "pretrain.model.compact:CompactTrunk", "data.config:WindowConfig", "data.config:Source"
    assert all({trunk, window} <= names_of[step] and source not in names_of[step] for step in ("pretrain", "align"))
    assert "data.simulation.metaworld:record_expert" in names_of["simulate"] and source in names_of["extract"]
    assert not any(name.startswith("data.loader:") for name in names_of["simulate"])
    assert not any("report" in name for name in names_of["pretrain"])
    assert all("data.pictures:decoded" in names_of[step] for step in ("pack", "pretrain", "align"))
    assert all(code.ROOT.joinpath(*module.split(".")).with_suffix(".py").exists() for module in code.REPORTS)
    for package in ("data", "extract", "pretrain", "align", "tests"):
        shutil.copytree(code.ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    steps = ("simulate", "extract", "pretrain", "align")
    before = {step: code_digest(step, tmp_path) for step in steps}
    assert before == {step: code_digest(step) for step in steps}
    objectives = tmp_path / "pretrain" / "objectives.py"
    text = objectives.read_text()
    assert text.startswith('"""The terms')
    objectives.write_text(text.replace('"""The terms', '# a comment\n"""Other words for the terms', 1))
    assert before == {step: code_digest(step, tmp_path) for step in steps}
    objectives.write_text(objectives.read_text() + "\n\ndef nobody_calls():\n    ...\n")
    assert before == {step: code_digest(step, tmp_path) for step in steps}
    text = objectives.read_text()
    assert "weights: ObjectiveSettings) -> Loss:" in text
    objectives.write_text(
        text.replace("weights: ObjectiveSettings) -> Loss:", "weights: ObjectiveSettings, more=0) -> Loss:")
    )
    (tmp_path / "pretrain" / "report.py").open("a").write("\nCHANGED = True\n")
    (tmp_path / "tests" / "benchmarks" / "out_of_action" / "rows.py").open("a").write("\nCHANGED = True\n")
    after = {step: code_digest(step, tmp_path) for step in steps}
    assert {step for step in steps if before[step] != after[step]} == {"pretrain", "align"}


def labelled_clip(number: int, task: str, labelled: bool) -> Clip:
    clip = moving_clip(number, labelled=labelled)
    meta = clip.meta.model_copy(update={"task": task, "episode_id": f"{task}-{number}"})
    return replace(clip, meta=meta)


def test_an_action_of_a_video_only_task_or_one_too_many_is_refused_by_name(tmp_path: Path) -> None:
    shard = tmp_path / "train-00000.tar"
    write_shard(shard, [labelled_clip(n, "drawer-close-v3", n < 2) for n in range(4)])
    assert check_labels([shard], {"drawer-close-v3": 2}) == {"drawer-close-v3": 2}
    with pytest.raises(UserError, match="2 labelled episodes, 1 are allowed"):
        check_labels([shard], {"drawer-close-v3": 1})
    write_shard(tmp_path / "val-00000.tar", [labelled_clip(9, "push-v3", True)])
    with pytest.raises(UserError, match=r"val-00000.*'push-v3'.*0 are allowed"):
        check_labels([shard, tmp_path / "val-00000.tar"], {"drawer-close-v3": 2})


def test_a_row_whose_clips_hold_a_forbidden_action_never_gets_to_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = fake_doers(monkeypatch)

    def leak(runner: Runner, step: Any, folder: Path) -> None:
        (folder / "pack").mkdir(parents=True)
        write_shard(folder / "pack" / "train-00000.tar", [labelled_clip(1, "drawer-open-v3", True)])

    monkeypatch.setitem(DOERS, "pack", leak)
    runner = Runner(tmp_path, say=lambda line: None)
    for _ in range(2):  # also when the clips were packed before
        with pytest.raises(UserError, match="drawer-open-v3"):
            runner.run(plan(MAIN_ROW, "truth", 0, SMOKE))
    assert "extract" in done and "pretrain" not in done


def fake_doers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Steps that do nothing but say so."""
    done: list[str] = []
    for name in DOERS:
        monkeypatch.setitem(DOERS, name, lambda runner, step, folder: done.append(step.name))
    return done


def test_an_interrupted_row_goes_on_where_it_was_and_rows_share_what_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, runner = fake_doers(monkeypatch), Runner(tmp_path, say=lambda line: None)

    def fail(runner: Runner, step: Any, folder: Path) -> None:
        raise KinecloudError("killed")

    with monkeypatch.context() as broken:
        broken.setitem(DOERS, "align", fail)
        with pytest.raises(KinecloudError, match="killed"):
            runner.run(plan(MAIN_ROW, "truth", 0, SMOKE))
    assert done == ["simulate", "episodes", "extract", "pack", "pack", "pretrain", "judge"]
    done.clear()
    (go,) = (tmp_path / "align").glob("*/go.json")
    go.write_text(json.dumps({"began": time.time() - 90, "before": 30}))  # killed twice, after 30 seconds and after 90
    seconds = runner.run(plan(MAIN_ROW, "truth", 0, SMOKE))
    assert 120 <= seconds["align"] < 130
    assert done == ["align", "rollout"] and set(seconds) >= {"simulate", "rollout"}
    done.clear()
    runner.run(plan(ROWS["p_controller"], "truth", 0, SMOKE))
    assert done == ["rollout"]


def test_rows_side_by_side_wait_for_what_they_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done, runner = fake_doers(monkeypatch), Runner(tmp_path, say=lambda line: None)

    def slow(runner: Runner, step: Any, folder: Path) -> None:
        done.append(step.name)
        time.sleep(0.2)

    monkeypatch.setitem(DOERS, "simulate", slow)
    plans = [plan(ROWS[name], "truth", 0, SMOKE) for name in (MAIN, "labelled_videos")]
    with ThreadPoolExecutor(2) as pool:
        assert len(list(pool.map(runner.run, plans))) == 2
    assert done.count("simulate") == done.count("extract") == 1


@pytest.mark.parametrize("labelled", [False, True])
def test_only_labelled_episodes_keep_what_tells_their_actions(tmp_path: Path, labelled: bool) -> None:
    folder, out = tmp_path / "from", tmp_path / "to"
    folder.mkdir()
    out.mkdir()
    arrays = {name: np.ones((2, 4), np.float32) for name in ("depth", "actions", "proprio", "base_from_effector")}
    np.savez(folder / "e.npz", **arrays)  # pyright: ignore[reportArgumentType]
    (folder / "e.mp4").write_bytes(b"video")
    sidecar = {"arrays": "e.npz", "labelled": True, "action_spec": {"names": ["dx"]}, "task": "push-v3", "group": "g"}
    (folder / "e.json").write_text(json.dumps(sidecar))
    put(folder, "e", out, labelled)
    stored, told = set(np.load(out / "e.npz").files), json.loads((out / "e.json").read_text())
    assert stored == (set(arrays) if labelled else {"depth"})
    assert told["labelled"] is labelled and (told["action_spec"] is not None) is labelled
    assert told["group"] == ("push-v3-labelled" if labelled else "g")
    assert set(np.load(folder / "e.npz").files) == set(arrays)  # what was recorded stays as it is
    if labelled:
        (folder / "e.json").write_text(json.dumps(sidecar | {"labelled": False}))
        with pytest.raises(UserError, match="actions are needed"):
            put(folder, "e", tmp_path / "again", labelled)


def recorded(folder: Path, name: str, labelled: bool) -> None:
    """What the simulator leaves of an episode, in small."""
    arrays = {"depth": np.ones((2, 4, 4), np.uint16), "mask": np.ones((2, 4, 4), bool)}
    if labelled:
        arrays |= {key: np.ones((2, 4), np.float32) for key in ("actions", "proprio", "base_from_effector")}
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / f"{name}.npz", **arrays)  # pyright: ignore[reportArgumentType]
    (folder / f"{name}.mp4").write_bytes(b"video")
    embodiment = "human-hand" if "-hand-" in name else "sawyer-gripper"
    sidecar = {"arrays": f"{name}.npz", "labelled": labelled, "action_spec": {} if labelled else None, "group": name,
               "task": name.rsplit("-", 2)[0], "embodiment": embodiment, "effector": "mask"}  # fmt: skip
    (folder / f"{name}.json").write_text(json.dumps(sidecar))


@pytest.mark.parametrize("chain", suite.CHAINS)
@pytest.mark.parametrize("oracle", [False, True])
def test_what_a_row_is_given_has_its_labels_its_sensors_and_nothing_more(
    tmp_path: Path, chain: Sensors, oracle: bool
) -> None:
    budget = replace(SMOKE, labelled_tasks=("faucet-close-v3",), video_only_tasks=("faucet-open-v3",))
    clips = Clips(labelled=1, seen=(2, 1), unseen=(2, 1), oracle=oracle)
    section = simulated(budget, main_only=False)
    for task in budget.tasks:
        for number in range(section["robot_episodes"]):
            with_actions = task in budget.labelled_tasks and number < section["labelled_episodes"]
            recorded(tmp_path / "all", f"{task}-robot-{number:03d}", with_actions)
            recorded(tmp_path / "again", f"{task}-robot-{number:03d}", True)
        recorded(tmp_path / "all", f"{task}-hand-000", False)
    gather(tmp_path / "all", tmp_path / "again", clips, budget, chain, tmp_path / "given")
    found = {source: {p.stem for p in (tmp_path / "given" / source).glob("*.json")} for source in SOURCES}
    assert found == {source: set(chosen_) for source, chosen_ in names(clips, budget).items()}
    assert found[LABELLED] == {f"{task}-robot-001" for task in (budget.tasks if oracle else budget.labelled_tasks)}
    assert {path.name for path in (tmp_path / "given").iterdir()} == set(SOURCES)
    for source in SOURCES:
        for path in (tmp_path / "given" / source).glob("*.npz"):
            stored, told = set(np.load(path).files), json.loads(path.with_suffix(".json").read_text())
            assert ("actions" in stored) == told["labelled"] == (source == LABELLED)
            assert not stored & set(RECORDED) or source == LABELLED
            assert ("mask" in stored) == (chain == "truth") and ("depth" in stored) == (chain != "rgb")
    (tmp_path / "all" / "faucet-open-v3-hand-000.json").unlink()
    with pytest.raises(UserError, match="1 episodes are missing, the first is faucet-open-v3-hand-000"):
        gather(tmp_path / "all", tmp_path / "again", clips, budget, chain, tmp_path / "once-more")


def episode(source: str, stem: str) -> Episode:
    return Episode.model_construct(source=source, path=Path(f"{stem}.mp4"))


def test_judged_episodes_are_never_learnt_from() -> None:
    found = names(MAIN_ROW.clips, CPU)
    index = [episode(source, name) for source in SOURCES for name in found[source]]
    index.append(episode(VIDEOS, "push-v3-robot-099"))
    learnt, judged = (chosen(index, MAIN_ROW.clips, CPU, judged=judged) for judged in (False, True))
    assert {e.source for e in judged} == {JUDGED} and not {e.path for e in judged} & {e.path for e in learnt}
    assert len(learnt) == len(index) - 1 - len(judged)
