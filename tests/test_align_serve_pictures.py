"""A policy that is sent pictures sees in them what it would see in closed loop, one episode after the other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align.episode import show
from align.eyes import Eyes
from align.followers import Following, Sighting, following
from align.serve import served
from align.serve.rejected import Rejected
from align.serve.served import serving_pictures
from data.episode import Frame
from data.simulation.environment import Observation
from data.simulation.sensors import Sensors
from extract.config import ExtractConfig
from extract.effector import Camera
from extract.mask.extractor import NAME as MASKS
from pipeline.errors import UserError
from pretrain.model.policy_kinecloud import KinecloudPolicy
from tests.serve_client import Client, running
from tests.serve_policies import tiny_policy

CAMERA = Camera(np.array([[90.0, 0, 32], [0, 90.0, 32], [0, 0, 1]]), (64, 64), "given")
EXTRACT = ExtractConfig.model_validate({"mask": {"points": 20}, "image_side": 48})
MASKED = following(MASKS, EXTRACT, Path())
ROBOT = "sawyer-gripper"


class Brightest:
    """Finds a gripper where the picture is brightest, 0.7 m away, as long as it is bright enough."""

    def see(self, frame: Frame) -> Sighting | None:
        rows, columns = np.nonzero(frame.image[..., 0] > 200)
        if not len(rows):
            return None
        place = CAMERA.unproject(np.array([columns.mean(), rows.mean()]), np.array(0.7))
        points = place + np.random.default_rng(0).normal(0, 0.02, (20, 3))
        return Sighting(points.astype(np.float32), np.ones(20, bool), place.astype(np.float32))


def follower(sensors: Sensors) -> Following:
    return MASKED if sensors == "truth" else replace(MASKED, start=lambda camera: Brightest(), sensors=sensors)


def moments(count: int = 6) -> list[Observation]:
    """A bright disc that moves sideways before a coloured wall, as the simulator would show it."""
    rows, columns = np.mgrid[0:64, 0:64] + 0.5
    wall = np.random.default_rng(1).integers(0, 180, (64, 64, 3), dtype=np.uint8)
    made = []
    for number in range(count):
        radius = np.hypot(columns - 20 - 3 * number, rows - 30)
        mask = radius < 12
        depth = np.where(mask, 0.7 + 0.0002 * radius**2, 1.2).astype(np.float32)
        image = np.where(mask[..., None], np.uint8(230), wall)
        actor = mask | (np.abs(rows - 30) < 4) & (columns < 20)
        frame = Frame(number, 0.05 * number, image, depth, mask)
        grasp = np.array([0.01 * number, 0, 0.7], np.float32)
        made.append(Observation(frame, np.array([0.1, 0.2, 0.01 * number], np.float32), 0.03, actor, grasp))
    return made


def sent(moment: Observation, sensors: Sensors, scene: str = "none", **changes: Any) -> dict[str, Any]:
    """What a client sends of a moment."""
    frame = moment.frame
    message: dict[str, Any] = {
        "image_u8_HW3": frame.image, "instruction": "go on", "intrinsics_33": CAMERA.intrinsics_33,
        "proprio": moment.proprio, "time": frame.time, "opening": moment.opening,
    }  # fmt: skip
    if sensors != "rgb":
        message["depth_HW"] = frame.depth
    if sensors == "truth":
        message |= {"mask_HW": frame.mask, "grasp_3": moment.grasp}
        message |= {} if scene == "none" else {"actor_HW": moment.actor}
    return message | changes


def expected(policy: KinecloudPolicy, moment: Observation, eyes: Eyes) -> np.ndarray:
    """The actions in closed loop."""
    view = eyes.view()
    assert view is not None
    past = view.past
    return policy.act(
        view.image, "go on", past.clouds_PN3, past.valid_P, view.intrinsics_33, moment.proprio, ROBOT,
        past.visible_PN, past.opening_P, past.grasp_P3, view.depth,
    )  # fmt: skip


@pytest.mark.parametrize("sensors", ["truth", "rgbd", "rgb"])
@pytest.mark.parametrize("scene", ["none", "image", "depth"])
def test_actions_are_those_of_the_closed_loop(sensors: Sensors, scene: str) -> None:
    depth = scene == "depth"
    policy = tiny_policy(scene=scene, depth=depth)
    if depth and sensors == "rgb":
        with pytest.raises(UserError, match="learned from pictures with depth"):
            serving_pictures(policy, follower(sensors), EXTRACT.image_side, ROBOT)
        return
    seen = moments(4)
    with (
        running(serving_pictures(policy, follower(sensors), EXTRACT.image_side, ROBOT)) as (port, _),
        Client(port) as client,
    ):
        assert client.metadata["depth_needed"] is (sensors != "rgb")
        for reset in (False, True):
            eyes = Eyes(CAMERA, follower(sensors), policy.config, EXTRACT.image_side)
            for number, moment in enumerate(seen):
                show(moment, eyes, sensors)
                asks = number != 2
                answer = client.ask(**sent(moment, sensors, scene, reset=reset and number == 0, act=asks))
                assert answer["effector_visible"] is True
                if asks:
                    np.testing.assert_array_equal(answer["actions"], expected(policy, moment, eyes))
                else:
                    assert "actions" not in answer


def session(sensors: Sensors = "rgb", **changes: Any) -> Any:
    return serving_pictures(tiny_policy(**changes), follower(sensors), EXTRACT.image_side, ROBOT).begin()


WRONG = [
    ({"time": 0.0}, "time: found 0 s; expected at least 0.001 s more than the last, 0 s. Send reset: true with"),
    ({"intrinsics_33": np.diag([80.0, 80, 1])}, "intrinsics_33: found .* as this episode began. Send reset: true"),
    ({"image_u8_HW3": np.zeros((32, 64, 3), np.uint8)}, "found 64 x 32 pixels; expected 64 x 64, as this episode"),
    ({"time": np.nan}, "time: found 1 values that are not finite"),
    ({"time": "now"}, "time: found a text of 3 characters; expected a number"),
    ({"opening": -0.1}, "opening: found -0.1 to -0.1; expected at least 0"),
    ({"reset": 1}, "reset: found 1; expected true or false"),
    ({"depth_HW": np.zeros((64, 64))}, "depth_HW: found an unknown field"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_what_does_not_go_on_is_rejected_and_forgotten(change: dict[str, Any], message: str) -> None:
    first, second, *_ = moments()
    disturbed, undisturbed = session(), session()
    for one in (disturbed, undisturbed):
        one.answer(sent(first, "rgb"))
    with pytest.raises(Rejected, match=message):
        disturbed.answer(sent(second, "rgb", **change))
    answers = [one.answer(sent(second, "rgb"))["actions"] for one in (disturbed, undisturbed)]
    np.testing.assert_array_equal(*answers)


@pytest.mark.parametrize("wrong", [[1.1, 1.1, 0.5], [90, 5, 32], [90, 1e30, 32], [90, 90, 1e30], [90, 90, -2000]])
def test_intrinsics_that_are_not_in_pixels_begin_no_episode(wrong: list[float]) -> None:
    first, second, *_ = moments()
    fx, fy, cx = wrong
    begun = session()
    with pytest.raises(
        Rejected, match=r"intrinsics_33: found .*; expected fx and fy of 6.4 to .*in pixels of the picture"
    ):
        begun.answer(sent(first, "rgb", intrinsics_33=np.array([[fx, 0, cx], [0, fy, 32.0], [0, 0, 1]])))
    assert "actions" in begun.answer(sent(second, "rgb"))


def test_time_goes_on_however_large_it_is() -> None:
    first, second, *_ = moments()
    begun = session()
    begun.answer(sent(first, "rgb", time=1.7e15))
    with pytest.raises(Rejected, match=r"time: found 1.7e.15 s; expected at least"):
        begun.answer(sent(second, "rgb", time=1.7e15))


def test_a_picture_without_finite_actions_is_taken_in_as_the_message_says() -> None:
    first, second, *_ = moments()
    begun = session()
    with pytest.raises(Rejected, match=r"(?s)actions: found values that are not finite.*taken in: go on with the next"):
        begun.answer(sent(first, "rgb", proprio=np.full(3, 1e38, np.float32)))
    assert "actions" in begun.answer(sent(second, "rgb"))


def test_depth_and_mask_are_held_against_the_picture() -> None:
    first = moments(1)[0]
    wrong = {"depth_HW": np.full((64, 64), -1.0), "mask_HW": np.zeros((64, 32), bool), "extra": 1}
    with pytest.raises(Rejected) as rejected:
        session("truth").answer(sent(first, "truth", **wrong))
    lines = str(rejected.value).splitlines()
    assert lines[0].startswith("extra: found an unknown field")
    assert "depth_HW: found 4096 negative values; expected finite, 0 to 1e+06. Put 0 where" in lines[1]
    assert "mask_HW: found bool [64, 32]; expected bool [64, 64]" in lines[2]


def test_an_effector_that_was_never_seen_gives_no_actions() -> None:
    first, second, third, *_ = moments()
    unseen, one = np.zeros((64, 64, 3), np.uint8), session()
    with pytest.raises(Rejected, match=r"found no gripper in any picture of this episode; .* send act: false until"):
        one.answer(sent(first, "rgb", image_u8_HW3=unseen))
    assert one.answer(sent(second, "rgb", time=0.01, image_u8_HW3=unseen, act=False)) == {"effector_visible": False}
    assert one.answer(sent(second, "rgb"))["effector_visible"] is True
    lost = one.answer(sent(third, "rgb", image_u8_HW3=unseen))
    assert lost["effector_visible"] is False and "actions" in lost


def test_an_episode_that_is_followed_by_masks_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "MASKED_PICTURES", 2)
    one, seen = session("truth"), moments()
    for moment in seen[:2]:
        one.answer(sent(moment, "truth"))
    with pytest.raises(Rejected, match="found one more picture; expected at most 2 in an episode"):
        one.answer(sent(seen[2], "truth"))
    assert "actions" in one.answer(sent(seen[2], "truth", reset=True))


def test_what_is_left_out_is_unknown_and_the_body_that_of_the_labels() -> None:
    first = moments(1)[0]
    message = sent(first, "rgb")
    del message["opening"]
    told: list[dict[str, Any]] = [
        {"opening": np.nan},
        {"opening": np.nan, "embodiment": ROBOT},
        {"embodiment": "human-hand"},
    ]
    answers = [session().answer(sent(first, "rgb", **changes))["actions"] for changes in told]
    np.testing.assert_array_equal(session().answer(message)["actions"], answers[0])
    np.testing.assert_array_equal(answers[1], answers[0])
    assert not np.array_equal(answers[2], answers[0])
