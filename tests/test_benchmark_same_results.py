"""A change of the code that changes no result: shown byte by byte, it does not make results stale."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from pipeline.errors import KinecloudError
from pipeline.fingerprint import mark_done
from tests.benchmarks.out_of_action import same_results
from tests.benchmarks.out_of_action.code import code_digest, own_digest, same_code, snapshot
from tests.benchmarks.out_of_action.page import page
from tests.benchmarks.out_of_action.same_results import compared, record
from tests.benchmarks.out_of_action.suite import SMALL

TOLD = {"before": "abc", "budget": "small", "rows": {"rgbd": ["main", "grid"], "rgb": ["main"]}, "date": "2026-01-02"}


def test_code_that_gives_the_same_counts_as_the_former_until_it_changes_again(tmp_path: Path) -> None:
    source = tmp_path / "data" / "pack.py"
    source.parent.mkdir()
    (tmp_path / "tests" / "benchmarks" / "out_of_action").mkdir(parents=True)

    def written(text: str) -> str:
        source.unlink(missing_ok=True)
        source.write_text(f"def pack():\n    return {text}\n")
        return code_digest("pack", tmp_path)

    former, other = written("1 + 1"), code_digest("align", tmp_path)
    changed = written("2")
    assert changed != former
    record({"pack": (former, changed)}, TOLD, tmp_path)
    assert code_digest("pack", tmp_path) == former == written("1 + 1")
    assert code_digest("align", tmp_path) == other
    again = written("4 // 2")
    assert again not in (former, changed)
    later = TOLD | {"before": "def"}
    record({"pack": (former, again)}, later, tmp_path)  # "def" counted as the former, too
    assert code_digest("pack", tmp_path) == former and same_code(tmp_path)["pack"]["shown"] == [TOLD, later]
    record({"pack": (former, again)}, TOLD, tmp_path)  # at once, without a step between
    assert same_code(tmp_path)["pack"]["shown"] == [TOLD]
    record({}, TOLD, tmp_path)
    assert list(same_code(tmp_path)) == ["pack"]  # it still holds
    written("3")
    record({}, TOLD, tmp_path)
    assert same_code(tmp_path) == {}


def test_steps_are_alike_when_every_file_that_is_read_of_them_is(tmp_path: Path) -> None:
    def made(name: str, step: str, code: str, files: dict[str, bytes]) -> Path:
        folder = tmp_path / name
        for file, content in files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(content)
        folder.mkdir(exist_ok=True)
        mark_done(folder, {"step": step, "code": code})
        return folder

    def verdict(step: str, **contents: dict[str, bytes]) -> tuple[dict[str, tuple[str, str]], list[str]]:
        pairs = {name: made(f"{step}-{name}", step, name[:1], files) for name, files in contents.items()}
        return compared({"row": pairs["a"]}, {"row": pairs["b"]})

    clips, log = {"pack/train-00000.tar": b"clips"}, {"log.txt": b"12 s"}
    assert verdict("pack", a=clips, b=clips | log) == ({"pack": ("a", "b")}, [])
    weights = {"align/model/model.safetensors": b"weights"}
    same, differing = verdict("align", a=weights, b={"align/model/model.safetensors": b"others"})
    assert same == {} and "row: align/model/model.safetensors differ" in differing[0]
    assert verdict("judge", a={"judged.json": b"{}"}, b={})[1]
    assert verdict("rollout", a=log, b=log)[1]  # nothing to compare shows nothing
    unchanged = made("one", "grid", "a", {})
    assert compared({"row": unchanged}, {"row": unchanged}) == ({}, [])
    # a step that is alike in one row and differs in another is not alike
    both = (
        {"x": tmp_path / "pack-a", "y": tmp_path / "align-a"},
        {"x": tmp_path / "pack-b", "y": tmp_path / "align-b"},
    )
    assert list(compared(*both)[0]) == ["pack"]


def test_what_was_shown_of_changed_code_does_not_stand_in_for_running_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = {step: {"code": own_digest(step), "as": "0"} for step in ("pack", "align")}
    monkeypatch.setattr(same_results, "same_code", lambda: shown)
    monkeypatch.setattr(same_results, "own_digest", lambda step, *root: step if root or step == "pack" else "changed")
    assert list(same_results.shown_of_others(tmp_path)) == ["pack"]
    taken = snapshot(tmp_path, {"pack": shown["pack"]})
    assert code_digest("pack", taken) == "0" and code_digest("align", taken) == own_digest("align")
    assert snapshot(tmp_path, {}) != taken != snapshot(tmp_path)


def test_a_chain_that_was_not_measured_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = same_results.asked(["main", "direct"], ["rgbd", "rgb"], SMALL)
    assert pairs == [("main", "rgbd"), ("main", "rgb"), ("direct", "rgbd")]
    chains = {"rgbd": {"0": {"steps": {}}}}
    monkeypatch.setattr(same_results.subprocess, "run", lambda *_, **__: None)
    monkeypatch.setattr(same_results, "read_row", lambda results, budget, row: chains)
    arguments = argparse.Namespace(work=tmp_path, budget="small", rows=["main"], chains=["rgbd", "rgb"])
    with pytest.raises(KinecloudError, match=r"main \(rgb\) was not measured"):
        same_results.measured(tmp_path, pairs, arguments)


def test_the_page_tells_what_was_changed_and_how_it_was_shown_to_change_nothing() -> None:
    same_code = {step: {"code": "1", "as": "0", "shown": [TOLD]} for step in ("pack", "align")}
    tasks = {"labelled": ["a-v3"], "video_only": ["b-v3"]}
    facts = {"tasks": tasks, "resolution": 96, "episodes": 1, "same_code": same_code}
    figures = {"budget": "cpu", "facts": facts, "rows": [], "acceptance": [], "ablations": [], "curves": {}}
    told = " ".join(page(figures, "x").split())
    assert "Code of align, pack was changed after commit abc" in told
    assert "with that of 2026-01-02" in told and "(rows of chain rgbd: main, grid; rgb: main;" in told
