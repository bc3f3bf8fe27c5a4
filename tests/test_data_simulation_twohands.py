"""Two simulated hands in one picture: the nearer one covers the other, and the truth is exact."""

from __future__ import annotations

import numpy as np
import pytest

from data.simulation.twohands import ACTS, TwoHands, TwoHandsSettings, make_two_hands
from data.simulation.write import DEPTH_UNIT_M

SETTINGS = TwoHandsSettings(act="occlude", sides=("right", "left"), seconds=0.2, width=320, height=240)


@pytest.fixture(scope="module")
def clip() -> TwoHands:
    return make_two_hands(7, SETTINGS)


def test_the_nearer_hand_covers_the_other(clip):
    near, far = clip.mask_2FHW
    assert near.any((1, 2)).all() and not (near & far).any()
    assert (clip.uncovered_2F[0] == 1).all() and clip.uncovered_2F[1].min() < 0.95
    depth = clip.depth * DEPTH_UNIT_M
    assert np.median(depth[near]) < np.median(depth[far]) - 0.05


def test_palms_lie_in_the_masks_and_at_the_depth_of_their_joints(clip):
    uvw = clip.joints_2T213 @ clip.intrinsics_33.T
    pixels = uvw[..., :2] / uvw[..., 2:]
    frame = 0  # hands are still apart
    for hand in (0, 1):
        x, y = pixels[hand, frame, [0, 5, 9, 13, 17]].mean(0)
        assert clip.mask_2FHW[hand, frame, int(y), int(x)]
        seen = clip.depth[frame, int(y), int(x)] * DEPTH_UNIT_M
        assert abs(seen - clip.joints_2T213[hand, frame, [0, 5, 9, 13, 17], 2].mean()) < 0.03


def test_the_seed_fixes_every_byte(clip):
    again = make_two_hands(7, SETTINGS)
    assert all((a == b).all() for a, b in zip(clip.images, again.images, strict=True))
    assert (clip.joints_2T213 == again.joints_2T213).all()
    images, arrays, sidecar = clip.episode(7)
    assert (
        len(images) == 5
        and arrays["truth_joints"].shape == (2, 5, 21, 3)
        and sidecar["truth_sides"] == ["right", "left"]
    )


def test_acts_do_what_they_say():
    time = np.arange(0, 3, 0.04)
    for name, act in ACTS.items():
        near, far = act(time, 3.0)
        assert near.shape == far.shape == (len(time), 2), name
    cross = ACTS["cross"](time, 3.0)[..., 0]
    assert np.sign(cross[0] - cross[1])[0] == -np.sign(cross[0] - cross[1])[-1]
    leave = ACTS["leave"](time, 3.0)[1, :, 0]
    assert leave.max() > 0.5 and leave[-1] < 0.15
    touch = np.linalg.norm(np.diff(ACTS["touch"](time, 3.0), axis=0)[0], axis=-1)
    assert touch.min() < 0.11 < 0.29 < touch[0]
