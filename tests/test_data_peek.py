"""Looking at a clip: the video and the recording are read back and hold the clip, frame by frame."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from data.cli import main
from data.clips import Clip, write_shard
from data.overlay import overlay, point_colours
from data.peek import peek
from pipeline.errors import UserError

MakeClip = Callable[..., Clip]


@pytest.fixture
def clip(make_clip: MakeClip) -> Clip:
    """Twelve frames at uneven times, some of the openings unknown."""
    made = make_clip(3, frames=12)
    arrays = dict(made.arrays)
    arrays["timestamps"] = 7.0 + np.cumsum(np.random.default_rng(0).uniform(0.02, 0.2, 12))
    arrays["opening"] = np.where(np.arange(12) < 4, np.nan, arrays["opening"]).astype(np.float32)
    return replace(made, arrays=arrays)


@pytest.fixture
def shard(tmp_path: Path, clip: Clip, make_clip: MakeClip) -> Path:
    path = tmp_path / "unit-00000.tar"
    write_shard(path, [make_clip(2), clip])
    return path


def test_the_video_shows_every_frame_at_its_time_with_its_points(shard: Path, clip: Clip, tmp_path: Path) -> None:
    said = peek(shard, clip.key, tmp_path / "look.png", None)
    assert clip.key in said and "look.mp4" in said
    with av.open(str(tmp_path / "look.mp4")) as container:
        shown = list(container.decode(video=0))
    times = np.array([frame.time for frame in shown])
    assert np.allclose(times, clip.arrays["timestamps"] - clip.arrays["timestamps"][0], atol=2e-5)
    for number in (0, 5, 11):
        drawn = overlay(clip, number)
        assert max(drawn.shape) == 256
        image = shown[number].to_ndarray(format="rgb24")[: drawn.shape[0], : drawn.shape[1]].astype(int)
        other = overlay(clip, (number + 6) % 12)
        assert np.abs(image - drawn).mean() < 12 < np.abs(image - other).mean()


def test_the_filmstrip_lies_beside_it(shard: Path, clip: Clip, tmp_path: Path) -> None:
    peek(shard, clip.key, tmp_path / "look.png", None)
    strip = np.asarray(Image.open(tmp_path / "look.png"))
    assert strip.shape == (192, 6 * 256, 3)
    assert np.array_equal(strip[:, :256], overlay(clip, 0)) and np.array_equal(strip[:, -256:], overlay(clip, 11))


def test_odd_sides_and_one_frame_make_a_video(tmp_path: Path, make_clip: MakeClip) -> None:
    made = make_clip(1, frames=1)
    buffer = io.BytesIO()
    Image.fromarray(np.full((301, 333, 3), 90, np.uint8)).save(buffer, "JPEG")
    odd = replace(made, images=[buffer.getvalue()], meta=made.meta.model_copy(update={"image_size": (333, 301)}))
    write_shard(tmp_path / "odd.tar", [odd])
    peek(tmp_path / "odd.tar", None, tmp_path / "odd.png", None)
    with av.open(str(tmp_path / "odd.mp4")) as container:
        (frame,) = container.decode(video=0)
    assert (frame.width, frame.height) == (334, 302)


def test_the_recording_holds_points_camera_pictures_and_quality(shard: Path, clip: Clip, tmp_path: Path) -> None:
    from rerun.chunk import RrdReader

    peek(shard, clip.key, tmp_path / "look.png", tmp_path / "look.rrd")
    tables = {}
    for chunk in RrdReader(str(tmp_path / "look.rrd")).stream().to_chunks():
        batch = chunk.to_record_batch()
        tables.setdefault((chunk.entity_path, chunk.is_static), []).append(batch)

    def column(entity: str, name: str, static: bool = False) -> list:
        batches = [batch for batch in tables[(entity, static)] if name in batch.schema.names]
        if name == "time":
            return [value for batch in batches for value in batch.column(name).cast("int64").to_numpy() / 1e9]
        found = [batch.column(name).to_pylist() for batch in batches]
        return [value for part in found for value in part]

    points, arrays = "/world/camera/points", clip.arrays
    assert np.allclose(column(points, "Points3D:positions"), arrays["points"], atol=1e-7)
    assert np.allclose(column(points, "time"), arrays["timestamps"], rtol=0, atol=1e-6)
    assert column(points, "frame") == list(range(12))
    packed = np.array(column(points, "Points3D:colors"), np.uint32)  # 0xRRGGBBAA
    colours = np.stack([packed >> 24, packed >> 16 & 255, packed >> 8 & 255], -1)
    assert (colours == np.array(point_colours(clip))[None]).all(), "a point keeps its colour"
    assert ((packed & 255 == 255) == arrays["visible"]).all(), "what is not measured is pale"
    pictures = column("/world/camera/image", "EncodedImage:blob")
    assert [bytes(picture[0]) for picture in pictures] == clip.images
    turn = np.array(column("/world/camera", "Transform3D:mat3x3"))[:, 0].reshape(-1, 3, 3).transpose(0, 2, 1)
    assert np.allclose(turn, arrays["world_from_camera"][:, :3, :3])
    shift = np.array(column("/world/camera", "Transform3D:translation"))[:, 0]
    assert np.allclose(shift, arrays["world_from_camera"][:, :3, 3])
    pinhole = np.array(column("/world/camera/image", "Pinhole:image_from_camera", static=True)).reshape(3, 3).T
    assert np.allclose(pinhole, arrays["intrinsics"])
    expected = {
        "confidence": arrays["confidence"],
        "sigma_across_m": arrays["sigma"][:, 0],
        "sigma_along_m": arrays["sigma"][:, 1],
        "visible_share": arrays["visible"].mean(1),
        "opening_m": arrays["opening"][4:],
    }
    for name, values in expected.items():
        assert np.allclose(np.ravel(column(f"/quality/{name}", "Scalars:scalars")), values), name


def test_without_rerun_the_way_to_get_it_is_named(shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(UserError, match=r"pip install rerun-sdk=="):
        peek(shard, None, tmp_path / "look.png", tmp_path / "look.rrd")
    assert sorted(path.name for path in tmp_path.iterdir()) == [shard.name], "nothing is half done"


def test_the_command_line_and_its_errors(
    shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["data", "peek", str(shard), *arguments])
        return main()

    assert run("--out", str(tmp_path / "first.png")) == 0
    assert (tmp_path / "first.mp4").stat().st_size > 1000 and "made-up-0002-00" in capsys.readouterr().out
    assert run("--key", "absent") == 2
    assert "it holds: made-up-0002-00, made-up-0003-00" in capsys.readouterr().err
    assert run("--out", str(tmp_path / "x.mp4")) == 2
    assert "name a picture" in capsys.readouterr().err
