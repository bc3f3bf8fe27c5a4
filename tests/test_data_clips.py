"""The clip format: what is written is read back, what violates it is named, bytes depend on content only."""

from __future__ import annotations

import dataclasses
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.clips import (
    Clip,
    Shard,
    decode_depth,
    decode_image,
    encode_depth_mm,
    sample_of,
    verify,
    write_samples,
    write_shard,
)
from data.format_page import format_page
from data.schema import FIELDS
from pipeline.errors import UserError
from tests.convert_clips import with_scene

ROOT = Path(__file__).resolve().parent.parent


def test_round_trip_is_lossless(make_clip: Callable[..., Clip], tmp_path: Path) -> None:
    clips = [make_clip(number, frames=5 + number, labelled=number == 1) for number in range(3)]
    assert write_shard(tmp_path / "a.tar", clips) == 3
    shard = Shard(tmp_path / "a.tar")
    assert shard.keys == [clip.key for clip in clips]
    for clip, read in zip(clips, shard.clips(), strict=True):
        assert read.meta == clip.meta
        assert read.images == clip.images
        assert read.arrays.keys() == clip.arrays.keys()
        for name, array in clip.arrays.items():
            np.testing.assert_array_equal(read.arrays[name], array)
            assert read.arrays[name].dtype == array.dtype
    assert verify([tmp_path / "a.tar"]) == []


