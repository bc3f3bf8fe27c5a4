"""An episode's way through extraction: cut at rest and at length, gated by name, whole or not at all."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from data.clips import decode_depth, decode_image
from data.config import IndexConfig
from data.index import Episode
from data.overlay import strip_image
from data.schema import ActionSpec
from data.video import Unreadable
from extract.config import ExtractConfig
from extract.mask.extractor import MaskExtractor
from extract.passage import Passage
from tests.disc_videos import wall_level, write_disc
from tests.indexed import indexed


def swing(seconds: float, rest: tuple[float, float] = (0, 0)) -> np.ndarray:
    """Centres of a disc that swings left and right, except between two times."""
    times = np.arange(0, seconds, 0.05)
    moving = ~((times >= rest[0]) & (times < rest[1]))
    phase = np.cumsum(moving) * 0.05
    return np.stack([0.05 * np.sin(2 * phase), 0.02 * np.cos(2 * phase)], -1)


def episode_of(folder: Path, centre_F2: np.ndarray) -> Episode:
    folder.mkdir()
    write_disc(folder / "disc.mp4", centre_F2)
    config = IndexConfig.model_validate({"sources": [{"name": "mine", "path": str(folder)}]})
    (episode,), _ = indexed(config, folder.with_name("index"), folder)
    return episode


def passage_of(episode: Episode, **changes: object) -> tuple[Passage, list[int]]:
    config = ExtractConfig.model_validate({"mask": {"points": 30}, **changes})
    alive: list[int] = []
    return Passage(episode, MaskExtractor(config.mask), config, lambda: alive.append(1)), alive


SPEC = {"names": ["x"], "proprio_names": ["x"], "unit": "m", "frame": "base", "mode": "delta", "rate_hz": 20}


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("actions", np.nan, "1 values are not finite, in frames 0 to 29; expected finite"),
        ("proprio", np.inf, "1 values are not finite"),
        ("opening", -0.1, "a known value is negative or infinite"),
        ("grasp", [np.nan, 0, 0], "a row is known in part; NaN marks whole rows"),
        ("world_from_camera", np.nan, "16 values are not finite"),
        ("world_from_camera", 2 * np.eye(4), "rotation part is not a rotation"),
    ],
)
def test_what_no_clip_may_hold_is_a_rejection_of_its_episode(
    tmp_path: Path, name: str, wrong: object, message: str
) -> None:
    folder, count = tmp_path / "videos", 30
    episode = episode_of(folder, swing(count / 20))
    arrays = dict(np.load(folder / "disc.npz")) | {
        "actions": np.zeros((count, 1)), "proprio": np.zeros((count, 1)), "opening": np.zeros(count),
        "grasp": np.full((count, 3), 0.4), "world_from_camera": np.tile(np.eye(4), (count, 1, 1)),
    }  # fmt: skip
    sidecar = episode.sidecar.model_copy(update={"labelled": True, "action_spec": ActionSpec.model_validate(SPEC)})
    labelled = episode.model_copy(update={"sidecar": sidecar})
    np.savez(folder / "disc.npz", allow_pickle=False, **arrays)
    (clip,) = passage_of(labelled)[0].clips()
    assert clip.frames == count and clip.problems() == []
    arrays[name][7] = wrong
    np.savez(folder / "disc.npz", allow_pickle=False, **arrays)
    with pytest.raises(Unreadable, match=rf"bad_arrays: disc.npz: {name}: {message}"):
        list(passage_of(labelled)[0].clips())


def test_long_motion_becomes_overlapping_clips_in_order(tmp_path: Path) -> None:
    episode = episode_of(tmp_path / "videos", swing(9))
    passage, alive = passage_of(episode, clips={"max_seconds": 3, "overlap_s": 0.5})
    clips = list(passage.clips())
    assert [clip.key for clip in clips] == [f"{episode.episode_id}-{number:04d}" for number in range(len(clips))]
    assert len(clips) == 4 and passage.rejections == []
    assert all(clip.problems() == [] for clip in clips)
    times = [clip.arrays["timestamps"] for clip in clips]
    for before, after in pairwise(times):
        assert after[0] == pytest.approx(before[-1] - 0.45, abs=0.02)
    assert times[-1][-1] == pytest.approx(8.95)
    assert passage.frames == passage.frames_with_effector == 180 and len(alive) == 2
    for clip in clips:
        indices = np.array(clip.meta.source_frames)
        assert (np.diff(indices) == 1).all()
        assert np.median(clip.image(0)[:, :2]) == pytest.approx(wall_level(indices[0]), abs=3)


def test_rest_is_cut_out_and_shown(tmp_path: Path) -> None:
    episode = episode_of(tmp_path / "videos", swing(9, rest=(2.5, 6.5)))
    passage, _ = passage_of(episode)
    first, second = passage.clips()
    assert first.arrays["timestamps"][-1] < 3.6 and second.arrays["timestamps"][0] > 5.4
    (rejected,) = passage.rejections
    assert rejected.reason == "at_rest" and rejected.picture is not None


def test_a_gate_rejects_with_name_value_limit_and_picture(tmp_path: Path) -> None:
    episode = episode_of(tmp_path / "videos", swing(2))
    open_passage, _ = passage_of(episode)
    (clip,) = open_passage.clips()
    residual = clip.meta.quality["residual_mm"]
    passage, _ = passage_of(episode, mask={"points": 30, "gates": {"residual_mm": {"at_most": residual / 2}}})
    assert list(passage.clips()) == []
    (rejected,) = passage.rejections
    assert rejected.reason == "gate_residual_mm"
    assert rejected.detail == f"residual_mm {residual:.4g} is above {residual / 2:g}, 0.00 to 1.95 s"
    assert rejected.picture is not None and strip_image(clip, 4).shape[1] > 0


def test_the_scene_is_stored_without_the_disc(tmp_path: Path) -> None:
    episode = episode_of(tmp_path / "videos", swing(2))
    passage, _ = passage_of(episode)
    (clip,) = passage.clips()
    assert clip.problems() == [] and "grasp" not in clip.arrays
    wall = [wall_level(frame) for frame in clip.meta.source_frames]
    behind = decode_image(clip.scenes[-1])[..., 0].astype(int)
    assert np.abs(np.array(clip.image(-1)[..., 0], int) - wall[-1]).max() > 60
    like_wall = (behind >= wall[0] - 25) & (behind <= wall[-1] + 25)
    assert like_wall.mean() > 0.99, "as the wall was at some time until now, but for the bleeding of compressed colours"
    depth = decode_depth(clip.depths[-1])
    assert (np.abs(depth - 1.2) < 0.002).mean() > 0.97
    bare, _ = passage_of(episode, scenes=False)
    (clip,) = bare.clips()
    assert clip.scenes == clip.depths == []


def test_an_episode_that_tells_actor_and_grasp_point_is_believed(tmp_path: Path) -> None:
    episode = episode_of(tmp_path / "videos", swing(2))
    assert episode.arrays_path is not None
    with np.load(episode.arrays_path) as stored:
        arrays = {name: stored[name] for name in stored}
    grasp = np.arange(3 * 40, dtype=np.float32).reshape(40, 3)
    corner = np.zeros((40, 48, 64), bool)
    corner[:, :10, :10] = True
    np.savez(episode.arrays_path, **arrays, grasp=grasp, actor=corner)  # pyright: ignore[reportArgumentType]
    (clip,) = passage_of(episode)[0].clips()
    np.testing.assert_array_equal(clip.arrays["grasp"], grasp[clip.meta.source_frames])
    scene, image = (picture.astype(int) for picture in (decode_image(clip.scenes[-1]), clip.image(-1)))
    assert np.abs(scene - image)[14:, 14:].max() < 40, "the disc is no actor here"
    np.savez(episode.arrays_path, **arrays, grasp=grasp[:, :2])  # pyright: ignore[reportArgumentType]
    with pytest.raises(Unreadable, match=r"grasp is \[40, 2\]"):
        list(passage_of(episode)[0].clips())


def test_an_episode_without_effector_says_so_once(tmp_path: Path) -> None:
    episode = episode_of(tmp_path / "videos", np.full((40, 2), 9.0))
    passage, _ = passage_of(episode)
    assert list(passage.clips()) == []
    assert [(r.reason, r.detail) for r in passage.rejections] == [("no_effector", "no effector in 40 frames")]
    assert passage.rejections[0].picture is not None
