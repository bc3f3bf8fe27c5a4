"""A policy that asks its predictor as another embodiment, with points moved by an offset that labelled clips tell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from align.export import export
from align.offset import fitted_offset
from align.policy import load_policy
from align.run import AlignRun
from align.train import align
from data.clips import write_shard
from data.config import WindowConfig
from data.loader import WindowDataset, collate
from pipeline.config import Config, load
from pipeline.errors import UserError
from pretrain.model.configuration_kinecloud import KinecloudConfig
from pretrain.model.modeling_kinecloud import KinecloudPrediction, KinecloudPredictor
from tests.align_runs import aligned, config_file
from tests.graph_policies import graph_policy, inverse_dynamics
from tests.pretrain_clips import moving_clip, write_clips

HAND = "human-hand"
OFFSET = torch.tensor([0.01, -0.02, 0.03])


@pytest.fixture(scope="module", autouse=True)
def _few_windows() -> Iterator[None]:
    """Enough for made-up clips."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("align.offset.MOST_WINDOWS", 32)
        yield


class Beside(nn.Module):
    """A predictor that knows where the effector will be, as one that is found elsewhere by ``beside_3`` would be."""

    def __init__(self, futures: dict[str, Tensor], beside_3: Tensor, slot: int):
        super().__init__()
        self.futures, self.beside_3, self.slot = futures, beside_3, slot

    def forward(self, key: list[str], time: Tensor, embodiment: Tensor, **_: Any) -> KinecloudPrediction:
        assert (embodiment == self.slot).all()
        grasp = torch.stack([self.futures[f"{k} {t:.3f}"] for k, t in zip(key, time.tolist(), strict=True)])
        grasp = grasp + self.beside_3
        return KinecloudPrediction(points=grasp[:, :, None], opening=grasp[..., 0], grasp=grasp)


def labelled_windows(folder: Path) -> WindowDataset:
    shard, _ = write_clips(folder / "clips", labelled=True)
    return WindowDataset([shard], WindowConfig(image_size=32, points=12, action_chunk=4), labels="only")


def test_the_offset_is_the_one_by_which_the_embodiments_differ(tmp_path: Path) -> None:
    windows = labelled_windows(tmp_path)
    futures = {}
    for number in range(len(windows)):
        window = collate([windows[(number, number)]])
        futures[f"{window['key'][0]} {float(window['time'][0]):.3f}"] = window["future_grasp"][0]
    found = fitted_offset(Beside(futures, OFFSET, 1), windows, 1)  # pyright: ignore[reportArgumentType]
    assert found is not None
    np.testing.assert_allclose(found.metres_3, OFFSET, atol=1e-3)
    same = fitted_offset(Beside(futures, 0 * OFFSET, 2), windows, 2)  # pyright: ignore[reportArgumentType]
    assert same is not None and np.abs(same.metres_3).max() < 1e-3
    assert found.without_m == pytest.approx(float(OFFSET.norm()), abs=1e-4) and found.with_m < 1e-3


def test_what_labels_do_not_tell_is_no_offset(tmp_path: Path) -> None:
    """A predictor that goes on as points went is the same anywhere."""
    predictor = KinecloudPredictor(KinecloudConfig(image_size=32, width=32, layers=1, heads=2, slots=2)).eval()
    found = fitted_offset(predictor, labelled_windows(tmp_path), 1)
    assert found is not None and np.abs(found.metres_3).max() < 1e-3


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return aligned(tmp_path_factory.mktemp("whole"), head="inverse_dynamics", asks_as=HAND)


def test_alignment_fits_the_offset_and_the_export_keeps_it(whole: Config) -> None:
    policy = load_policy(whole.folder("align") / "model")
    told = policy.borrowed()
    assert told is not None and told.slot == 1 + policy.config.embodiments.index(HAND)
    assert told.offset_3.abs().sum() > 0
    assert f"asked as {HAND}, with points moved by" in (whole.run.out / "logs" / "align.jsonl").read_text()
    export(whole, {})
    exported = load_policy(whole.folder("export") / "policy")
    assert torch.equal(exported.get_buffer("offset"), told.offset_3)
    assert f"asked as `{HAND}`" in (whole.folder("export") / "policy" / "README.md").read_text()


