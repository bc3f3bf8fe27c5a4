"""Clips become LeRobot data sets and come back as the shards of old, byte for byte; what cannot go along is named."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data.clips import Clip, Shard, decode_depth, decode_image, encode_image, verify, write_samples, write_shard
from data.convert.statistics import QUANTILES, Pixels
from data.convert.to_lerobot import to_lerobot
from data.convert.write import Limits
from data.sources.folder import data_sets, recordings
from data.sources.recording import Recording
from pipeline.errors import Refused, UserError
from tests.convert_clips import ROOMY, Make, assorted, back, info_of, tables, tree, uneven, with_scene, write_shards

ROOT = Path(__file__).resolve().parent.parent


def test_shards_come_back_byte_for_byte(make_clip: Make, tmp_path: Path) -> None:
    paths = write_shards(tmp_path / "shards", assorted(make_clip))
    summary = to_lerobot(paths, tmp_path / "sets", ROOMY)
    assert (summary.clips, summary.rejected) == (11, {})
    assert len(summary.made) >= 6
    assert back(tmp_path / "sets", tmp_path / "back").clips == 11
    assert verify(sorted((tmp_path / "back").glob("*.tar"))) == []
    for path in paths:
        assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()
    assert len(list((tmp_path / "back").glob("*.tar"))) == len(paths)


def test_clips_of_one_kind_share_a_data_set_and_no_others(make_clip: Make, tmp_path: Path) -> None:
    clips = [make_clip(0), make_clip(2, points=7), make_clip(4), make_clip(6, labelled=True), with_scene(make_clip(8))]
    slower = make_clip(10)
    slower.arrays["timestamps"] *= 2
    to_lerobot(write_shards(tmp_path / "shards", [*clips, slower]), tmp_path / "sets", ROOMY)
    sizes = [
        (info["fps"], info["features"]["points"]["shape"][0], "action" in info["features"], info["total_episodes"])
        for info in map(info_of, sorted(path.parent for path in (tmp_path / "sets").glob("*/meta")))
    ]
    assert sorted(sizes) == [
        (10, 24, False, 1), (20, 7, False, 1), (20, 24, False, 1), (20, 24, False, 2), (20, 24, True, 1),
    ]  # fmt: skip


def test_columns_are_what_the_clip_holds(make_clip: Make, tmp_path: Path) -> None:
    """Times in f64 beside LeRobot's regular ones, pictures as they were encoded, every other number as it was."""
    clip = uneven(with_scene(make_clip(3, labelled=True)))
    to_lerobot(write_shards(tmp_path / "shards", [clip]), tmp_path / "sets", ROOMY)
    (root,) = (path.parent for path in (tmp_path / "sets").glob("*/meta"))
    (table,) = tables(root)
    np.testing.assert_array_equal(table["timestamps"].to_numpy(), clip.arrays["timestamps"])
    np.testing.assert_array_equal(table["timestamp"].to_numpy(), (np.arange(20) / 20).astype(np.float32))
    for series, feature in (("images", "camera"), ("scenes", "scene"), ("depths", "scene_depth")):
        stored = [row["bytes"] for row in table[f"observation.images.{feature}"].to_pylist()]
        assert stored == getattr(clip, series)
    for field, feature in {"actions": "action", "proprio": "observation.state", "visible": "visible"}.items():
        np.testing.assert_array_equal(np.array(table[feature].to_pylist()), clip.arrays[field])
    assert [np.array(row).dtype for row in table["visible"].to_pylist()[:1]] == [bool]
    info = info_of(root)
    assert info["features"]["action"]["names"] == clip.meta.action_spec.names  # pyright: ignore[reportOptionalMemberAccess]
    assert info["features"]["observation.images.scene_depth"]["info"] == {"is_depth_map": True, "depth_unit": "mm"}


def test_our_own_reader_of_lerobot_reads_them(make_clip: Make, tmp_path: Path) -> None:
    clips = [with_scene(make_clip(number, labelled=True)) for number in (1, 3)]
    to_lerobot(write_shards(tmp_path / "shards", clips), tmp_path / "sets", ROOMY)
    (data_set,) = data_sets(tmp_path / "sets")
    found = list(recordings(data_set))
    for clip, one in zip(clips, found, strict=True):
        assert isinstance(one, Recording) and one.actions is not None and one.proprio is not None
        np.testing.assert_array_equal(one.actions.values, clip.arrays["actions"])
        np.testing.assert_array_equal(one.proprio.values, clip.arrays["proprio"])
        assert one.instructions == (clip.meta.instruction,) * clip.frames and one.robot == clip.meta.embodiment
        for number, image in enumerate(one.cameras["observation.images.camera"].frames()):
            np.testing.assert_array_equal(image, clip.image(number))
        for number, depth in enumerate(one.cameras["observation.images.scene"].depth()):
            np.testing.assert_allclose(depth, decode_depth(clip.depths[number]), atol=1e-6)


