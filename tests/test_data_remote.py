"""Videos and data sets in a bucket are indexed and read as the same files are in a folder, through a real S3 server."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from data.config import IndexConfig
from data.footage import bring
from data.index import Episode, Rejection, read_index
from data.reader import EpisodeReader
from data.sources import folder as data_set_folder
from data.sources import parquet
from data.video import Unreadable
from pipeline import cache, services
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.remote import RemotePath, place_of
from pipeline.services import Unreachable
from tests import rgbd_files
from tests import source_files as made
from tests.disc_videos import write_disc
from tests.indexed import indexed
from tests.s3_server import BUCKET, Server, Wire

ROOT = Path(__file__).resolve().parent.parent
MEANING = {"unit": "m", "frame": "base", "mode": "delta"}
SECRET = "Zm9yLW5vYm9keS1lbHNl"
MakeVideo = Callable[..., Path]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    one = Server(tmp_path_factory.mktemp("s3") / "log.txt")
    one.client.mkdir(BUCKET)
    services._file_system.cache_clear()
    yield one
    services._file_system.cache_clear()
    one.stop()


@pytest.fixture
def bucket(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    told = {"AWS_ENDPOINT_URL": server.url, "AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": SECRET}
    told |= {
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
        "KINECLOUD_CACHE": str(tmp_path),
    }
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(services, "WAITS_S", (0.01,))
    as_a_new_process()
    yield Bucket(server, tmp_path.name, tmp_path / "remote")
    as_a_new_process()


def as_a_new_process() -> None:
    for known in (services.service, cache._cache, parquet._opened, data_set_folder._about):
        known.cache_clear()


class Bucket:
    """A folder of the bucket for one test. copies: where what was fetched lies."""

    def __init__(self, server: Server, folder: str, copies: Path):
        self.server, self.copies, self.url = server, copies, f"s3://{BUCKET}/{folder}"

    def put(self, folder: Path, name: str = "") -> str:
        place = f"{self.url}/{name or folder.name}"
        self.server.client.put(str(folder), place, recursive=folder.is_dir())
        self.server.requests()
        return place

    def put_bytes(self, key: str, content: bytes) -> None:
        self.server.client.call_s3("put_object", Bucket=BUCKET, Key=f"{self.url.split('/', 3)[3]}/{key}", Body=content)
        self.server.requests()

    def remove(self, place: str) -> None:
        self.server.client.rm(place)

    def copied_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.copies.glob("??/*"))


def scanned(path: Path | str, out: Path, **source: Any) -> tuple[list[Episode], list[Rejection]]:
    document = {"sources": [{"name": "mine", "path": str(path), **source}]}
    return indexed(IndexConfig.model_validate(document), out)


def shown(episode: Episode, count: int | None = None) -> list[tuple[int, float, bytes, bytes]]:
    frames = islice(EpisodeReader(episode).frames(None), count)
    return [(f.index, f.time, f.image.tobytes(), b"" if f.depth is None else f.depth.tobytes()) for f in frames]


def discs(folder: Path, count: int = 2, frames: int = 12) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        write_disc(
            folder / f"slide_{number}.mp4", np.array([0.002 * number, 0]) + np.outer(np.arange(frames), [1e-3, 0])
        )
    return folder


def test_videos_with_sidecars_and_arrays(bucket: Bucket, tmp_path: Path, make_video: MakeVideo) -> None:
    folder = discs(tmp_path / "videos")
    make_video(folder / "plain.mp4")
    make_video(folder / "twin.mp4")
    (folder / "deeper").mkdir()
    make_video(folder / "deeper/long.mp4", frames=30)
    (folder / "deeper/long.csv").write_text("instruction,start_frame,end_frame\npour,0,10\nwipe,10,20\n")
    (folder / "notes.txt").write_text("no video")
    (folder / "broken.mp4").write_bytes(b"nothing of a video")
    (folder / "empty.mp4").touch()
    expected, refused = scanned(folder, tmp_path / "local")
    place = bucket.put(folder)
    bucket.put_bytes("videos/deeper/", b"")  # marks a folder, as consoles do
    episodes, rejected = scanned(place, tmp_path / "index")
    assert [one.episode_id for one in episodes] == [one.episode_id for one in expected]
    assert [(one.group, one.sha256) for one in episodes] == [(one.group, one.sha256) for one in expected]
    assert [(Path(one.item).name, one.reason) for one in rejected] == [(Path(o.item).name, o.reason) for o in refused]
    assert rejected[0].item.startswith(f"{place}/")
    as_a_new_process()
    for one, other in zip(read_index(tmp_path / "index"), expected, strict=True):
        assert str(one.path) == str(other.path).replace(str(folder), place)
        assert shown(one) == shown(other)


def test_a_second_index_downloads_nothing(
    bucket: Bucket, tmp_path: Path, make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = discs(tmp_path / "videos", count=1)
    for number in range(6):
        make_video(folder / f"{number}.mp4", frames=20 + number, size=(320, 240))
    place, largest = bucket.put(folder), max(path.stat().st_size for path in folder.iterdir())
    first, _ = scanned(place, tmp_path / "index")
    assert sorted(bucket.server.downloads()) == sorted(
        f"{place[len(f's3://{BUCKET}/') :]}/{p.name}" for p in folder.iterdir()
    )
    as_a_new_process()
    again, _ = scanned(place, tmp_path / "index")
    asked = bucket.server.requests()
    assert again == first and len(asked) < 5 and ("GET", "") in asked, "one listing is all it takes"
    assert all(not key or method == "HEAD" for method, key in asked)
    monkeypatch.setenv(cache.CACHE_GB, str(largest * 1.5 / 1e9))  # hardly anything is kept
    as_a_new_process()
    (bucket.copies / "used").unlink()
    make_video(folder / "new.mp4", frames=50)
    bucket.put(folder / "new.mp4", "videos/new.mp4")
    assert len(scanned(place, tmp_path / "index")[0]) == len(first) + 1
    assert bucket.copied_bytes() <= largest * 1.5
    as_a_new_process()
    bucket.server.requests()
    scanned(place, tmp_path / "index")
    assert not [key for key in bucket.server.downloads() if key.endswith((".mp4", ".npz"))]


def test_disk_use_does_not_grow_with_the_data(
    bucket: Bucket, tmp_path: Path, make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    for number in range(8):
        make_video(folder / f"{number}.mp4", frames=20 + number)
    limit = 2.5 * max(path.stat().st_size for path in folder.iterdir())
    monkeypatch.setenv(cache.CACHE_GB, str(limit / 1e9))
    place = bucket.put(folder)
    episodes, _ = scanned(place, tmp_path / "index")
    assert bucket.copied_bytes() <= limit
    for episode in episodes:
        assert len(shown(episode)) == episode.frames and 0 < bucket.copied_bytes() <= limit


@pytest.mark.parametrize(
    "make", [made.lerobot_21, made.lerobot_30, made.rlds, made.robomimic, made.egodex, rgbd_files.open3d]
)
def test_data_sets(bucket: Bucket, tmp_path: Path, make: Callable[..., Path]) -> None:
    joints = ([f"{n}" for n in _egodex_joints()],) if make is made.egodex else ()
    make(tmp_path / "set", *joints)
    options: dict[str, Any] = {"kind": "data_set", "effector": "gripper"}
    if make not in (made.egodex, rgbd_files.open3d):
        options["actions"] = MEANING
    expected, refused = scanned(tmp_path / "set", tmp_path / "local", **options)
    place = bucket.put(tmp_path / "set")
    episodes, rejected = scanned(place, tmp_path / "index", **options)
    assert expected and [one.episode_id for one in episodes] == [one.episode_id for one in expected]
    assert [one.reason for one in rejected] == [one.reason for one in refused]
    as_a_new_process()
    for one, other in zip(read_index(tmp_path / "index"), expected, strict=True):
        assert str(one.path).startswith("s3://") and one.bytes == other.bytes
        assert shown(one) == shown(other)
        for name, values in EpisodeReader(other).arrays.items():
            np.testing.assert_array_equal(EpisodeReader(one).arrays[name], values)


def _egodex_joints() -> tuple[str, ...]:
    from data.sources.mapping import GroupsLayout, shipped

    (layout,) = (shape for shape in shipped() if shape.name == "egodex")
    assert isinstance(layout, GroupsLayout) and layout.hands is not None
    return layout.hands.names


def test_of_a_data_set_only_what_an_episode_needs_is_brought(bucket: Bucket, tmp_path: Path) -> None:
    place = bucket.put(made.lerobot_21(tmp_path / "set"))
    scanned(place, tmp_path / "index", kind="data_set", cameras=[made.FRONT])
    cache.copies().let_go()
    for path in bucket.copies.glob("??/*"):
        path.unlink()
    as_a_new_process()
    bucket.server.requests()
    shown(read_index(tmp_path / "index")[0])
    brought = [Path(key).name for key in bucket.server.downloads()]
    assert sorted(brought) == ["episode_000000.mp4", "episode_000000.parquet", "info.json", "tasks.jsonl"]


@pytest.mark.parametrize("kind", ["video", "data_set"])
def test_what_is_brought_before_reading_is_all_that_reading_needs(bucket: Bucket, tmp_path: Path, kind: str) -> None:
    folder = discs(tmp_path / "set", count=1) if kind == "video" else made.lerobot_30(tmp_path / "set")
    episode = scanned(bucket.put(folder), tmp_path / "index", kind=kind)[0][0]
    shutil.rmtree(bucket.copies)
    as_a_new_process()
    signs: list[int] = []
    bring(episode, lambda: signs.append(1))
    assert signs and bucket.server.downloads()
    assert len(shown(episode)) == episode.frames and not bucket.server.downloads()


def test_what_changed_or_vanished(bucket: Bucket, tmp_path: Path, make_video: MakeVideo) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    for name, frames in (("changes", 20), ("stays", 21), ("goes", 22)):
        make_video(folder / f"{name}.mp4", frames=frames)
    place = bucket.put(folder)
    before = {one.path.stem: one for one in scanned(place, tmp_path / "index")[0]}
    bucket.put(make_video(tmp_path / "other.mp4", frames=25), "videos/changes.mp4")
    bucket.remove(f"{place}/goes.mp4")
    as_a_new_process()
    with pytest.raises(Unreadable, match="there is no such file"):
        shown(before["goes"])
    assert len(shown(before["changes"])) == 25, "as with a local file, what is there now is read"
    for again in (False, True):
        if again:
            as_a_new_process()
        after = {one.path.stem: one for one in scanned(place, tmp_path / "index")[0]}
        assert after.keys() == {"changes", "stays"} and after["stays"] == before["stays"]
        assert after["changes"].sha256 != before["changes"].sha256 and after["changes"].frames == 25


def test_keys_that_lead_elsewhere_do_not(bucket: Bucket, tmp_path: Path, make_video: MakeVideo) -> None:
    content = make_video(tmp_path / "sound.mp4").read_bytes()
    outside = set(tmp_path.rglob("*"))
    whole = ["h\\..\\d.mp4", "e" * 800 + ".mp4", "ü ñ?#%41.mp4"]
    hidden = ["../../../up.mp4", "f/../g.mp4"]
    for number, key in enumerate([*whole, *hidden, "/abs.mp4", "a//b.mp4", "./c.mp4"]):
        bucket.put_bytes(f"videos/{key}", content + bytes(number))
    episodes, rejected = scanned(f"{bucket.url}/videos", tmp_path / "index")
    assert {str(one.path).split("/videos/")[1] for one in episodes} == set(whole)
    assert [one.reason for one in rejected] == ["unreadable"] * 3, "no path has an empty part"
    assert place_of(f"{bucket.url}/videos/{hidden[0]}").read_bytes() == content + bytes(3)
    inside = {tmp_path / "index", bucket.copies}
    assert all(inside & {path, *path.parents} for path in set(tmp_path.rglob("*")) - outside)
    assert all(len(path.name) < 80 for path in bucket.copies.rglob("*"))


def test_killed_while_a_file_comes(bucket: Bucket, tmp_path: Path) -> None:
    content = np.random.default_rng(0).bytes(300_000)
    bucket.put_bytes("a.mp4", content)
    wire = Wire(bucket.server.port, allow=100_000)
    code = f"import os; from pipeline.remote import RemotePath; os.fspath(RemotePath({bucket.url + '/a.mp4'!r}))"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "AWS_ENDPOINT_URL": wire.url})
    while not any(path.stat().st_size for path in bucket.copies.glob("??/*.part")):
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    wire.close()
    assert not list(bucket.copies.glob("??/*.mp4"))
    assert RemotePath(f"{bucket.url}/a.mp4").read_bytes() == content
    assert [path.suffix for path in bucket.copies.glob("??/*")] == [".mp4"]


def test_a_network_that_fails_in_the_middle(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_video: MakeVideo
) -> None:
    content = np.random.default_rng(0).bytes(300_000)
    bucket.put_bytes("a.bin", content)
    wire = Wire(bucket.server.port, allow=100_000, cuts=2)
    monkeypatch.setenv("AWS_ENDPOINT_URL", wire.url)
    services._file_system.cache_clear()
    assert RemotePath(f"{bucket.url}/a.bin").read_bytes() == content, "asked again"
    wire.close()
    as_a_new_process()
    (tmp_path / "videos").mkdir()
    make_video(tmp_path / "videos/a.mp4")
    with pytest.raises(Unreachable, match=r"not to be reached.*run the same command again"):
        scanned(bucket.put(tmp_path / "videos"), tmp_path / "index")
    assert not (tmp_path / "index/episodes.parquet").exists(), "nothing is rejected for a network that is gone"
    services._file_system.cache_clear()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("s3://there-is-none/videos", "not a folder"),
        (f"s3://{BUCKET}/there-is-none", "not a folder"),
        ("gs://store/videos", "pip install gcsfs"),
    ],
)
def test_places_that_are_none(bucket: Bucket, tmp_path: Path, url: str, says: str) -> None:
    with pytest.raises(UserError, match=f"{url.split(':')[0]}://.*{says}"):
        scanned(url, tmp_path / "index")


def test_wrong_credentials_are_told_and_never_written(bucket: Bucket, tmp_path: Path, make_video: MakeVideo) -> None:
    (tmp_path / "videos").mkdir()
    make_video(tmp_path / "videos/a.mp4")
    place, config, out = bucket.put(tmp_path / "videos"), tmp_path / "c.yaml", tmp_path / "out"
    bucket.server.ask_for_credentials(True)
    try:
        with pytest.raises(UserError, match=f"'mine': {place}: access refused.*AWS_SECRET_ACCESS_KEY") as caught:
            scanned(place, tmp_path / "index")
    finally:
        bucket.server.ask_for_credentials(False)
    sources = [{"name": "mine", "path": place}]
    config.write_text(yaml.safe_dump({"run": {"out": str(out), "cache_gb": 1}, "index": {"sources": sources}}))
    command = [sys.executable, "-m", "pipeline", "run", str(config)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    written = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    assert place.encode() in written and SECRET.encode() not in written
    assert SECRET not in done.stdout + done.stderr + str(caught.value)


def test_urls_in_settings() -> None:
    assert place_of("file:///data/my%20videos") == Path("/data/my videos")
    assert not isinstance(place_of("file:///data"), RemotePath) and place_of("/data") == Path("/data")
    for url in ("https://user:hidden@host/videos", "https://host/videos?X-Amz-Signature=hidden"):
        raw = {"index": {"sources": [{"name": "mine", "path": url}]}}
        with pytest.raises(UserError, match=r"c.yaml: index.sources.0: .*password or a signature") as caught:
            Config(raw, Path("c.yaml")).section("index", IndexConfig)
        assert "hidden" not in str(caught.value)
    for url in ("s4://lab/videos", "s3://", "file://videos"):
        with pytest.raises(ValueError, match="path: "):
            IndexConfig.model_validate({"sources": [{"name": "mine", "path": url}]})


@pytest.mark.parametrize("name", ["g1_inspire_lerobot", "bridge_rlds", "dexterous"])
def test_real_footage_gives_the_same_index(bucket: Bucket, footage: Path, tmp_path: Path, name: str) -> None:
    options: dict[str, Any] = {} if name == "dexterous" else {"kind": "data_set", "actions": MEANING}
    expected, refused = scanned(footage / "robot" / name, tmp_path / "local", **options)
    episodes, rejected = scanned(bucket.put(footage / "robot" / name), tmp_path / "index", **options)
    assert expected and [one.episode_id for one in episodes] == [one.episode_id for one in expected]
    assert [one.reason for one in rejected] == [one.reason for one in refused]
    as_a_new_process()
    first, other = read_index(tmp_path / "index")[0], expected[0]
    assert shown(first, 3) == shown(other, 3)
