"""The simulated hand keeps anatomy, mirror symmetry, and does with its fingers what it is asked to."""

# pyright: reportAttributeAccessIssue=false
import mujoco
import numpy as np
import pytest

from data.simulation.hand import INDEX_TIP, THUMB_TIP, HandRig, HandShape, attach_hand
from data.simulation.pinch import RESTING, pinch_angles
from data.simulation.surface import hand_distance


def _rig(shape: HandShape) -> HandRig:
    spec = mujoco.MjSpec()
    attach_hand(spec, shape.side)
    model = spec.compile()
    return HandRig(model, mujoco.MjData(model), shape)


def test_left_hand_is_the_mirror_image_of_the_right():
    rigs = [_rig(HandShape(side=side)) for side in ("right", "left")]
    landmarks, surfaces = [], []
    for rig in rigs:
        rig.pose(rig.joints({**RESTING, "mcp2_abduction": 0.2, "cmc_flexion": -0.3}), np.zeros(3), np.eye(3))
        landmarks.append(rig.landmarks())
        surfaces.append(rig.surface(np.eye(4)))
    np.testing.assert_allclose(landmarks[1], landmarks[0] * [-1, 1, 1], atol=1e-6)
    points = np.random.default_rng(0).uniform([-0.1, -0.17, -0.1], [0.1, 0.03, 0.1], (200, 3))
    np.testing.assert_allclose(
        hand_distance(points * [-1, 1, 1], *surfaces[1]), hand_distance(points, *surfaces[0]), atol=1e-5
    )


def test_bones_keep_their_length_in_every_pose_and_grow_with_the_hand():
    bones = [(a, a + 1) for a in range(1, 20) if a % 4]
    lengths = []
    for scale in (1.0, 1.1):
        rig = _rig(HandShape(scale=scale))
        for bend in (0.0, 0.9):
            rig.pose(rig.joints({name: bend for name in RESTING}), np.ones(3), np.eye(3))
            points = rig.landmarks()
            lengths.append([np.linalg.norm(points[a] - points[b]) for a, b in bones])
    np.testing.assert_allclose(lengths[0], lengths[1], rtol=1e-6)
    np.testing.assert_allclose(np.array(lengths[0]) * 1.1, lengths[2], rtol=1e-6)
    assert min(lengths[0]) > 0.015 and max(lengths[0]) < 0.055


def test_every_landmark_lies_under_the_skin():
    rig = _rig(HandShape())
    rig.pose(rig.joints(RESTING), np.zeros(3), np.eye(3))
    depth = -hand_distance(rig.landmarks(), *rig.surface(np.eye(4)))
    assert (depth[1:] > 0.002).all() and (depth < 0.02).all()


@pytest.mark.parametrize("shape", [HandShape(), HandShape(0.9, 1.25), HandShape(1.1, 1.05, side="left")])
def test_pinch_opens_as_wide_as_asked(shape):
    rig = _rig(shape)
    for gap in np.linspace(0.012, 0.085, 8):
        rig.pose(pinch_angles(rig, gap), np.zeros(3), np.eye(3))
        assert rig.pinch_gap() == pytest.approx(gap, abs=0.003)
        tips = rig.landmarks()[[THUMB_TIP, INDEX_TIP]]
        assert np.linalg.norm(tips[0] - tips[1]) - rig.tip_radii() == pytest.approx(rig.pinch_gap(), abs=1e-9)


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_hand_of_scale_1_has_an_adults_palm(side):
    rig = _rig(HandShape(side=side))
    rig.pose(rig.joints({}), np.zeros(3), np.eye(3))
    wrist, index, middle, ring, little = rig.landmarks()[[0, 5, 9, 13, 17]]
    chords = [index - wrist, middle - wrist, ring - wrist, little - wrist]
    chords += [index - middle, middle - ring, ring - little, index - little]
    lengths = np.linalg.norm(chords, axis=1)
    assert lengths.mean() == pytest.approx(0.061, abs=0.0005)  # the size that extraction assumes
    assert lengths[1] == pytest.approx(0.093, abs=0.003) and lengths[-1] == pytest.approx(0.062, abs=0.002)