def test_files_stay_within_their_size_and_hold_whole_episodes(make_clip: Make, tmp_path: Path) -> None:
    clips = [make_clip(2 * number, frames=12) for number in range(9)]
    paths = write_shards(tmp_path / "shards", clips)
    size = sum(map(len, clips[0].images)) + sum(array.nbytes for array in clips[0].arrays.values())
    to_lerobot(paths, tmp_path / "sets", Limits(int(2.5 * size), 2))
    (root,) = (path.parent for path in (tmp_path / "sets").glob("*/meta"))
    assert sorted(str(path.relative_to(root / "data")) for path in root.glob("data/*/*")) == [
        f"chunk-{number // 2:03d}/file-{number % 2:03d}.parquet" for number in range(5)
    ]
    for path in root.glob("data/*/*"):
        file = pq.ParquetFile(path)
        groups = [file.read_row_group(number)["episode_index"].to_pylist() for number in range(file.num_row_groups)]
        assert len(groups) <= 2 and all(len(group) == 12 and len(set(group)) == 1 for group in groups)
    listed: Any = pa.concat_tables([pq.read_table(path) for path in sorted(root.glob("meta/episodes/*/*"))])
    assert listed["dataset_to_index"].to_pylist() == list(range(12, 120, 12))
    assert [listed[f"data/{part}_index"].to_pylist() for part in ("chunk", "file")] == [
        [number // 4 for number in range(9)],
        [number // 2 % 2 for number in range(9)],
    ]
    back(tmp_path / "sets", tmp_path / "back")
    assert all((tmp_path / "back" / path.name).read_bytes() == path.read_bytes() for path in paths)


def test_splits_follow_the_names_of_the_shards(make_clip: Make, tmp_path: Path) -> None:
    clips = [make_clip(2 * number, frames=4) for number in range(5)]
    for name, some in (("train-00000", clips[:2]), ("train-00001", clips[2:3]), ("val-00000", clips[3:])):
        write_shard(tmp_path / f"{name}.tar", some)
    to_lerobot(sorted(tmp_path.glob("*.tar")), tmp_path / "sets", ROOMY)
    (path,) = (tmp_path / "sets").glob("*/meta/info.json")
    assert json.loads(path.read_text())["splits"] == {"train": "0:3", "val": "3:5"}


def test_statistics_are_those_of_all_frames(make_clip: Make, tmp_path: Path) -> None:
    """Exact but for quantiles, which may be off by a five thousandth of the range; unknown openings do not count."""
    clips = [with_scene(make_clip(number, frames=30, labelled=True)) for number in (1, 3, 5)]
    for clip in clips:
        clip.arrays["opening"][:] = np.linspace(0, 0.1, 30)
        clip.arrays["opening"][::7] = np.nan
    to_lerobot(write_shards(tmp_path / "shards", clips, per_shard=2), tmp_path / "sets", Limits(1, 1000))
    (path,) = (tmp_path / "sets").glob("*/meta/stats.json")
    told = json.loads(path.read_text())

    def check(name: str, rows_KD: np.ndarray, frames: int, slack: np.ndarray | float, shape: tuple[int, ...]) -> None:
        wanted = {"min": rows_KD.min(0), "max": rows_KD.max(0), "mean": rows_KD.mean(0), "std": rows_KD.std(0)}
        for key, value in wanted.items():
            np.testing.assert_allclose(np.array(told[name][key]), value.reshape(shape), rtol=1e-9, atol=1e-12)
        assert told[name]["count"] == [frames]
        for key, share in QUANTILES.items():
            least, most = (np.quantile(rows_KD, share, axis=0, method=way) for way in ("lower", "higher"))
            value = np.array(told[name][key]).reshape(-1)
            assert (value >= least - slack).all() and (value <= most + slack).all(), (name, key)

    for field, feature in {"points": "points", "visible": "visible", "actions": "action", "sigma": "sigma"}.items():
        values = np.concatenate([clip.arrays[field] for clip in clips]).astype(np.float64)
        rows = values.reshape(-1, values.shape[-1])
        check(feature, rows, 90, 1.001 * np.ptp(rows, axis=0) / 5000, (-1,))
    openings = np.concatenate([clip.arrays["opening"] for clip in clips]).astype(np.float64)[:, None]
    known = openings[~np.isnan(openings)][:, None]
    check("opening", known, len(known), 1.001 * np.ptp(known) / 5000, (-1,))
    images = np.stack([clip.image(frame) for clip in clips for frame in range(30)]).reshape(-1, 3) / 255
    check("observation.images.camera", images, 90, 1e-9, (3, 1, 1))
    depths = np.stack([decode_depth(depth) for clip in clips for depth in clip.depths]).reshape(-1, 1)
    check("observation.images.scene_depth", np.rint(depths.astype(np.float64) * 1000), 90, 1e-9, (1, 1, 1))


def test_what_is_never_known_has_no_statistics(make_clip: Make, tmp_path: Path) -> None:
    clip = make_clip(0)
    clip.arrays["opening"][:] = np.nan
    to_lerobot(write_shards(tmp_path / "shards", [clip]), tmp_path / "sets", ROOMY)
    (path,) = (tmp_path / "sets").glob("*/meta/stats.json")
    assert "opening" not in json.loads(path.read_text()) and "sigma" in json.loads(path.read_text())


def test_large_pictures_are_thinned_for_statistics_as_lerobot_does() -> None:
    image = np.zeros((300, 600, 3), np.uint8)
    image[::4, ::4] = 255
    pixels = Pixels(3, 256, 1 / 255)
    pixels.add(image)
    assert pixels.counts_CV.sum() == 3 * 75 * 150
    assert np.array(pixels.told()["mean"]).shape == (3, 1, 1) and np.allclose(pixels.told()["mean"], 1)


def broken(clip: Clip, what: str) -> Clip:
    images, meta = list(clip.images), clip.meta
    if what == "truncated":
        images[3] = images[3][: len(images[3]) // 2]
    elif what == "size":
        images[3] = encode_image(np.zeros((10, 10, 3), np.uint8))
    elif what == "grey":
        buffer = io.BytesIO()
        Image.fromarray(decode_image(images[3])[..., 0]).save(buffer, "JPEG")
        images[3] = buffer.getvalue()
    elif what == "surrogate":
        meta = meta.model_copy(update={"instruction": "\ud800"})
    return dataclasses.replace(clip, images=images, meta=meta)


@pytest.mark.parametrize(
    ("what", "reason", "detail"),
    [
        ("truncated", "bad_picture", "0003.jpg: cannot be decoded"),
        ("size", "bad_picture", r"0003.jpg: \[10, 10\]"),
        ("grey", "bad_picture", "0003.jpg: .* and L, expected .* and RGB"),
        ("surrogate", "bad_meta", "surrogates not allowed"),
    ],
)
def test_bad_clips_are_counted_and_the_others_converted(
    make_clip: Make, tmp_path: Path, what: str, reason: str, detail: str
) -> None:
    clips = [make_clip(0), broken(make_clip(2), what), make_clip(4)]
    summary = to_lerobot(write_shards(tmp_path / "shards", clips), tmp_path / "sets", ROOMY)
    assert (summary.clips, summary.rejected) == (2, {reason: 1})
    (row,) = map(json.loads, (tmp_path / "sets/rejected.jsonl").read_text().splitlines())
    assert row["item"] == f"train-00000.tar: {clips[1].key}" and row["reason"] == reason
    assert re.search(detail, row["detail"])
    back(tmp_path / "sets", tmp_path / "back")
    write_shards(tmp_path / "wanted", [clips[0], clips[2]])
    assert (tmp_path / "back/train-00000.tar").read_bytes() == (tmp_path / "wanted/train-00000.tar").read_bytes()


def rewritten(path: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """A shard of one clip with other files in it."""
    shard = Shard(path)
    (key,) = shard.keys
    files = {name: content for name, content in shard.raw(key).items() if isinstance(content, bytes)}
    change(files)
    write_samples(path, [{"__key__": key, **files}])
    return path


def edit_meta(files: dict[str, bytes], old: bytes, new: bytes) -> None:
    assert old in files["meta.json"]
    files["meta.json"] = files["meta.json"].replace(old, new)


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("change", "reason", "detail"),
    [
        (lambda files: files.update({"note.txt": b"kept?"}), "unreadable", "note.txt: not a file of the format"),
        (lambda files: files.pop("0004.jpg"), "unreadable", "0005.jpg: expected 0004.jpg"),
        (lambda files: files.pop("0019.jpg"), "violates_format", "images: 19, expected T=20"),
        (lambda files: files.update({"points.npy": npy(np.full((20, 24, 3), np.nan, np.float32))}),
         "violates_format", "points: 1440 values are not finite"),
        (lambda files: files.update({"sigma.npy": files["sigma.npy"][:90]}), "unreadable", "sigma.npy cannot be read"),
        (lambda files: files.update({"timestamps.npy": npy(np.zeros((20, 2)))}), "unreadable", "timestamps: float64"),
        (lambda files: files.update({"meta.json": b"{}"}), "unreadable", "meta.json"),
        (lambda files: edit_meta(files, b'"quality": {}', b'"quality": {"a": NaN}'), "bad_meta", "not JSON compliant"),
        (lambda files: edit_meta(files, b'version": 3', b'version": 2'), "unreadable", "data upgrade"),
    ],
)  # fmt: skip
def test_what_would_be_lost_or_breaks_the_format_is_rejected(
    make_clip: Make, tmp_path: Path, change: Callable[[dict[str, bytes]], None], reason: str, detail: str
) -> None:
    write_shard(tmp_path / "bad.tar", [make_clip(0)])
    write_shard(tmp_path / "good.tar", [make_clip(2)])
    paths = [rewritten(tmp_path / "bad.tar", change), tmp_path / "good.tar"]
    summary = to_lerobot(paths, tmp_path / "sets", ROOMY)
    assert (summary.clips, summary.rejected) == (1, {reason: 1})
    assert detail in json.loads((tmp_path / "sets/rejected.jsonl").read_text())["detail"]


def test_same_keys_same_names_and_odd_names_are_refused(make_clip: Make, tmp_path: Path) -> None:
    one, other = (write_shards(tmp_path / name, [make_clip(0), make_clip(2)])[0] for name in ("a", "b"))
    with pytest.raises(UserError, match="have one name"):
        to_lerobot([one, other], tmp_path / "sets", ROOMY)
    twin = other.rename(other.with_name("twin.tar"))
    with pytest.raises(UserError, match=r"clip made-up-0000-00 is also in"):
        to_lerobot([one, twin], tmp_path / "sets", ROOMY)
    with pytest.raises(UserError, match="the name of a shard is kept"):
        to_lerobot([one.rename(one.with_name("tr ain.tar"))], tmp_path / "other", ROOMY)


def test_done_is_done_and_something_else_is_refused(make_clip: Make, tmp_path: Path) -> None:
    paths = write_shards(tmp_path / "shards", [make_clip(0), make_clip(2)])
    assert not to_lerobot(paths, tmp_path / "sets", ROOMY).done_before
    before = tree(tmp_path / "sets")
    assert to_lerobot(paths, tmp_path / "sets", ROOMY).done_before
    with pytest.raises(Refused, match="file_bytes"):
        to_lerobot(paths, tmp_path / "sets", Limits(1 << 20, 1000))
    write_shard(paths[0], [make_clip(0)])
    with pytest.raises(Refused, match=r"train-00000\.tar"):
        to_lerobot(paths, tmp_path / "sets", ROOMY)
    assert tree(tmp_path / "sets") == before


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "data", "convert", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True
    )


def test_the_command_goes_there_and_back_and_tells_what_was_left_out(make_clip: Make, tmp_path: Path) -> None:
    clips = [make_clip(0), broken(make_clip(2), "truncated")]
    write_shards(tmp_path / "shards", clips)
    there = command(tmp_path / "shards", "--to", "lerobot", "--out", tmp_path / "sets")
    assert there.returncode == 3 and "1 clips: bad_picture" in there.stdout and "frames/s" in there.stdout
    assert "1 clips were rejected, 0 are allowed" in there.stderr
    again = command(tmp_path / "shards", "--to", "lerobot", "--out", tmp_path / "sets", "--allow-rejected", "1")
    assert again.returncode == 0 and "nothing to do" in again.stdout
    home = command(tmp_path / "sets", "--from", "lerobot", "--out", tmp_path / "back")
    assert home.returncode == 0, home.stderr
    assert Shard(tmp_path / "back/train-00000.tar").keys == [clips[0].key]
    none = command(tmp_path / "shards", "--from", "lerobot", "--out", tmp_path / "no")
    assert none.returncode == 2 and "no LeRobot data set" in none.stderr
