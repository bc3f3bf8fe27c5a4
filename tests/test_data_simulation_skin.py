"""Soft skin changes colours on the skin and hides seams; edges between depths and everything else stay."""

from __future__ import annotations

import numpy as np

from data.simulation.skin import soften_skin


def striped_hand() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A dark finger in front of a bright palm with thin dark seams, before a grey wall."""
    image = np.full((120, 160, 3), 90, np.uint8)
    depth = np.full((120, 160), 1.5, np.float32)
    mask = np.zeros((120, 160), bool)
    mask[20:100, 30:130] = True
    depth[mask], image[mask] = 0.5, 200
    image[20:100, 40:70:10] = 150
    depth[20:100, 90:130], image[20:100, 90:130] = 0.46, 120
    return image, depth, mask


def test_seams_fade_and_edges_in_depth_stay() -> None:
    image, depth, mask = striped_hand()
    soft = soften_skin(image, depth, mask).astype(int)
    palm = soft[40:80, 38:72, 0]
    assert np.ptp(palm) < 0.4 * 50, "seams within one surface fade"
    assert abs(soft[60, 84, 0] - 200) < 8 and abs(soft[60, 95, 0] - 120) < 8, "the finger stays apart from the palm"


def test_the_rest_of_the_picture_is_only_seen_through_the_lens() -> None:
    image, depth, mask = striped_hand()
    soft = soften_skin(image, depth, mask)
    np.testing.assert_array_equal(soft[:15], image[:15])
    np.testing.assert_array_equal(soft[:, :25], image[:, :25])
    nothing = soften_skin(image, depth, np.zeros_like(mask))
    assert nothing.shape == image.shape and nothing.dtype == np.uint8
