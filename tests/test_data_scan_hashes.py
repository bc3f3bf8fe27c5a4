"""Hashes are remembered as they are made, whatever a crash left of the last line."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from data.scan import hashes
from data.scan.hashes import Hashes


def test_nothing_is_hashed_twice_after_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / name for name in "abc"]
    for path in files:
        path.write_text(path.name)
    cache = tmp_path / "hashes.jsonl"
    with Hashes(cache) as known:
        first = [known.sha256(path) for path in files[:2]]
    assert first == [hashlib.sha256(name.encode()).hexdigest() for name in "ab"]
    cache.write_bytes(cache.read_bytes()[:-20])  # killed while the second was written
    done: list[str] = []
    real = hashes.file_sha256
    monkeypatch.setattr(hashes, "file_sha256", lambda path: done.append(path.name) or real(path))
    for _ in range(2):
        with Hashes(cache) as known:
            again = [known.sha256(path) for path in files]
    assert again[:2] == first and done == ["b", "c"]


def test_a_file_that_changed_is_hashed_again(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("one")
    with Hashes(tmp_path / "hashes.jsonl") as known:
        before = known.sha256(path)
        path.write_text("two")
        os.utime(path, ns=(1, 1))
        assert known.sha256(path) != before
