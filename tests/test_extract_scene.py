"""The scene without its actor: what was seen last, never what comes later, the nearest where nothing was seen."""

from __future__ import annotations

import numpy as np

from extract.scene import SceneMemory


def film(frames: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pictures [T,24,32,3] and depth of a band of 6 columns that crosses a wall; the actor; the wall [24,32,3]."""
    rng = np.random.default_rng(0)
    wall = rng.integers(0, 200, (24, 32, 3), dtype=np.uint8)
    actor = np.zeros((frames, 24, 32), bool)
    for frame in range(frames):
        actor[frame, :, 2 * frame : 2 * frame + 6] = True
    images = np.where(actor[..., None], np.uint8(255), wall)
    depth = np.where(actor, np.float32(0.5), np.float32(1.25))
    return images, depth, actor, wall


def test_what_was_seen_before_is_behind_the_actor_and_what_was_not_is_as_its_neighbours() -> None:
    images, depth, actor, wall = film()
    memory = SceneMemory()
    for frame in range(len(images)):
        image, distance = memory.see(images[frame], depth[frame], actor[frame])
        assert distance is not None
        seen = ~actor[: frame + 1].all(0)
        np.testing.assert_array_equal(image[seen], wall[seen])
        np.testing.assert_array_equal(distance, np.float32(1.25))
    first, _ = SceneMemory().see(images[1], depth[1], actor[1])  # columns 2 to 7 were never seen
    np.testing.assert_array_equal(first[:, 2:4], wall[:, [1, 1]])
    np.testing.assert_array_equal(first[:, 6:8], wall[:, [8, 8]])


def test_the_past_does_not_change_with_what_comes() -> None:
    images, depth, actor, _ = film()
    long, short = SceneMemory(), SceneMemory()
    told = [long.see(images[k], depth[k], actor[k]) for k in range(8)]
    for k in range(4):
        image, distance = short.see(images[k], depth[k], actor[k])
        np.testing.assert_array_equal(image, told[k][0])
        np.testing.assert_array_equal(distance, told[k][1])


def test_things_that_moved_are_where_they_were_last_seen() -> None:
    free, covered = np.zeros((8, 8), bool), np.ones((8, 8), bool)
    memory = SceneMemory()
    for level in (10, 90):
        memory.see(np.full((8, 8, 3), level, np.uint8), None, free)
    image, depth = memory.see(np.full((8, 8, 3), 200, np.uint8), None, covered)
    assert (image == 90).all() and depth is None


def test_depth_is_what_was_last_measured_and_unknown_where_nothing_ever_was() -> None:
    image, free = np.zeros((4, 6, 3), np.uint8), np.zeros((4, 6), bool)
    depth = np.full((4, 6), 2, np.float32)
    depth[:, 0] = 0
    hole = depth.copy()
    hole[0, 3] = 0
    memory = SceneMemory()
    assert memory.depth is None
    memory.see(image, depth, free)
    _, told = memory.see(image, hole, free)
    np.testing.assert_array_equal(told, depth)
    assert memory.depth is not None and np.isinf(memory.depth[:, 0]).all()
    hidden = free.copy()
    hidden[:, 4:] = True
    other = SceneMemory()
    _, told = other.see(image, depth, hidden)
    assert told is not None and (told[:, 4:] == 2).all()
    assert other.depth is not None and (other.depth[:, 4:] == 0).all()


def test_a_picture_full_of_actor_is_left_as_it_is() -> None:
    image, depth = np.full((4, 6, 3), 7, np.uint8), np.ones((4, 6), np.float32)
    told, distance = SceneMemory().see(image, depth, np.ones((4, 6), bool))
    np.testing.assert_array_equal(told, image)
    assert distance is not None and (distance == 0).all()
