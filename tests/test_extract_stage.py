"""The extract stage as a user runs it: every input accounted for, byte-identical whatever happens on the way."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import yaml

from data.clips import Shard, verify
from pipeline.atomic import read_lines
from pipeline.units import finished_shards
from tests.disc_videos import write_disc

ROOT = Path(__file__).resolve().parent.parent


def write_episode(folder: Path, number: int, frames: int = 24) -> None:
    """A disc that slides straight, each number elsewhere."""
    rng = np.random.default_rng(number)
    start, velocity = rng.uniform(-0.03, 0.03, 2), rng.uniform(-0.02, 0.02, 2)
    write_disc(folder / f"slide_{number}.mp4", start + velocity * np.arange(frames)[:, None] / 20)


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    for number in range(6):
        write_episode(folder, number)
    return folder


def configured(videos: Path, out: Path, **changes: object) -> Path:
    config = {
        "run": {"out": str(out), "workers": 1},
        "index": {"sources": [{"name": "mine", "path": str(videos)}]},
        "extract": {"episodes_per_unit": 2},
    }
    for dotted, value in changes.items():
        section, key = dotted.split("__")
        config[section][key] = value
    path = out.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(config))
    return path


def call(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=120)


def extract(config: Path, *options: str) -> subprocess.CompletedProcess[str]:
    index = call("data", "index", "--config", str(config))
    assert index.returncode == 0, index.stderr
    return call("extract", "run", "--config", str(config), *options)


def shard_bytes(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path, _ in finished_shards(out / "extract")}


def test_worker_count_kill_and_resume_give_the_same_bytes(videos: Path, tmp_path: Path) -> None:
    straight = configured(videos, tmp_path / "straight")
    assert extract(straight).returncode == 0
    expected = shard_bytes(tmp_path / "straight")
    assert len(expected) == 3 and verify(sorted((tmp_path / "straight" / "extract").glob("*.tar"))) == []

    killed = configured(videos, tmp_path / "killed")
    assert call("data", "index", "--config", str(killed)).returncode == 0
    command = [sys.executable, "-m", "extract", "run", "--config", str(killed), "--workers", "2"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    first = tmp_path / "killed" / "extract" / "unit-00000.json"
    deadline = time.monotonic() + 60
    while not first.exists() and process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert shard_bytes(tmp_path / "killed").items() <= expected.items(), "what is finished is whole"
    resumed = call("extract", "run", "--config", str(killed), "--workers", "2")
    assert resumed.returncode == 0, resumed.stderr
    assert shard_bytes(tmp_path / "killed") == expected
    again = call("extract", "run", "--config", str(killed))
    assert again.returncode == 0 and "nothing to do" in again.stdout


def test_new_videos_append_units_and_leave_the_old_ones_alone(videos: Path, tmp_path: Path) -> None:
    config = configured(videos, tmp_path / "run")
    assert extract(config).returncode == 0
    before = shard_bytes(tmp_path / "run")
    write_episode(videos, 6)
    assert extract(config).returncode == 0
    after = shard_bytes(tmp_path / "run")
    assert len(after) == 4 and before.items() <= after.items()


def test_other_settings_are_refused_with_the_differing_keys(videos: Path, tmp_path: Path) -> None:
    assert extract(configured(videos, tmp_path / "run")).returncode == 0
    refused = extract(configured(videos, tmp_path / "run", extract__rate_hz=10))
    assert refused.returncode == 4
    assert "config.rate_hz: 20.0 -> 10.0" in refused.stderr
    assert "episodes_per_unit" not in refused.stderr


def write_cut_inside(make_video: Callable[..., Path], path: Path) -> None:
    """A video whose index is whole and comes first, while the last third of its picture data is missing."""
    whole = make_video(path.with_name("whole.mp4"), frames=40)
    with av.open(str(whole)) as source, av.open(str(path), "w", options={"movflags": "faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    whole.unlink()
    content = path.read_bytes()
    pictures = content.index(b"mdat")
    path.write_bytes(content[: pictures + (len(content) - pictures) * 2 // 3])


def write_sound(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_bad_inputs_are_rejected_by_name_and_the_rest_is_good(
    videos: Path, tmp_path: Path, make_video: Callable[..., Path]
) -> None:
    good = (videos / "slide_0.mp4").read_bytes()
    (videos / "empty.mp4").touch()
    (videos / "random.mp4").write_bytes(np.random.default_rng(0).bytes(4000))
    (videos / "cut.mp4").write_bytes(good[: len(good) * 2 // 3])
    write_cut_inside(make_video, videos / "cut_inside.mp4")
    write_sound(videos / "sound.mp4")
    make_video(videos / "no_hands.mp4", frames=30)
    (videos / "gone.mp4").symlink_to(videos / "nowhere")
    (videos / "notes.txt").write_text("not a video")
    np.savez(videos / "slide_1.npz", depth=np.zeros((3, 4, 4), np.uint16))
    (videos / "slide_2.npz").write_bytes(b"not an archive")
    empty_mask = dict(np.load(videos / "slide_3.npz"))
    np.savez(videos / "slide_3.npz", depth=empty_mask["depth"], mask=np.zeros_like(empty_mask["mask"]))
    done = extract(configured(videos, tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    logs = [tmp_path / "run" / "logs" / f"{stage}.jsonl" for stage in ("index", "extract")]
    told = [row["message"] for log in logs for row in read_lines(log)]
    reasons = {}
    for row in read_lines(tmp_path / "run" / "extract" / "rejected.jsonl"):
        name = Path(row["item"]).name
        reasons[name if "." in name else name.rsplit("-", 1)[0]] = row["reason"]
        assert row["detail"]
        assert any(f"{row['reason']}: {row['detail']}" in message for message in told), row
    assert reasons == {
        "empty.mp4": "empty_file",
        "random.mp4": "unreadable",
        "cut.mp4": "unreadable",
        "cut-inside": "truncated",
        "sound.mp4": "no_video_stream",
        "no-hands": "no_hand",
        "gone.mp4": "unreadable",
        "notes.txt": "not_a_video",
        "slide-1": "bad_arrays",
        "slide-2": "bad_arrays",
        "slide-3": "no_effector",
    }
    clips = [clip for path, _ in finished_shards(tmp_path / "run" / "extract") for clip in Shard(path).clips()]
    assert sorted(clip.meta.episode_id.rsplit("-", 1)[0] for clip in clips) == ["slide-0", "slide-4", "slide-5"]

    limited = call("extract", "run", "--config", str(configured(videos, tmp_path / "run", run__max_unreadable=2)))
    assert limited.returncode == 3
    assert "max_unreadable allows 2" in limited.stderr


def test_check_validates_without_working(videos: Path, tmp_path: Path) -> None:
    config = configured(videos, tmp_path / "run", extract__rate=5)
    checked = call("extract", "run", "--config", str(config), "--check")
    assert checked.returncode == 2
    assert "extract.rate: unknown key. Did you mean 'rate_hz'?" in checked.stderr
    assert not (tmp_path / "run").exists()
