"""Data sets of others in the index: an episode per camera and instruction, read as the format's own reader reads it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from data.config import IndexConfig
from data.index import EPISODES, Episode, Rejection, read_index
from data.reader import EpisodeReader
from data.scan import data_sets as data_sets_scan
from data.sources.folder import data_sets, recordings
from data.sources.recording import Recording
from data.video import Unreadable
from pipeline.errors import UserError
from tests import source_files as made
from tests.indexed import indexed

MEANING = {"unit": "m", "frame": "base", "mode": "delta"}
FORMATS = [made.lerobot_21, made.lerobot_30, made.rlds, made.robomimic]
Make = Callable[[Path], Path]


def scanned(path: Path, out: Path, **source: Any) -> tuple[list[Episode], list[Rejection]]:
    document = {"sources": [{"name": "theirs", "kind": "data_set", "path": path, "effector": "gripper", **source}]}
    return indexed(IndexConfig.model_validate(document), out)


def directly(path: Path) -> dict[str, Recording]:
    (one,) = data_sets(path)
    return {found.name: found for found in recordings(one) if isinstance(found, Recording)}


def recording_of(episode: Episode, known: dict[str, Recording]) -> Recording:
    return next(known[name] for name in known if episode.episode_id.startswith(name[:40]))


@pytest.mark.parametrize("make", FORMATS)
def test_every_camera_of_every_recording_is_an_episode(tmp_path: Path, make: Make) -> None:
    known = directly(make(tmp_path / "set"))
    episodes, rejected = scanned(tmp_path / "set", tmp_path / "index")
    assert not rejected and len(episodes) == sum(len(one.cameras) for one in known.values())
    assert len({episode.group for episode in episodes}) == len(known), "cameras of one recording are one group"
    for episode in episodes:
        assert episode.recording is not None
        one = recording_of(episode, known)
        camera = one.cameras[episode.recording.camera]
        assert (episode.width, episode.height, episode.fps) == (camera.width, camera.height, camera.fps)
        assert episode.frames == one.frames and episode.instruction == one.instructions[0]
        read = list(EpisodeReader(episode).frames(None))
        assert [frame.index for frame in read] == list(range(one.frames))
        np.testing.assert_allclose([frame.time for frame in read], one.timestamps)
        for frame, image in zip(read, camera.frames(), strict=True):
            np.testing.assert_array_equal(frame.image, image)
        half = list(EpisodeReader(episode).frames(camera.fps / 2))
        assert [frame.index for frame in half] == list(range(0, one.frames, 2))
        assert "actions" not in EpisodeReader(episode).arrays, "actions without a declared meaning are not read"


@pytest.mark.parametrize("make", FORMATS)
def test_with_their_meaning_actions_are_labels(tmp_path: Path, make: Make) -> None:
    known = directly(make(tmp_path / "set"))
    episodes, _ = scanned(tmp_path / "set", tmp_path / "index", actions=MEANING)
    for episode in episodes:
        one, arrays = recording_of(episode, known), EpisodeReader(episode).arrays
        assert one.actions is not None and one.proprio is not None and episode.sidecar.labelled
        np.testing.assert_array_equal(arrays["actions"], one.actions.values)
        np.testing.assert_array_equal(arrays["proprio"], one.proprio.values)
        spec = episode.sidecar.action_spec
        assert spec is not None and spec.names == list(one.actions.names) and spec.rate_hz == episode.fps
        assert (spec.unit, spec.frame, spec.mode, spec.proprio_names) == (*MEANING.values(), list(one.proprio.names))


@pytest.mark.parametrize("make", FORMATS)
def test_content_decides_identity(tmp_path: Path, make: Make) -> None:
    make(tmp_path / "sets/a")
    first, _ = scanned(tmp_path / "sets", tmp_path / "index")
    shutil.copytree(tmp_path / "sets/a", tmp_path / "sets/b")
    again, rejected = scanned(tmp_path / "sets", tmp_path / "index")
    assert [episode.episode_id for episode in again] == [episode.episode_id for episode in first]
    if make is not made.robomimic:  # all HDF5 files below a folder are one data set
        assert {rejection.reason for rejection in rejected} == {"duplicate"} and len(rejected) == len(first)
        assert f"{tmp_path / 'sets/a'}" in rejected[0].detail


def test_cameras_are_chosen_by_name(tmp_path: Path) -> None:
    made.lerobot_21(tmp_path / "set", episodes=2)
    episodes, rejected = scanned(tmp_path / "set", tmp_path / "index", cameras=[made.WRIST])
    assert not rejected and {episode.recording.camera for episode in episodes if episode.recording} == {made.WRIST}
    episodes, rejected = scanned(tmp_path / "set", tmp_path / "index", cameras=["overhead"])
    assert not episodes and {rejection.reason for rejection in rejected} == {"no_camera"}
    assert made.FRONT in rejected[0].detail and "overhead" in rejected[0].detail


def test_an_instruction_that_changes_makes_stretches_and_depth_comes_along(tmp_path: Path) -> None:
    import h5py

    (tmp_path / "set").mkdir()
    with h5py.File(tmp_path / "set/a.h5", "w") as file:
        file["ep/0/rgb"] = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((3, 4, 6, 3), np.uint8)
        file["ep/0/z"] = np.full((3, 4, 6), 1500, np.uint16)
        file["ep/0/q"], file["ep/0/said"] = np.arange(3), ["go", "go", "stop"]
    layout = tmp_path / "mine.yaml"
    layout.write_text(
        "{format: hdf5, name: mine, episodes: ep/*, length: q, rate_hz: 10, instruction: [{at: said}],"
        " cameras: {head: {path: rgb, depth: z, depth_unit_m: 0.001}}}"
    )
    matrix = [[50, 0, 3], [0, 50, 2], [0, 0, 1]]
    episodes, _ = scanned(tmp_path / "set", tmp_path / "index", layout=layout, intrinsics=matrix)
    assert [(episode.instruction, episode.span) for episode in episodes] == [("go", (0, 2)), ("stop", (2, 3))]
    assert len({episode.group for episode in episodes}) == 1
    assert np.array_equal(episodes[0].sidecar.intrinsics or (), matrix)
    (frame,) = EpisodeReader(episodes[1]).frames(None)
    assert frame.index == 2 and (frame.image == 2).all() and frame.depth is not None
    np.testing.assert_allclose(frame.depth, 1.5)


def test_what_cannot_be_read_is_rejected_in_the_index_or_when_it_is_read(tmp_path: Path) -> None:
    root = made.lerobot_21(tmp_path / "set", episodes=3)
    tables = sorted(root.glob("data/**/*.parquet"))
    tables[0].write_bytes(tables[0].read_bytes()[:200])
    films = sorted(root.glob(f"videos/**/{made.FRONT}/*.mp4"))
    films[1].write_bytes(films[1].read_bytes()[:300])
    episodes, rejected = scanned(root, tmp_path / "index", cameras=[made.FRONT])
    assert [rejection.reason for rejection in rejected] == ["unreadable"] and "episode-000000" in rejected[0].item
    with pytest.raises(Unreadable):
        list(EpisodeReader(episodes[0]).frames(None))
    assert len(list(EpisodeReader(episodes[1]).frames(None))) == made.FRAMES


def test_a_folder_without_a_data_set_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"theirs.*meta/info\.json"):
        scanned(tmp_path, tmp_path / "index")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ({"kind": "data_set"}, "path"),
        ({"kind": "video", "path": ".", "cameras": ["a"]}, "cameras: for kind data_set only"),
        ({"kind": "simulation", "actions": MEANING}, "actions: for kind data_set only"),
        ({"kind": "data_set", "path": ".", "actions": {"unit": "m", "frame": "base"}}, "mode"),
    ],
)
def test_a_source_that_contradicts_itself_is_refused(source: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        IndexConfig.model_validate({"sources": [{"name": "x", **source}]})


def test_an_index_of_the_first_releases_is_still_read(tmp_path: Path) -> None:
    made.rlds(tmp_path / "set")
    episodes, _ = scanned(tmp_path / "set", tmp_path / "index")
    (tmp_path / "index" / EPISODES).unlink()
    rows = [json.loads(episode.model_dump_json(exclude={"recording"})) for episode in episodes]
    (tmp_path / "index/episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_index(tmp_path / "index") == [episode.model_copy(update={"recording": None}) for episode in episodes]


def test_a_damaged_index_is_told(tmp_path: Path) -> None:
    made.rlds(tmp_path / "set")
    scanned(tmp_path / "set", tmp_path / "index")
    path = tmp_path / "index" / EPISODES
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(UserError, match=r"episodes\.parquet: not an index"):
        read_index(tmp_path / "index")


@pytest.mark.parametrize(
    ("name", "episodes", "frames", "rejected"),
    [
        ("g1_inspire_lerobot", 3, 776, {"missing": 97}),
        ("bridge_rlds", 100, 1000, {"missing": 1}),
    ],
)
def test_real_data_sets_are_indexed_and_every_frame_is_read(
    footage: Path, tmp_path: Path, name: str, episodes: int, frames: int, rejected: dict[str, int]
) -> None:
    found, refused = scanned(footage / "robot" / name, tmp_path / "index", actions=MEANING)
    assert len(found) == episodes and {one.reason: len(refused) for one in refused} == rejected
    known = directly(footage / "robot" / name)
    read = 0
    for episode in found:
        reader, one = EpisodeReader(episode), recording_of(episode, known)
        assert one.actions is not None
        np.testing.assert_array_equal(reader.arrays["actions"], one.actions.values)
        read += sum(frame.image.shape == (episode.height, episode.width, 3) for frame in reader.frames(None))
    assert read == frames


def test_a_camera_that_fails_takes_the_whole_recording_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made.lerobot_21(tmp_path / "set")
    whole, _ = scanned(tmp_path / "set", tmp_path / "index")
    make, calls = data_sets_scan._episode, []

    def failing(*arguments: Any) -> Episode:
        calls.append(arguments)
        if len(calls) == 2:
            raise FileNotFoundError(2, "gone", "second camera")
        return make(*arguments)

    monkeypatch.setattr(data_sets_scan, "_episode", failing)
    episodes, rejected = scanned(tmp_path / "set", tmp_path / "again")
    (one,) = rejected
    assert one.reason == "unreadable" and one.detail == "second camera: gone"
    assert {e.group for e in whole} - {e.group for e in episodes} and len(whole) - len(episodes) == 2