@pytest.mark.parametrize("make", [graph_policy, inverse_dynamics])
@pytest.mark.parametrize("grasp", ["told", "untold"])
def test_points_are_moved_for_the_predictor_and_back(make: Any, grasp: str, tmp_path: Path) -> None:
    windows = labelled_windows(tmp_path)
    window = collate([windows[(n, n)] for n in (3, 40, 80)])
    if grasp == "untold":
        del window["past_grasp"]
    plain, asking = make(waypoints=3), make(waypoints=3, asks_as=HAND)
    asking.load_state_dict(plain.state_dict() | {"offset": OFFSET})
    moved = {name: window[name] + OFFSET for name in ("past", "past_grasp") if name in window}
    with torch.no_grad():
        there = plain(**(window | moved | {"embodiment": [HAND] * 3}))
        here = asking(**window)
        own = plain(**window)
    for name in ("points", "grasp"):
        torch.testing.assert_close(here[name], there[name] - OFFSET)
    torch.testing.assert_close(here.waypoints[..., :3], there.waypoints[..., :3] - OFFSET)
    for name in ("opening", "actions"):
        torch.testing.assert_close(here[name], there[name])
    torch.testing.assert_close(here.waypoints[..., 3], there.waypoints[..., 3])
    assert not torch.allclose(here.points, own.points, atol=1e-4)


def test_motion_to_follow_is_told_as_the_robots_own(tmp_path: Path) -> None:
    windows = labelled_windows(tmp_path)
    window = collate([windows[(n, n)] for n in (3, 4)])
    truth = KinecloudPrediction(points=window["future"], opening=window["future_opening"], grasp=window["future_grasp"])
    plain, asking = inverse_dynamics(), inverse_dynamics(asks_as=HAND)
    asking.load_state_dict(plain.state_dict() | {"offset": OFFSET})
    with torch.no_grad():
        here, there = asking(**window, follow=truth), plain(**window, follow=truth)
    # motion is the same anywhere
    torch.testing.assert_close(here.actions, there.actions, atol=1e-5, rtol=1e-4, equal_nan=True)
    torch.testing.assert_close(here.points, truth.points, atol=1e-6, rtol=1e-5)


def again(whole: Config, folder: Path, shards: tuple[Path, Path] | None = None, **align_changes: Any) -> Config:
    """Alignment of the same predictor, by default on the same clips."""
    clips = whole.run.out.parent / "clips"
    shards = shards or (clips / "train-00000.tar", clips / "val-00000.tar")
    model = whole.folder("pretrain") / "model"
    return load(config_file(folder, shards, predictor=str(model), **align_changes))


def test_a_direct_head_learns_with_it(whole: Config, tmp_path: Path) -> None:
    config = again(whole, tmp_path, asks_as=HAND)
    align(config, resume=False)
    assert load_policy(config.folder("align") / "model").borrowed() is not None


def test_an_embodiment_that_was_never_shown_is_refused(whole: Config, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"align.asks_as: 'octopus'.* it knows human-hand, sawyer-gripper"):
        align(again(whole, tmp_path, asks_as="octopus"), resume=False)


def test_clips_too_short_to_tell_are_refused(whole: Config, tmp_path: Path) -> None:
    shards = tmp_path / "train.tar", tmp_path / "val.tar"
    for shard in shards:
        write_shard(shard, [moving_clip(number, frames=2, labelled=True) for number in range(4)])
    config = again(whole, tmp_path, shards, asks_as=HAND)
    with pytest.raises(UserError, match="no labelled clip is longer than"):
        _ = AlignRun(config).offset_m
