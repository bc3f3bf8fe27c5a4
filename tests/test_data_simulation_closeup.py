"""Close-up clips: depth, mask, camera and truth describe one and the same hand."""

import numpy as np
import pytest

from data.simulation.closeup import CloseupSettings, make_closeup
from data.simulation.render import backproject
from data.simulation.surface import hand_distance
from data.simulation.write import DEPTH_UNIT_M

SETTINGS = CloseupSettings(width=320, height=240, seconds=0.32, step_mm=12, side="left")


@pytest.fixture(scope="module")
def clip():
    return make_closeup(3, SETTINGS)


def _intrinsics(clip):
    return np.array(clip[2]["intrinsics"])


def test_masked_pixels_lie_on_the_exact_surface(clip):
    _, arrays, _ = clip
    for frame in range(len(arrays["depth"])):
        points = backproject(arrays["depth"][frame] * DEPTH_UNIT_M, _intrinsics(clip), arrays["mask"][frame])
        distance = np.abs(hand_distance(points, arrays["truth_capsules"][frame], arrays["truth_ellipsoids"][frame]))
        assert len(points) > 1000
        assert distance.mean() < 0.0001 and distance.max() < 0.001


def test_surface_sample_lies_on_the_surface(clip):
    _, arrays, _ = clip
    sample = arrays["truth_surface"][0]
    sample = sample[np.isfinite(sample).all(axis=1)]
    distance = hand_distance(sample, arrays["truth_capsules"][0], arrays["truth_ellipsoids"][0])
    assert len(sample) == 500 and np.abs(distance).max() < 0.001


def test_joints_project_into_the_mask_and_lie_behind_the_skin(clip):
    _, arrays, _ = clip
    uvw = arrays["truth_joints"] @ _intrinsics(clip).T
    column, row = np.floor(uvw[..., 0] / uvw[..., 2]).astype(int), np.floor(uvw[..., 1] / uvw[..., 2]).astype(int)
    frames = np.arange(len(uvw))[:, None]
    covered = arrays["mask"][frames, row, column]
    # The wrist may be seen through the forearm, which is not part of the hand.
    assert covered[:, 1:].mean() > 0.97
    skin = arrays["depth"][frames, row, column] * DEPTH_UNIT_M
    assert (skin[covered] < uvw[..., 2][covered]).all()


def test_motion_has_the_asked_speed_and_time_base(clip):
    images, arrays, _ = clip
    steps = np.linalg.norm(np.diff(arrays["truth_joints"], axis=0), axis=-1)
    assert np.median(steps) == pytest.approx(0.012, rel=0.05)
    assert len(images) == round(SETTINGS.seconds * SETTINGS.rate_hz) == len(arrays["mask"])


def test_impossible_speed_is_refused_with_a_remedy():
    with pytest.raises(RuntimeError, match="lower step_mm"):
        make_closeup(0, CloseupSettings(width=64, height=64, seconds=0.2, step_mm=5000))
