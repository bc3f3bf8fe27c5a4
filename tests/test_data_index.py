"""The index: every file is an episode or a rejection with a reason; sidecars are read strictly."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data import cli
from data.config import IndexConfig
from data.index import Episode, Rejection
from data.simulation.write import encode_video
from data.video import Unreadable, frames, probe, select
from tests.indexed import indexed

MakeVideo = Callable[..., Path]


def index(folder: Path, out: Path) -> tuple[list[Episode], dict[str, Rejection]]:
    config = IndexConfig.model_validate({"sources": [{"name": "mine", "path": folder}]})
    episodes, rejected = indexed(config, out, out / "no-simulation")
    return episodes, {Path(rejection.item).name: rejection for rejection in rejected}


def test_bad_files_give_one_reason_each_and_good_ones_survive(tmp_path: Path, make_video: MakeVideo) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    good = make_video(folder / "good.mp4")
    (folder / "empty.mp4").touch()
    (folder / "random.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    (folder / "truncated.mp4").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    (folder / "gone.mp4").symlink_to(folder / "nowhere")
    (folder / "notes.txt").write_text("not a video")
    if os.geteuid() != 0:
        make_video(folder / "locked.mp4", frames=21).chmod(0)
    episodes, rejected = index(folder, tmp_path / "index")
    assert [episode.path.name for episode in episodes] == ["good.mp4"]
    expected = {
        "empty.mp4": "empty_file",
        "random.mp4": "unreadable",
        "truncated.mp4": "unreadable",
        "gone.mp4": "unreadable",
        "notes.txt": "not_a_video",
    }
    if os.geteuid() != 0:
        expected["locked.mp4"] = "unreadable"
    assert {name: rejection.reason for name, rejection in rejected.items()} == expected
    assert all(rejection.detail for rejection in rejected.values())


def test_long_videos_are_split_into_equal_episodes_of_one_group(tmp_path: Path, make_video: MakeVideo) -> None:
    make_video(tmp_path / "long.mp4", frames=2000, fps=20)
    make_video(tmp_path / "told.mp4", frames=1990, fps=20)
    (tmp_path / "told.json").write_text(json.dumps({"frame_range": [0, 1980]}))
    config = IndexConfig.model_validate({"sources": [{"name": "mine", "path": tmp_path}], "split_minutes": 0.5})
    episodes, _ = indexed(config, tmp_path / "index", tmp_path)
    parts = [episode for episode in episodes if episode.path.name == "long.mp4"]
    assert [part.span for part in parts] == [(0, 500), (500, 1000), (1000, 1500), (1500, 2000)]
    assert sum(part.seconds for part in parts) == pytest.approx(100, abs=0.1)
    assert len({part.group for part in parts}) == 1 and len({part.episode_id for part in parts}) == 4
    read = [index for part in parts for index, _, _ in frames(part.path, 2.0, part.sidecar.frame_range)]
    assert read == sorted(set(read)) and read[0] == 0 and read[-1] >= 1990
    assert len([episode for episode in episodes if episode.path.name == "told.mp4"]) == 1


def test_sidecar_json_list_and_csv_make_stretches(tmp_path: Path, make_video: MakeVideo) -> None:
    make_video(tmp_path / "a.mp4")
    (tmp_path / "a.json").write_text(
        json.dumps(
            [
                {"instruction": "open", "frame_range": [0, 8], "intrinsics": [[50, 0, 32], [0, 50, 24], [0, 0, 1]]},
                {"instruction": "close", "frame_range": [8, 20]},
            ]
        )
    )
    make_video(tmp_path / "b.mp4", frames=15)
    (tmp_path / "b.csv").write_text("instruction,start_frame,end_frame,fx,fy,cx,cy\npour,2,12,60,60,32,24\n")
    episodes, rejected = index(tmp_path, tmp_path / "index")
    assert not [r for r in rejected.values() if r.reason != "not_a_video"]
    assert sorted(episode.instruction for episode in episodes) == ["close", "open", "pour"]
    pour = next(episode for episode in episodes if episode.instruction == "pour")
    assert pour.sidecar.frame_range == (2, 12)
    assert pour.sidecar.intrinsics is not None and pour.sidecar.intrinsics[0][0] == 60
    assert len({episode.group for episode in episodes if episode.path.name == "a.mp4"}) == 1, "one video, one group"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"instrction": "x"}', "instrction"),
        ('{"frame_range": [5, 500]}', "500"),
        ('{"intrinsics": [[0, 0, 1], [0, 5, 1], [0, 0, 1]]}', "focal lengths must be positive"),
        ('{"intrinsics": [[NaN, 0, 1], [0, 5, 1], [0, 0, 1]]}', "every entry must be a finite number"),
        ('{"depth_unit_m": Infinity}', "depth_unit_m: Input should be a finite number (found inf)"),
        ('{"depth_unit_m": NaN}', "depth_unit_m: Input should be a finite number (found nan)"),
        ('{"depth_unit_m": 0}', "depth_unit_m: Input should be greater than 0 (found 0)"),
        ('{"depth_unit_m": -0.001}', "depth_unit_m: Input should be greater than 0 (found -0.001)"),
        ('{"arrays": "absent.npz"}', "absent.npz"),
        ('{"arrays": "../absent.npz"}', "must be the name of a file beside the video"),
        ("{", "not readable as JSON"),
    ],
)
def test_bad_sidecar_names_file_field_and_value(
    tmp_path: Path, make_video: MakeVideo, content: str, message: str
) -> None:
    make_video(tmp_path / "a.mp4")
    (tmp_path / "a.json").write_text(content)
    episodes, rejected = index(tmp_path, tmp_path / "index")
    assert not episodes
    assert rejected["a.mp4"].reason == "bad_sidecar"
    assert message in rejected["a.mp4"].detail


def test_arrays_that_no_sidecar_names_are_told(
    tmp_path: Path, make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("named", "unnamed", "bare", "broken", ".hidden"):
        make_video(folder / f"{name}.mp4")
        np.savez(folder / f"{name}.npz", opening=np.zeros(20))
    (folder / "named.json").write_text('{"arrays": "named.npz"}')
    (folder / "unnamed.json").write_text('{"instruction": "pour"}')
    (folder / "broken.json").write_text("{")
    config = tmp_path / "c.yaml"
    config.write_text(f"run: {{out: {tmp_path / 'run'}}}\nindex: {{sources: [{{name: mine, path: {folder}}}]}}\n")
    monkeypatch.setattr("sys.argv", ["data", "index", "--config", str(config)])
    assert cli.main() == 0
    (warning,) = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    assert "2 NPZ files" in warning and "bare.npz the first" in warning and '"arrays": "bare.npz"' in warning
    (folder / "bare.json").write_text('{"arrays": "bare.npz"}')
    (folder / "unnamed.npz").unlink()
    assert cli.main() == 0 and "warning" not in capsys.readouterr().out
    (folder / "CAM1.npz").touch()
    make_video(folder / "cam1.mp4", frames=22).rename(folder / "CAM1.MP4")
    assert cli.main() == 0 and "CAM1.npz the first" in capsys.readouterr().out


def test_arrays_of_another_name_than_the_video_are_no_rejection(tmp_path: Path, make_video: MakeVideo) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    make_video(folder / "b.mp4")
    (folder / "b.json").write_text('[{"arrays": "a.npz"}, {"arrays": "c.npz", "frame_range": [0, 9]}]')
    (folder / "cut.mp4").write_bytes(b"no video")
    (folder / "cut.json").write_text('{"arrays": "d.npz"}')
    for name in "acde":
        np.savez(folder / f"{name}.npz", opening=np.zeros(20))
    episodes, rejected = index(folder, tmp_path / "index")
    assert [episode.sidecar.arrays for episode in episodes] == ["a.npz", "c.npz"]
    assert {name: one.reason for name, one in rejected.items()} == {"cut.mp4": "unreadable", "e.npz": "not_a_video"}


def test_content_decides_identity(tmp_path: Path, make_video: MakeVideo) -> None:
    video = make_video(tmp_path / "videos_a.mp4")
    before = index(tmp_path, tmp_path / "index")[0][0].episode_id
    (tmp_path / "zz_copy.mp4").write_bytes(video.read_bytes())
    episodes, rejected = index(tmp_path, tmp_path / "index")
    assert [episode.episode_id for episode in episodes] == [before]
    assert rejected["zz_copy.mp4"].reason == "duplicate"
    video.with_suffix(".json").write_text('{"instruction": "now with words"}')
    after = {episode.path.name: episode.episode_id for episode in index(tmp_path, tmp_path / "index")[0]}
    assert after["videos_a.mp4"] != before and "zz_copy.mp4" in after


def test_phone_metadata_gives_the_focal_length(tmp_path: Path, make_video: MakeVideo) -> None:
    name = "com.apple.quicktime.camera.focal_length.35mm_equivalent"
    path = make_video(tmp_path / "phone.mp4", **{name: "26"})
    assert probe(path).focal_35mm == 26
    assert probe(make_video(tmp_path / "other.mp4")).focal_35mm is None


def test_frames_are_the_right_ones_at_their_times(tmp_path: Path, make_video: MakeVideo) -> None:
    path = make_video(tmp_path / "a.mp4", frames=30, fps=30)
    read = list(frames(path, 20.0, None))
    for number, time, image in read:
        assert abs(time - number / 30) < 1e-3
        assert abs(float(image.mean()) - 8 * number) < 6
    assert np.allclose(np.diff([time for _, time, _ in read]).mean(), 0.05, atol=0.005)
    assert [number for number, _, _ in frames(path, None, (5, 9))] == [5, 6, 7, 8]


@pytest.mark.parametrize("rate", [None, 20.0, 4.0])
@pytest.mark.parametrize("part", [None, (37, 110)])
def test_every_rate_and_part_gives_the_frames_of_a_full_decode(
    tmp_path: Path, rate: float | None, part: tuple[int, int] | None
) -> None:
    import av

    path = tmp_path / "noise.mp4"
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "2", "g": "30"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(120):
            image = np.kron(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        decoded = list(container.decode(container.streams.video[0]))
    whole = [frame.to_ndarray(format="rgb24") for frame in decoded]
    times = np.array([float(frame.time or 0) for frame in decoded])
    read = list(frames(path, rate, part))
    first, last = part or (0, 120)
    wanted = first + select(times[first:last], rate)
    assert len(read) == len(wanted) and np.abs([index for index, _, _ in read] - wanted).max() <= 1  # 0.5 may round up
    for index, time, image in read:
        assert np.array_equal(image, whole[index]) and time == pytest.approx(times[index], abs=1e-6), index


@pytest.mark.parametrize("width", [16, 64, 90, 96, 144])
def test_pictures_of_any_width_look_as_they_were_encoded(tmp_path: Path, width: int) -> None:
    ramp_HW3 = np.broadcast_to(np.linspace(40, 200, width)[None, :, None], (32, width, 3)).astype(np.uint8)
    encode_video(tmp_path / "a.mp4", [ramp_HW3] * 3, 20)
    for _, _, image in frames(tmp_path / "a.mp4", None, None):
        assert image.shape == ramp_HW3.shape
        assert np.abs(image.astype(int) - ramp_HW3).mean() < 6


def test_rotated_video_is_turned_upright(tmp_path: Path, make_video: MakeVideo) -> None:
    content = bytearray(make_video(tmp_path / "a.mp4").read_bytes())
    matrix = content.index(b"tkhd") + 44  # the display matrix of a version 0 track header
    quarter_turn = (0, 1 << 16, 0, -(1 << 16), 0, 0, 48 << 16, 0, 1 << 30)
    content[matrix : matrix + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in quarter_turn)
    (tmp_path / "r.mp4").write_bytes(content)
    info = probe(tmp_path / "r.mp4")
    assert (info.width, info.height) == (48, 64)
    assert all(image.shape == (64, 48, 3) for _, _, image in frames(tmp_path / "r.mp4", None, None))


def test_damage_inside_a_video_is_found(footage: Path, tmp_path: Path) -> None:
    content = (footage / "human" / "sam2_gallery" / "02_cups.mp4").read_bytes()
    half = len(content) // 2
    for name, damaged in {
        "cut": content[:half],
        "holed": content[:half] + bytes(20000) + content[half + 20000 :],
    }.items():
        path = tmp_path / f"{name}.mp4"
        path.write_bytes(damaged)
        with pytest.raises(Unreadable) as caught:
            list(frames(path, None, None))
        assert caught.value.reason in ("truncated", "unreadable")


def test_select_takes_nearest_frames_once() -> None:
    times = np.array([0, 0.04, 0.08, 0.12, 0.5, 0.54])
    chosen = select(times, 20)
    assert len(set(chosen.tolist())) == len(chosen)
    assert set(chosen.tolist()) <= set(range(6)) and {0, 5} <= set(chosen.tolist())
    assert select(times, None).tolist() == list(range(6))
