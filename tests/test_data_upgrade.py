"""Shards of older schema versions are brought up: nothing but the version and what it could not say changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.clips import Clip, Shard, sample_of, verify, write_samples
from data.upgrade import targets, upgrade
from pipeline.errors import UserError


def write_version_1(path: Path, clips: list[Clip], **changes: Any) -> Path:
    """What the first release wrote: no camera_motion, schema_version 1."""
    samples = []
    for clip in clips:
        sample = sample_of(clip)
        meta = json.loads(sample["meta.json"])
        del meta["camera_motion"]
        sample["meta.json"] = json.dumps({**meta, "schema_version": 1, **changes}).encode()
        samples.append(sample)
    write_samples(path, samples)
    return path


def test_old_shards_are_refused_with_the_remedy_and_then_read(tmp_path: Path, make_clip: Callable[..., Clip]) -> None:
    clips = [make_clip(1), make_clip(2)]
    clips[1].arrays["world_from_camera"][3:, 0, 3] = 0.25
    old = write_version_1(tmp_path / "old.tar", clips)
    assert any("python -m data upgrade" in line for line in verify([old]))
    with pytest.raises(UserError, match=r"schema_version 1, this release reads 3"):
        Shard(old).clip(clips[0].key)

    assert upgrade(old, tmp_path / "new" / "old.tar") == 2
    new = Shard(tmp_path / "new" / "old.tar")
    assert verify([new.path]) == []
    assert [new.meta(key).camera_motion for key in new.keys] == ["unknown", "given"]
    for clip in clips:
        read = new.clip(clip.key)
        assert read.images == clip.images
        for name, array in clip.arrays.items():
            np.testing.assert_array_equal(read.arrays[name], array)


def test_upgrading_twice_changes_nothing(tmp_path: Path, make_clip: Callable[..., Clip]) -> None:
    old = write_version_1(tmp_path / "old.tar", [make_clip(3)])
    upgrade(old, tmp_path / "one" / "old.tar")
    upgrade(tmp_path / "one" / "old.tar", tmp_path / "two" / "old.tar")
    assert (tmp_path / "one" / "old.tar").read_bytes() == (tmp_path / "two" / "old.tar").read_bytes()


def test_version_2_keeps_what_it_knows(tmp_path: Path, make_clip: Callable[..., Clip]) -> None:
    clip = make_clip(6)
    sample = sample_of(clip)
    sample["meta.json"] = json.dumps({**json.loads(sample["meta.json"]), "schema_version": 2}).encode()
    write_samples(tmp_path / "old.tar", [sample])
    with pytest.raises(UserError, match="schema_version 2"):
        Shard(tmp_path / "old.tar").clip(clip.key)
    upgrade(tmp_path / "old.tar", tmp_path / "new" / "old.tar")
    assert verify([tmp_path / "new" / "old.tar"]) == []
    read = Shard(tmp_path / "new" / "old.tar").clip(clip.key)
    assert read.meta == clip.meta and read.images == clip.images and read.scenes == read.depths == []


def test_it_refuses_to_overwrite_and_to_guess(tmp_path: Path, make_clip: Callable[..., Clip]) -> None:
    old = write_version_1(tmp_path / "old.tar", [make_clip(4)])
    (tmp_path / "other").mkdir()
    other = write_version_1(tmp_path / "other" / "old.tar", [make_clip(6)])
    before = other.read_bytes()
    for paths, out in (([old], tmp_path), ([old, other], tmp_path / "other")):
        with pytest.raises(UserError, match="is one of the shards"):
            targets(paths, out)
    with pytest.raises(UserError, match="has the same name"):
        targets([old, other], tmp_path / "new")
    assert other.read_bytes() == before and targets([old], tmp_path / "new") == [tmp_path / "new" / "old.tar"]
    future = write_version_1(tmp_path / "future.tar", [make_clip(5)], schema_version=99)
    with pytest.raises(UserError, match="schema_version 99"):
        upgrade(future, tmp_path / "new" / "future.tar")
    assert not list((tmp_path / "new").glob("*"))
