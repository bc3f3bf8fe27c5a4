"""Units of work: nothing half-written counts, nothing finished is done again, nothing foreign is mixed in."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pipeline.atomic import publishing, publishing_dir, remove_leftovers, write_json
from pipeline.errors import Refused, UserError
from pipeline.fingerprint import differences, is_done, mark_done
from pipeline.units import UnitStore, finished_shards


def finish(store: UnitStore, name: str, content: bytes) -> None:
    unit = next(unit for unit in store.plan([], 2) if unit.name == name)
    with publishing(store.shard(unit)) as temporary:
        temporary.write_bytes(content)
    store.complete(unit, samples=1, rejections=[])


def test_plan_is_fixed_and_only_grows(tmp_path: Path) -> None:
    store = UnitStore(tmp_path, {"a": 1})
    first = store.plan(["v1", "v2", "v3"], per_unit=2)
    assert [unit.items for unit in first] == [("v1", "v2"), ("v3",)]
    again = UnitStore(tmp_path, {"a": 1}).plan(["v0", "v3", "v4"], per_unit=5)
    assert [unit.items for unit in again] == [("v1", "v2"), ("v3",), ("v0", "v4")]


def test_unit_is_finished_only_with_whole_shard_and_sidecar(tmp_path: Path) -> None:
    store = UnitStore(tmp_path, {"a": 1})
    unit = store.plan(["v1"], 1)[0]
    assert store.finished(unit) is None
    store.shard(unit).write_bytes(b"whole")
    assert store.finished(unit) is None, "a shard without sidecar is not finished"
    finish(store, unit.name, b"whole")
    assert store.finished(unit)
    store.shard(unit).write_bytes(b"who")
    assert store.finished(unit) is None, "a shard of another size is not finished"
    with pytest.raises(UserError, match="3 bytes"):
        finished_shards(tmp_path)


def test_other_configuration_is_refused_with_the_differing_keys(tmp_path: Path) -> None:
    UnitStore(tmp_path, {"config": {"rate": 10, "same": 1}})
    with pytest.raises(Refused, match=r"config\.rate: 10 -> 20") as caught:
        UnitStore(tmp_path, {"config": {"rate": 20, "same": 1}})
    assert "same" not in str(caught.value)
    assert caught.value.exit_code == 4


def test_interrupted_writing_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), publishing(tmp_path / "x.tar") as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    with pytest.raises(RuntimeError), publishing_dir(tmp_path / "folder") as folder:
        (folder / "half").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_leftovers_are_removed_but_not_what_others_write_nor_what_only_looks_like_it(tmp_path: Path) -> None:
    gone, alive = 2**22 + 1, os.getppid()
    for name in (
        f"a.tar.tmp-{gone}",
        f"b.tmp-{gone}-old",
        f"a.tar.tmp-{alive}",
        f"b.tar.tmp-{alive}",
        "notes.tmp-copy",
    ):
        (tmp_path / name).touch()
    os.utime(tmp_path / f"b.tar.tmp-{alive}", (1, 1))  # of a process that had this number before
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a.tar.tmp-{alive}", "notes.tmp-copy"]


def test_a_folder_behind_a_link_is_replaced_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "old").touch()
    (tmp_path / "pack").symlink_to(tmp_path / "large")
    with publishing_dir(tmp_path / "pack") as folder:
        (folder / "new").touch()
    assert (tmp_path / "pack").is_symlink() and [path.name for path in (tmp_path / "large").iterdir()] == ["new"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["large", "pack"]


def test_what_killed_writers_left_of_a_folder_goes_but_never_its_only_whole_one(tmp_path: Path) -> None:
    gone = 2**22 + 1  # beyond any process of Linux
    for name in (
        f"pack.tmp-{gone}",
        f"pack.tmp-{gone}-old",
        f"packed.tmp-{gone}",
        f"pack.tmp-{os.getppid()}",
        "pack.tmp-x",
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    with pytest.raises(RuntimeError), publishing_dir(tmp_path / "pack"):
        assert (tmp_path / "pack" / f"pack.tmp-{gone}-old").exists()  # killed between its two renames
        raise RuntimeError
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == sorted(["pack", f"packed.tmp-{gone}", f"pack.tmp-{os.getppid()}", "pack.tmp-x"])


def test_published_folder_replaces_the_old_one_whole(tmp_path: Path) -> None:
    for name in ("old", "new"):
        with publishing_dir(tmp_path / "folder") as folder:
            (folder / name).write_text(name)
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_leftovers_of_killed_writers_are_removed(tmp_path: Path) -> None:
    (tmp_path / "unit-00000.tar.tmp-4194305").write_bytes(b"half")
    UnitStore(tmp_path, {})
    assert not list(tmp_path.glob("*.tmp-*"))


def test_completion_mark(tmp_path: Path) -> None:
    assert not is_done(tmp_path, {"steps": 1})
    mark_done(tmp_path, {"steps": 1})
    assert is_done(tmp_path, {"steps": 1})
    with pytest.raises(Refused, match="steps: 1 -> 2"):
        is_done(tmp_path, {"steps": 2})


def test_json_never_holds_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert not (tmp_path / "x.json").exists()


def test_differences_name_absent_keys() -> None:
    assert differences({"a": {"b": 1}}, {"a": {}, "c": 2}) == ["a.b: 1 -> (absent)", "c: (absent) -> 2"]
    assert differences(json.loads('{"a": [1, 2]}'), {"a": [1, 2]}) == []


def test_a_result_that_follows_its_input_is_made_again_but_not_with_other_settings(tmp_path: Path) -> None:
    mark_done(tmp_path, {"steps": 1, "input": "a"})
    assert is_done(tmp_path, {"steps": 1, "input": "a"}, follows=["input"])
    assert not is_done(tmp_path, {"steps": 1, "input": "b"}, follows=["input"])
    with pytest.raises(Refused, match="steps: 1 -> 2"):
        is_done(tmp_path, {"steps": 2, "input": "b"}, follows=["input"])
