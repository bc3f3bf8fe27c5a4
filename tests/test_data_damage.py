"""Damaged clips: whatever stands in a shard, ``verify`` lists it and training names it, and neither falls over."""

from __future__ import annotations

import io
import random
import warnings
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from data.clips import Clip, encode_image, sample_of, verify, write_samples, write_shard
from data.config import WindowConfig
from data.loader import WindowDataset
from pipeline.errors import UserError
from tests.convert_clips import with_scene

WINDOW = WindowConfig(points=8, image_size=32, scene="depth", horizons_s=(0.05, 0.1))
Make = Callable[..., Clip]
Sample = dict[str, bytes | str]


@pytest.fixture
def sample(make_clip: Make) -> Sample:
    return sample_of(with_scene(make_clip(0, frames=5)))


def train(path: Path) -> None:
    """Reads every window: its image, its scene and the depth of it."""
    dataset = WindowDataset([path], WINDOW, labels="where_known", image_later=True)
    for index in range(len(dataset)):
        dataset[index, 0]


def require_named(path: Path, sample: Sample, name: str, message: str = "") -> None:
    """Both ``verify`` and training name shard, clip and file."""
    write_samples(path, [sample])
    told = f"{path}: clip {sample['__key__']}: {name}"
    assert any(line.startswith(told) and message in line for line in verify([path])), verify([path])
    with pytest.raises(UserError) as error:
        train(path)
    assert str(error.value).startswith(told) and message in str(error.value)


def picture(image: Image.Image, format: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format)
    return buffer.getvalue()


def bomb() -> bytes:
    """A few bytes that declare four thousand million pixels."""
    png = bytearray(picture(Image.new("I;16", (8, 8)), "PNG"))
    png[16:24] = (65535).to_bytes(4, "big") * 2
    png[29:33] = zlib.crc32(png[12:29]).to_bytes(4, "big")
    return bytes(png)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("0003.jpg", b"", "0 bytes that are no JPEG"),
        ("0003.jpg", encode_image(np.zeros((48, 64, 3), np.uint8))[:-30], "cannot be decoded"),
        ("0003.jpg", picture(Image.new("RGB", (64, 48)), "PNG"), "that are no JPEG"),
        ("0003.jpg", picture(Image.new("L", (64, 48)), "JPEG"), "[64, 48] and L, expected [64, 48] and RGB"),
        ("0003.scene.jpg", encode_image(np.zeros((24, 32, 3), np.uint8)), "[32, 24] and RGB, expected [64, 48]"),
        ("0003.depth.png", picture(Image.new("L", (64, 48)), "PNG"), "[64, 48] and L, expected [64, 48] and I;16"),
        ("0003.depth.png", bomb(), "cannot be decoded"),
        ("0003.depth.png", picture(Image.new("RGB", (64, 48)), "JPEG"), "that are no PNG"),
    ],
)
def test_pictures_are_named(sample: Sample, tmp_path: Path, name: str, content: bytes, message: str) -> None:
    require_named(tmp_path / "a.tar", {**sample, name: content}, name, message)


def test_a_clip_names_its_pictures(make_clip: Make) -> None:
    clip = with_scene(make_clip(0, frames=5))
    broken = replace(clip, images=[b""] * 5, scenes=[b""] * 5, depths=[b""] * 5)
    for read, name in ((broken.image, "0004.jpg"), (broken.scene, "0004.scene.jpg"), (broken.depth, "0004.depth.png")):
        with pytest.raises(UserError, match=f"clip {clip.key}: {name}: not a readable image"):
            read(-1)


def test_postscript_is_never_run(sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were Pillow to choose the format, it would start Ghostscript, whatever the name of the file."""
    started: list[object] = []

    def ghostscript(*call: object) -> object:
        started.append(call)
        return Image.new("RGB", (64, 48)).im

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", ghostscript)
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\n%%EndComments\nshowpage\n"
    Image.open(io.BytesIO(postscript)).load()
    assert started
    started.clear()
    for name, format in (("0003.jpg", "JPEG"), ("0003.scene.jpg", "JPEG"), ("0003.depth.png", "PNG")):
        require_named(tmp_path / "a.tar", {**sample, name: postscript}, name, f"that are no {format}")
    assert not started


def npy(shape: str, kind: str = "<f4") -> bytes:
    """An array with a header that NumPy would not write."""
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(100)


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, points=np.zeros(3))
    return buffer.getvalue()


ODD_ARRAYS = [b"", b"PK\x03\x04", npz(), b"\x80\x04N.", npy("(5,)", ",,"), npy("(5,)", "|O"), npy("(5,)", "V0")]
ODD_SHAPES = ["()", "(5, 24, 4)", "(0, 24, 3)", "(-1,)", "(True,)", "(5,", "((((", "(2**70,)"]
ODD_SHAPES += [f"({10**15},)", f"({10**30},)"]


@pytest.mark.parametrize("name", ["points", "timestamps", "visible", "opening"])
@pytest.mark.parametrize("content", [*ODD_ARRAYS, *map(npy, ODD_SHAPES)])
def test_arrays_are_named(sample: Sample, tmp_path: Path, name: str, content: bytes) -> None:
    require_named(tmp_path / "a.tar", {**sample, f"{name}.npy": content}, name)


@pytest.mark.parametrize("name", ["points", "timestamps", "sigma", "world_from_camera"])
def test_arrays_that_are_not_there_are_named(sample: Sample, tmp_path: Path, name: str) -> None:
    without = {file: content for file, content in sample.items() if file != f"{name}.npy"}
    write_samples(tmp_path / "a.tar", [without])
    assert any(f"{name}: missing" in line for line in verify([tmp_path / "a.tar"]))
    with pytest.raises(UserError, match=rf"a\.tar: clip {sample['__key__']}.*{name}"):
        train(tmp_path / "a.tar")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[" * 100_000, b"[]", b'{"side": 1' + b"0" * 9999 + b"}"])
def test_meta_is_named(sample: Sample, tmp_path: Path, content: bytes) -> None:
    require_named(tmp_path / "a.tar", {**sample, "meta.json": content}, "meta.json")


def damaged(content: bytes, chance: random.Random, first: int) -> bytes:
    """Cut, or with some of its ``first`` bytes changed."""
    if chance.random() < 0.2:
        return content[: chance.randrange(len(content) + 1)]
    changed = bytearray(content)
    for _ in range(chance.choice((1, 2, 20))):
        changed[chance.randrange(min(first, len(content)))] = chance.choice((0, 255, *b"('9-{", chance.randrange(256)))
    return bytes(changed)


def test_chance_finds_nothing_that_is_not_named(make_clip: Make, tmp_path: Path) -> None:
    clip, path, chance = with_scene(make_clip(0, frames=4, labelled=True)), tmp_path / "a.tar", random.Random(0)
    sample = sample_of(clip)
    write_shard(path, [clip])
    whole, names = path.read_bytes(), [name for name in sample if name != "__key__"]
    violations = errors = 0
    for number in range(300):
        if number % 4 == 0:
            path.write_bytes(damaged(whole, chance, len(whole)))
        else:
            changed = dict(sample)
            for name in chance.sample(names, 2):
                content = sample[name]
                assert isinstance(content, bytes)
                changed[name] = damaged(content, chance, chance.choice((60, 140, len(content))))
            write_samples(path, [changed])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numbers that overflow, odd headers
            violations += bool(verify([path]))
            try:
                train(path)
            except UserError as error:
                assert str(path) in str(error)
                errors += 1
    assert violations > 200 and errors > 150