def as_png(jpeg: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(decode_image(jpeg)).save(buffer, "PNG")
    return buffer.getvalue()


def test_scenes_make_the_round_trip_and_are_verified(make_clip: Callable[..., Clip], tmp_path: Path) -> None:
    clip = with_scene(make_clip(0, frames=12))
    write_shard(tmp_path / "a.tar", [clip, make_clip(1)])
    assert verify([tmp_path / "a.tar"]) == []
    read, plain = Shard(tmp_path / "a.tar").clips()
    assert (read.images, read.scenes, read.depths) == (clip.images, clip.scenes, clip.depths)
    assert (plain.scenes, plain.depths) == ([], [])
    np.testing.assert_array_equal(read.arrays["grasp"], clip.arrays["grasp"])
    write_shard(tmp_path / "b.tar", [dataclasses.replace(clip, depths=[as_png(clip.scenes[0])] * 12)])
    assert any(
        "0003.depth.png: [64, 48] and RGB, expected [64, 48] and I;16" in line for line in verify([tmp_path / "b.tar"])
    )
    with pytest.raises(ValueError, match="scenes: 11, expected T=12 or none"):
        sample_of(dataclasses.replace(clip, scenes=clip.scenes[1:]))
    clip.arrays["grasp"][3, 1] = np.nan
    with pytest.raises(ValueError, match="grasp: a row is known in part"):
        sample_of(clip)


def test_depth_is_stored_to_the_millimetre_and_zero_where_it_cannot_be() -> None:
    depth = np.array([[0.0, 0.4567, 65.535, 65.6, np.nan, np.inf, -1.0, 1.2344]], np.float32)
    expected = np.array([[0.0, 0.457, 65.535, 0, 0, 0, 0, 1.234]], np.float32)
    np.testing.assert_allclose(decode_depth(encode_depth_mm(depth)), expected, atol=1e-6)


def test_webdataset_reads_our_shards(make_clip: Callable[..., Clip], tmp_path: Path) -> None:
    from webdataset.compat import WebDataset

    write_shard(tmp_path / "a.tar", [make_clip(0), make_clip(1)])
    samples = list(WebDataset(str(tmp_path / "a.tar"), shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == [make_clip(0).key, make_clip(1).key]
    np.testing.assert_array_equal(np.load(io.BytesIO(samples[0]["points.npy"])), make_clip(0).arrays["points"])


def test_same_clips_give_the_same_bytes(make_clip: Callable[..., Clip], tmp_path: Path) -> None:
    for name in ("a.tar", "b.tar"):
        write_shard(tmp_path / name, [make_clip(3), make_clip(4)])
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def broken(clip: Clip, field: str, value: np.ndarray | None) -> Clip:
    arrays = dict(clip.arrays)
    if value is None:
        del arrays[field]
    else:
        arrays[field] = value
    return dataclasses.replace(clip, arrays=arrays)


def with_value(array: np.ndarray, at: tuple[int, ...], value: float) -> np.ndarray:
    changed = array.copy()
    changed[at] = value
    return changed


@pytest.mark.parametrize(
    ("field", "change", "message"),
    [
        ("points", lambda a: np.where(a == a[0, 0, 0], np.nan, a).astype(np.float32), "points: .* not finite"),
        ("points", lambda a: a.astype(np.float64), "points: dtype float64, expected float32"),
        ("points", lambda a: a[:, :, :2], "points: shape"),
        ("points", lambda a: None, "points: missing"),
        ("visible", lambda a: a[:-1], r"visible: shape \[19, 24\], expected \[T=20, N=24\]"),
        ("sigma", lambda a: a * 0, "sigma: smallest value 0 is not positive"),
        ("confidence", lambda a: a + 1, "confidence: values span"),
        ("timestamps", lambda a: a[::-1].copy(), "timestamps: values do not strictly increase"),
        ("intrinsics", lambda a: -a, "intrinsics: focal lengths"),
        ("intrinsics", lambda a: with_value(a, (0, 2), np.nan), "intrinsics: 1 values are not finite"),
        ("intrinsics", lambda a: with_value(a, (1, 1), np.inf), "intrinsics: 1 values are not finite"),
        ("world_from_camera", lambda a: with_value(a, (2, 0, 3), np.nan), "world_from_camera: 1 values are not finite"),
        ("world_from_camera", lambda a: with_value(a, (2, 0, 0), np.nan), "world_from_camera: 1 values are not finite"),
        ("world_from_camera", lambda a: a * 2, "world_from_camera: rotation part"),
        ("opening", lambda a: a - 1, "opening: a known value is negative"),
        ("actions", lambda a: np.zeros((20, 4), np.float32), "actions: present, but meta.action_spec is null"),
        ("extra", lambda a: np.zeros(3), "extra: not a field"),
    ],
)  # fmt: skip
def test_every_rule_is_enforced_and_names_its_field(
    make_clip: Callable[..., Clip], field: str, change: Callable[..., np.ndarray | None], message: str
) -> None:
    clip = make_clip(0)
    bad = broken(clip, field, change(clip.arrays.get(field)))
    with pytest.raises(ValueError, match=message):
        sample_of(bad)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"quality": {}', b'"quality": {"score": NaN}', "meta.quality.score: nan is not finite"),
        (b'"rate_hz": 20.0', b'"rate_hz": 1e999', "meta.action_spec.rate_hz: inf is not finite"),
    ],
)
def test_numbers_of_the_meta_are_finite(
    make_clip: Callable[..., Clip], tmp_path: Path, old: bytes, new: bytes, message: str
) -> None:
    sample = sample_of(make_clip(0, labelled=True))
    stored = sample["meta.json"]
    assert isinstance(stored, bytes) and old in stored
    write_samples(tmp_path / "a.tar", [{**sample, "meta.json": stored.replace(old, new)}])
    assert verify([tmp_path / "a.tar"]) == [f"{tmp_path / 'a.tar'}: clip {sample['__key__']}: {message}"]


def test_a_dot_in_the_key_is_refused(make_clip: Callable[..., Clip]) -> None:
    with pytest.raises(ValueError, match="does not match"):
        sample_of(dataclasses.replace(make_clip(0), key="video.1"))


def test_labelled_clip_needs_actions(make_clip: Callable[..., Clip]) -> None:
    with pytest.raises(ValueError, match="actions: missing"):
        sample_of(broken(make_clip(0, labelled=True), "actions", None))


def test_truncated_shard_is_named(make_clip: Callable[..., Clip], tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", [make_clip(0), make_clip(1)])
    whole = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[: len(whole) // 3 + 100])
    assert any("a.tar" in line for line in verify([tmp_path / "a.tar"]))


def test_pickled_arrays_are_never_loaded(make_clip: Callable[..., Clip], tmp_path: Path) -> None:
    sample = sample_of(make_clip(0))
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, content in {**sample, "points.npy": buffer.getvalue()}.items():
            if isinstance(content, bytes):
                info = tarfile.TarInfo(f"{sample['__key__']}.{name}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    with pytest.raises(UserError, match=r"points\.npy cannot be read"):
        next(Shard(tmp_path / "a.tar").clips())


def test_the_format_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "format.md").read_text()
    assert page == format_page(), "run: python -m data format > docs/format.md"
    assert all(f"`{spec.name}.npy`" in page for spec in FIELDS)
