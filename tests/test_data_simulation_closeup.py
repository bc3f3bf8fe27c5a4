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


@pytest.mark.parametrize(
    ("side", "viewpoint"), [("right", (25.0, 90.0)), ("left", (130.0, 0.0)), ("right", (180.0, 0.0))]
)
def test_a_hand_is_seen_from_where_it_was_asked_in_the_asked_size(side, viewpoint):
    settings = CloseupSettings(
        width=160, height=120, seconds=0.4, step_mm=4, side=side, hand_scale=1.1, viewpoint=viewpoint
    )
    joints = make_closeup(4, settings)[1]["truth_joints"].astype(float)
    chords = joints[:, [0, 0, 0, 0, 5, 9, 13, 5]] - joints[:, [5, 9, 13, 17, 9, 13, 17, 17]]
    assert np.median(np.linalg.norm(chords, axis=-1).mean(1)) == pytest.approx(1.1 * 0.061, rel=0.03)
    # Out of the palm's front, from its joints; the motion turns the hand by up to 25 degrees.
    front = np.cross(joints[:, 5] - joints[:, 17], joints[:, 9] - joints[:, 0]) * (1 if side == "right" else -1)
    to_camera = -joints[:, (0, 5, 9, 13, 17)].mean(1)
    cosine = np.sum(front * to_camera, -1) / np.linalg.norm(front, axis=-1) / np.linalg.norm(to_camera, axis=-1)
    assert abs(np.degrees(np.arccos(cosine)).mean() - viewpoint[0]) < 30
    if viewpoint[0] != 180:
        near, far = (5, 17) if viewpoint[1] == 0 else (9, 0)  # thumb's side, or knuckles against wrist
        assert np.mean(joints[:, near, 2] < joints[:, far, 2]) > 0.9
