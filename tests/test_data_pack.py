"""Packing: splits by group, equal shards, nothing lost without being counted."""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from data import cli
from data.clips import Clip, Shard, sample_of, write_samples, write_shard
from data.config import PackConfig
from data.pack import made_from, pack, packed, select
from data.rows import OpenShards
from data.split import validation_groups
from data.stats import COLUMNS, stats
from pipeline.errors import UserError
from pipeline.units import UnitStore


@pytest.fixture
def extracted(make_clip: Callable[..., Clip], tmp_path: Path) -> tuple[Path, list[str]]:
    """Three units of seven clips; two clips share each group, one clip is too short."""
    folder = tmp_path / "extract"
    store = UnitStore(folder, {})
    clips = [make_clip(k, frames=3 if k == 20 else 12, group=f"group-{k // 2}") for k in range(21)]
    for unit in store.plan([str(k) for k in range(3)], per_unit=1):
        number = int(unit.items[0])
        write_shard(store.shard(unit), clips[7 * number : 7 * number + 7])
        store.complete(unit, 7, [])
    return folder, [clip.meta.episode_id for clip in clips]


def run_pack(extracted: tuple[Path, list[str]], out: Path, seed: int = 0, **settings: object) -> dict[str, list[Clip]]:
    folder, episodes = extracted
    config = PackConfig.model_validate({"clips_per_shard": 4, "val_fraction": 0.3, **settings})
    pack(config, seed, folder, episodes, out, made_from(config, seed, folder, episodes))
    return {split: [clip for path in packed(out, split) for clip in Shard(path).clips()] for split in ("train", "val")}


def test_groups_are_never_split_and_nothing_is_lost(extracted: tuple[Path, list[str]], tmp_path: Path) -> None:
    split = run_pack(extracted, tmp_path / "pack")
    groups = {name: {clip.meta.group for clip in clips} for name, clips in split.items()}
    assert groups["train"] and groups["val"] and not groups["train"] & groups["val"]
    assert sorted(clip.key for clips in split.values() for clip in clips) == [f"made-up-{k:04d}-00" for k in range(20)]


def test_shards_are_equal_shuffled_and_reproducible(extracted: tuple[Path, list[str]], tmp_path: Path) -> None:
    split = run_pack(extracted, tmp_path / "a")
    sizes = [len(Shard(path).keys) for path in packed(tmp_path / "a", "train")]
    assert max(sizes) - min(sizes) <= 1 and max(sizes) <= 4
    keys = [clip.key for clip in split["train"]]
    assert keys != sorted(keys)
    run_pack(extracted, tmp_path / "b")
    for first, second in zip(packed(tmp_path / "a", "train"), packed(tmp_path / "b", "train"), strict=True):
        assert first.read_bytes() == second.read_bytes()
    run_pack(extracted, tmp_path / "c", seed=1)
    assert packed(tmp_path / "a", "train")[0].read_bytes() != packed(tmp_path / "c", "train")[0].read_bytes()


def test_episodes_that_left_the_index_are_left_out(extracted: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder, episodes = extracted
    split = run_pack((folder, episodes[:10]), tmp_path / "pack")
    assert {clip.meta.episode_id for clips in split.values() for clip in clips} == set(episodes[:10])


def test_no_clip_left_is_an_error_with_the_reasons(extracted: tuple[Path, list[str]], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="fewer than 99 frames"):
        run_pack(extracted, tmp_path / "pack", min_frames=99)
    assert not (tmp_path / "pack").exists()


def test_what_is_packed_are_the_clips_as_they_were_stored(
    extracted: tuple[Path, list[str]], make_clip: Callable[..., Clip], tmp_path: Path
) -> None:
    """Byte for byte as a writer of whole clips has them; one clip has names too long for a plain archive."""
    folder, _ = extracted
    shard = folder / "unit-00001.tar"
    clips = [clip if number else replace(clip, key="long-" * 30) for number, clip in enumerate(Shard(shard).clips())]
    write_shard(shard, clips)
    sidecar = shard.with_suffix(".json")
    sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), "bytes": shard.stat().st_size}))
    run_pack(extracted, tmp_path / "pack")
    known = {clip.key: sample_of(clip) for path in folder.glob("*.tar") for clip in Shard(path).clips()}
    assert "long-" * 30 in known
    for path in [*packed(tmp_path / "pack", "train"), *packed(tmp_path / "pack", "val")]:
        write_samples(tmp_path / "again.tar", [known.pop(key) for key in Shard(path).keys])
        assert (tmp_path / "again.tar").read_bytes() == path.read_bytes()
    assert list(known) == ["made-up-0020-00"], "the clip that is too short"


def test_clips_that_wait_to_be_packed_take_little_memory(make_clip: Callable[..., Clip], tmp_path: Path) -> None:
    """A million of them fit into a GB, however many frames they have."""
    write_shard(tmp_path / "a.tar", (make_clip(number, frames=40) for number in range(100)))
    episodes = {f"made-up-{number:04d}" for number in range(100)}
    shards = OpenShards([tmp_path / "a.tar"])
    tracemalloc.start()
    try:
        candidates, _ = select(PackConfig(), shards, episodes)
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(candidates) == 100 and taken < 100 * 1000


def test_every_stratum_is_held_out_in_part(make_clip: Callable[..., Clip]) -> None:
    metas = [make_clip(k, frames=3, group=f"g{k}").meta for k in range(30)]
    held_out = validation_groups(metas, 0.2, seed=0)
    for instruction in {meta.instruction for meta in metas}:
        groups = {meta.group for meta in metas if meta.instruction == instruction}
        assert len(groups & held_out) == 2, "a fifth of ten"
    assert validation_groups(metas[:1], 0.2, seed=0) == set(), "a single group stays in training"


def test_stats_count_clips_by_kind(extracted: tuple[Path, list[str]]) -> None:
    rows = stats(sorted(extracted[0].glob("*.tar")))
    assert sum(row["clips"] for row in rows) == 21
    assert {row["embodiment"] for row in rows} == {"human-hand", "sawyer-gripper"}
    assert all(0.6 < row["depth m"] < 0.8 for row in rows)


def test_the_table_of_stats_is_whole_wherever_it_is_shown(
    tmp_path: Path, make_clip: Callable[..., Clip], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = make_clip(1)
    named = replace(clip, meta=clip.meta.model_copy(update={"embodiment": "[red]arm[/b]", "source": "a-long-name" * 9}))
    write_shard(tmp_path / "train-00000.tar", [named])
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.argv", ["data", "stats", str(tmp_path)])
    assert cli.main() == 0
    said = capsys.readouterr().out
    assert all(word in said for word in (*COLUMNS, "[red]arm[/b]", "a-long-name" * 9)) and "\u2026" not in said


def test_stats_name_the_clip_that_they_cannot_count(tmp_path: Path, make_clip: Callable[..., Clip]) -> None:
    clip = make_clip(1)
    sample = {name: content for name, content in sample_of(clip).items() if name != "sigma.npy"}
    write_samples(tmp_path / "train-00000.tar", [sample])
    with pytest.raises(UserError, match=rf"train-00000\.tar: clip {clip.key}: .*sigma.*data verify"):
        stats([tmp_path / "train-00000.tar"])
