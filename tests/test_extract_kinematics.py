"""Speed and acceleration in metres and seconds, whatever the frame rate."""

from __future__ import annotations

import numpy as np
import pytest

from extract.kinematics import kinematics


@pytest.mark.parametrize("rate", [10, 25, 60])
def test_speed_and_acceleration_of_a_circle(rate: int) -> None:
    times = np.arange(0, 4, 1 / rate)
    centre = 0.2 * np.stack([np.cos(3 * times), np.sin(3 * times), 5 + 0 * times], -1)
    shape = np.random.default_rng(0).normal(scale=0.03, size=(40, 3))
    shape -= shape.mean(0)
    told = kinematics(centre[:, None] + shape, times)
    assert told["speed"] == pytest.approx(0.6, rel=0.02)
    assert told["acceleration"] == pytest.approx(1.8, rel=0.03)


def test_a_clip_that_is_too_short_is_not_judged() -> None:
    assert kinematics(np.zeros((4, 5, 3)), np.arange(4) / 20) == {}
    assert kinematics(np.zeros((1, 5, 3)), np.zeros(1)) == {}
