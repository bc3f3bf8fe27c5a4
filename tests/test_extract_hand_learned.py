"""Hands at the distances of a depth network: tied to the hand's size, jumps of single frames taken out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from data.simulation.closeup import CloseupSettings, make_closeup
from data.simulation.write import write_episode
from extract.config import ExtractConfig
from extract.depth.consistency import Kind
from extract.depth.learned import DepthAnythingSettings, LearnedDepth
from extract.effector import extract
from extract.effectors import build_extractor
from extract.hand.config import HandConfig
from extract.hand.extractor import HandExtractor
from extract.hand.learned import LearnedDepthHands
from extract.steps import Shot
from tests.benchmarks.hand_clips import HandClip, read_clips
from tests.tiny_models import tiny_depth_anything


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> HandClip:
    folder = tmp_path_factory.mktemp("closeup")
    images, arrays, sidecar = make_closeup(1006, CloseupSettings(step_mm=8.0, seconds=1.0))
    write_episode(folder, "closeup", images, 25, arrays, sidecar)
    return read_clips(folder)[0]


class Wobbling(LearnedDepth):
    """Exact depth in wrong units, each frame by its own, as a network that sees frames one by one gives it; from there
    on the code that real networks take."""

    @property
    def kind(self) -> Kind:
        return "metric"

    def __init__(self, clip: HandClip):
        self.settings, self._name = DepthAnythingSettings(), "wobbling"
        self.clip = clip
        rng = np.random.default_rng(3)
        self.scale_F = 2.5 * np.exp(rng.normal(scale=0.1, size=len(clip.arrays["depth"])))

    @property
    def weights_sha256(self) -> dict[str, str]:
        return {}

    def outputs(self, shot: Shot) -> Iterator[np.ndarray]:
        for frame in shot.frames:
            depth = self.clip.arrays["depth"][frame.index] * np.float32(self.clip.depth_unit_m)
            yield np.where(depth > 0, depth, 6.0).astype(np.float32) * np.float32(self.scale_F[frame.index])


def test_the_network_wobble_does_not_reach_the_hand(clip: HandClip) -> None:
    frames = list(clip.frames(with_depth=False))
    plain = extract(HandExtractor(HandConfig()), frames, clip.camera).tracks[0]
    hands = LearnedDepthHands(HandConfig(), Wobbling(clip), "wobbling")
    (track,) = extract(hands, frames, clip.camera).tracks
    assert (track.scale, track.depth_source) == ("assumed", "wobbling")
    truth = clip.arrays["truth_joints"][track.frame_slots].mean(1)
    placed = track.points.mean(1)
    # The size of the hand decides the distance on the whole, the network how it changes.
    assert abs(np.median(placed[:, 2]) / np.median(plain.points[..., 2]) - 1) < 0.1
    change = np.log(placed[:, 2] / truth[:, 2])
    assert np.std(change - change.mean()) < 0.03
    assert (track.sigma[:, 1] > 0.01 * placed[:, 2]).all()


def test_a_sensor_is_trusted_more_than_a_network(clip: HandClip) -> None:
    frames = list(clip.frames(with_depth=True))
    hands = LearnedDepthHands(HandConfig(), Wobbling(clip), "wobbling")
    (track,) = extract(hands, frames, clip.camera).tracks
    assert (track.scale, track.depth_source) == ("metric", "sensor")


def test_a_depth_network_is_chosen_in_the_configuration(clip: HandClip, tmp_path: Path) -> None:
    checkpoint = tiny_depth_anything(tmp_path / "depth")
    depth = {"name": "depth-anything", "checkpoint": str(checkpoint), "device": "cpu"}
    extractor = build_extractor("hand", ExtractConfig.model_validate({"hand": {"depth": depth}}))
    assert extractor.name.endswith("+depth-anything")
    assert any("depth_anything" in name for name in extractor.weights_sha256)
    sights = list(extractor.look(list(clip.frames(with_depth=False))[:18], clip.camera))
    extraction = extractor.lift(sights, clip.camera)  # random weights: what comes out is only as wrong as it says
    assert extraction.tracks or extraction.rejections
