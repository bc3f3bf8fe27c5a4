"""Shards as archives: what was cut off, damaged or put in twice is named, never read as a shorter or another shard."""

from __future__ import annotations

import dataclasses
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from data.archive import all_files
from data.clips import Clip, Shard, sample_of, verify, write_samples, write_shard
from data.config import WindowConfig
from data.loader import WindowDataset
from pipeline.errors import UserError

BLOCK = 512
WINDOW = WindowConfig(points=16, image_size=64)
Make = Callable[..., Clip]


@pytest.fixture
def shard(make_clip: Make, tmp_path: Path) -> Path:
    write_shard(tmp_path / "a.tar", [make_clip(number, frames=12) for number in range(3)])
    return tmp_path / "a.tar"


def require_named(path: Path, message: str) -> None:
    """``verify`` says it in one line, and neither packing nor training reads the shard."""
    (line,) = verify([path])
    assert line.startswith(f"{path}: ") and message in line
    for read in (Shard, lambda path: WindowDataset([path], WINDOW)):
        with pytest.raises(UserError) as error:
            read(path)
        assert str(error.value) == line


def as_written(path: Path, format: int) -> bytes:
    """The files of a shard in an archive of another format, without its end."""
    buffer = io.BytesIO()
    with tarfile.open(path) as source, tarfile.open(fileobj=buffer, mode="w", format=format) as target:
        for member in source:
            target.addfile(member, source.extractfile(member))
        return buffer.getvalue()[: target.offset]


def test_every_place_between_two_files_is_too_early_to_end(shard: Path) -> None:
    whole, files = shard.read_bytes(), all_files(shard)[0]
    for header in [
        0,
        *(file.header for file in files[1:]),
        files[-1].content + 1,
        files[-1].content + files[-1].length,
    ]:
        shard.write_bytes(whole[:header])
        require_named(shard, "truncated")


@pytest.mark.parametrize(
    "damage",
    [
        bytes(BLOCK),  # which is how an archive ends
        b"\0",
        b"z",  # a key that none of the clips has
    ],
)
def test_a_damaged_header_ends_no_shard(shard: Path, damage: bytes) -> None:
    whole = shard.read_bytes()
    for file in all_files(shard)[0][1::7]:
        shard.write_bytes(whole[: file.header] + damage + whole[file.header + len(damage) :])
        require_named(shard, f"at byte {file.header} begins neither")


def test_every_bit_of_a_header_is_guarded(shard: Path) -> None:
    """By its checksum, behind which stand two bytes that say nothing."""
    whole, file = shard.read_bytes(), all_files(shard)[0][20]
    for at in (*range(154), 156, 257, 300, 345, BLOCK - 1):
        changed = bytearray(whole)
        changed[file.header + at] ^= 1
        shard.write_bytes(changed)
        assert verify([shard]), f"byte {at}"


def test_two_archives_in_one_file_are_refused(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes() * 2)
    require_named(shard, "begins neither a file nor the end")


def test_archives_of_other_writers_and_empty_ones_are_sound(shard: Path, tmp_path: Path) -> None:
    keys, whole = Shard(shard).keys, shard.read_bytes()
    for format in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        for end in (BLOCK, 2 * BLOCK, 2**21):  # some write two blocks and no more, some fill up
            (tmp_path / "other.tar").write_bytes(as_written(shard, format) + bytes(end))
            assert verify([tmp_path / "other.tar"]) == [] and Shard(tmp_path / "other.tar").keys == keys
    write_samples(tmp_path / "empty.tar", [])
    assert Shard(tmp_path / "empty.tar").keys == [] == verify([tmp_path / "empty.tar"])
    assert shard.read_bytes() == whole


@pytest.mark.parametrize("between", [0, 1])
def test_a_key_stands_once(make_clip: Make, tmp_path: Path, between: int) -> None:
    twin = dataclasses.replace(make_clip(1), key=make_clip(0).key)
    write_shard(tmp_path / "a.tar", [make_clip(0), *[make_clip(2)] * between, twin])
    require_named(tmp_path / "a.tar", f"clip {twin.key}")
    require_named(tmp_path / "a.tar", "stands twice")


def test_a_file_stands_once(make_clip: Make, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in [*sample_of(make_clip(0)).items(), ("0003.jpg", make_clip(1).images[3])]:
            if isinstance(content, bytes):
                info = tarfile.TarInfo(f"{make_clip(0).key}.{name}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    require_named(tmp_path / "a.tar", f"clip {make_clip(0).key}: 0003.jpg stands twice")


def test_a_file_of_less_than_nothing_ends_the_reading(shard: Path) -> None:
    """Its length in two's complement, as GNU writes large ones: tarfile would read the same header for ever."""
    whole, file = bytearray(shard.read_bytes()), all_files(shard)[0][5]
    header = bytearray(whole[file.header : file.content])
    header[124:136] = (-BLOCK).to_bytes(12, "big", signed=True)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    whole[file.header : file.content] = header
    shard.write_bytes(whole)
    require_named(shard, "cannot be read as a shard")
