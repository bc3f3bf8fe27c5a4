"""The fields of an observation, for a policy that is given clouds and for one whose server makes them from pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from align.serve.fields import Field
from data.simulation.sensors import Sensors
from pretrain.model.configuration_kinecloud import UNKNOWN_EMBODIMENT, KinecloudConfig

FLOATS = ("float32", "float64")
FARTHEST_M = 1e6  # what is farther is no measurement
CAMERA = "camera frame: x right, y down, z forward"


def cloud_fields(config: KinecloudConfig) -> tuple[Field, ...]:
    """The arguments of ``KinecloudPolicy.act``, under their names."""
    shown = "what the camera sees" if config.scene == "none" else "the scene without the robot"
    past = len(config.past_times)
    when = ", ".join(f"{time:g}" for time in config.past_times)
    return (
        *_common(config, shown, _embodiment(config, required=True)),
        Field(
            "past_clouds_PN3", "array", FLOATS, (past, "N", 3),
            f"metres, {CAMERA}, at {when} s; row n is the same physical point in every cloud",
            "finite", _not_finite, "Mark missing clouds in past_valid and fill them with any numbers.",
        ),
        Field("past_valid", "array", ("bool",), (past,), "which of these clouds are known"),
        Field(
            "past_visible_PN", "array", ("bool",), (past, "N"), "which points were measured rather than carried",
            required=False,
        ),
        Field(
            "past_opening_P", "array", FLOATS, (past,), "grasp aperture, metres", "at least 0, NaN = unknown",
            _no_opening, "Send metres, NaN where unknown.", required=False,
        ),
        Field(
            "past_grasp_P3", "array", FLOATS, (past, 3),
            f"where it grasps, metres, {CAMERA}; else the cloud's centroid",
            "finite", _not_finite, "Leave the field out where it is not known.", required=False,
        ),
        *((_depth("what the image shows"),) if config.depth else ()),
    )  # fmt: skip


def camera_fields(config: KinecloudConfig, sensors: Sensors) -> tuple[Field, ...]:
    """One camera's picture and what the robot tells of itself. sensors: what the follower needs."""
    masked = sensors == "truth"
    sees_scene = masked and config.scene != "none"
    mask = Field("mask_HW", "array", ("bool",), ("H", "W"), "pixels of the gripper")
    actor = Field("actor_HW", "array", ("bool",), ("H", "W"), "pixels of the gripper and its arm", required=False)
    grasp = Field(
        "grasp_3", "array", FLOATS, (3,), f"where it grasps, metres, {CAMERA}; else the cloud's centroid", "finite",
        _not_finite, "Leave the field out where it is not known.", required=False,
    )  # fmt: skip
    return (
        *_common(config, "what the camera sees", _embodiment(config, required=False)),
        *((_depth("the picture"),) if sensors != "rgb" else ()),
        *((mask, grasp) if masked else ()),
        *((actor,) if sees_scene else ()),
        Field(
            "time", "number", meaning="seconds since any moment of the episode, when the picture was taken",
            rule="finite", wrong=_not_finite, remedy="Send the camera's clock.",
        ),
        Field(
            "opening", "number", meaning="grasp aperture now, metres; unknown where it is left out",
            rule="at least 0, NaN = unknown", wrong=_no_opening, remedy="Send metres.", required=False,
        ),
        Field("reset", "flag", meaning="true: this picture is the first of a new episode", required=False),
        Field(
            "act", "flag", meaning="false: the picture is only taken in, and no actions are wanted", required=False
        ),
    )  # fmt: skip


def _common(config: KinecloudConfig, shown: str, embodiment: Field) -> tuple[Field, ...]:
    names = ", ".join(config.proprio_names)
    return (
        Field("image_u8_HW3", "array", ("uint8",), ("H", "W", 3), f"RGB, 0 to 255, of {shown}"),
        Field("instruction", "text", meaning="what is to be done"),
        Field(
            "intrinsics_33", "array", FLOATS, (3, 3),
            "pixels of the image sent; the centre of its first pixel is at (0.5, 0.5)",
            "finite, fx > 0, fy > 0, last row 0 0 1", _no_intrinsics, "Send [[fx, 0, cx], [0, fy, cy], [0, 0, 1]].",
        ),
        Field(
            "proprio", "array", FLOATS, (len(config.proprio_names),), f"{names}, in the units of the labelled data",
            "finite", _not_finite, "Send what the robot reads now.",
        ),
        embodiment,
    )  # fmt: skip


def _embodiment(config: KinecloudConfig, required: bool) -> Field:
    known = [*config.embodiments, UNKNOWN_EMBODIMENT]
    words = "which body acts" if required else "which body acts; that of the labelled data where it is left out"
    return Field(
        "embodiment", "text", meaning=words, rule=f"one of {', '.join(known)}", wrong=_not_among(known),
        remedy=f"Send {UNKNOWN_EMBODIMENT} for any other.", required=required,
    )  # fmt: skip


def _depth(of: str) -> Field:
    return Field(
        "depth_HW", "array", FLOATS, ("H", "W"), f"depth of {of}, metres along z, 0 = unknown",
        f"finite, 0 to {FARTHEST_M:g}", _no_depth, "Put 0 where nothing was measured.",
    )  # fmt: skip


def _not_among(known: Sequence[str]) -> Callable[[str], str | None]:
    return lambda value: None if value in known else repr(value[:100])


def _not_finite(value: Any) -> str | None:
    count = np.count_nonzero(~np.isfinite(value))
    return f"{count} values that are not finite" if count else None


def _no_depth(value: np.ndarray) -> str | None:
    negative, far = np.count_nonzero(value < 0), np.count_nonzero(value > FARTHEST_M)
    beyond = f"{far} values beyond {FARTHEST_M:g} m" if far else None
    return _not_finite(value) or (f"{negative} negative values" if negative else beyond)


def _no_opening(value: Any) -> str | None:
    known = np.asarray(value)[~np.isnan(value)]
    return None if np.isfinite(known).all() and (known >= 0).all() else f"{known.min():g} to {known.max():g}"


def _no_intrinsics(value: np.ndarray) -> str | None:
    right = value[0, 0] > 0 and value[1, 1] > 0 and np.array_equal(value[2], [0, 0, 1])
    return _not_finite(value) or (None if right else str(value.tolist()))
