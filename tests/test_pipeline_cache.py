"""Copies of remote files: whole or not there, made once, within the limit, never taken from under a reader."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from pipeline.cache import HELD, Cache
from pipeline.errors import UserError

SIZE = 1000


def name(number: int, size: int = SIZE) -> str:
    return Cache.name(f"{number:040x}", size, ".mp4")


def writing(content: bytes):
    return lambda part: part.write_bytes(content)


def made(cache: Cache, number: int) -> Path:
    cache.make(name(number), SIZE, writing(bytes([number]) * SIZE))
    path = cache.held(name(number))
    assert path is not None
    return path


def stored(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.glob("??/*")}


def test_a_copy_that_fails_leaves_nothing(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 10 * SIZE)

    def fail(part: Path) -> None:
        part.write_bytes(b"half")
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        cache.make(name(1), SIZE, fail)
    assert not stored(tmp_path) and cache.held(name(1)) is None
    assert made(cache, 1).read_bytes() == b"\1" * SIZE


def test_who_comes_second_waits_for_the_copy_of_the_first(tmp_path: Path) -> None:
    one, other = Cache(tmp_path, 10 * SIZE), Cache(tmp_path, 10 * SIZE)  # as two processes have them
    begun, waiting, fetched = threading.Event(), threading.Event(), []

    def fetch(part: Path) -> None:
        fetched.append(part)
        part.write_bytes(b"a" * SIZE)
        begun.set()
        assert waiting.wait(20)

    first = threading.Thread(target=one.make, args=(name(1), SIZE, fetch))
    first.start()
    assert begun.wait(20)
    other.make(name(1), SIZE, fetch, alive=waiting.set)
    first.join()
    assert len(fetched) == 1 and stored(tmp_path) == {Path(name(1)).name: SIZE}
    path = other.held(name(1))
    assert path is not None and path.read_bytes() == b"a" * SIZE


def test_signs_of_life_come_while_a_copy_is_made(tmp_path: Path) -> None:
    alive = threading.Event()

    def fetch(part: Path) -> None:
        part.write_bytes(b"a")
        assert alive.wait(20)

    Cache(tmp_path, 10 * SIZE).make(name(1), SIZE, fetch, alive.set)


def test_the_least_recently_used_goes_first_and_what_is_held_stays(tmp_path: Path) -> None:
    reader, cache = Cache(tmp_path, 4 * SIZE), Cache(tmp_path, 4 * SIZE)
    for number in range(4):
        path = made(reader if number == 0 else cache, number)
        os.utime(path, (number, number))
    cache.let_go()
    assert cache.held(name(1)) is not None, "used again, so that 2 is the oldest"
    cache.let_go()
    for number in range(4, 7):
        made(cache, number)
        assert sum(stored(tmp_path).values()) <= 4 * SIZE
    left = set(stored(tmp_path))
    assert Path(name(0)).name in left, "in use by another process"
    assert Path(name(2)).name not in left and Path(name(6)).name in left
    reader.let_go()
    for number in range(7, 11):
        made(cache, number)
    assert Path(name(0)).name not in stored(tmp_path) and len(stored(tmp_path)) <= 4


def test_own_older_copies_give_way_and_the_limit_holds(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 3 * SIZE)
    for number in range(2 * HELD):
        assert made(cache, number).read_bytes()[0] == number
        assert sum(stored(tmp_path).values()) <= 3 * SIZE


def test_beginnings_of_the_dead_and_wrong_accounts_do_no_harm(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 3 * SIZE)
    made(cache, 1)
    cache.let_go()
    (tmp_path / "used").write_text("nonsense")
    part = tmp_path / (name(2) + ".part")
    part.parent.mkdir(exist_ok=True)
    part.write_bytes(b"half")
    made(cache, 3)
    assert not part.exists() and set(stored(tmp_path)) == {Path(name(1)).name, Path(name(3)).name}


def test_the_limit_holds_for_files_whose_size_no_service_tells(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 3 * SIZE)
    for number in range(9):
        cache.make(name(number, 0), 0, writing(bytes(SIZE)))
        assert sum(stored(tmp_path).values()) <= 3 * SIZE
    with pytest.raises(UserError, match="cache_gb"):
        cache.make(name(9, 0), 0, writing(bytes(4 * SIZE)))
    assert Path(name(9, 0)).name not in stored(tmp_path)


def test_what_never_fits_is_told_with_the_setting(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cache_gb"):
        Cache(tmp_path, 100).make(name(1), SIZE, writing(b""))
