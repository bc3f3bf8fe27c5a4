"""Whether features of a data set or of an environment are those that a policy learned from.

Every problem is a line that tells what was found and what was expected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from align.lerobot_plugin.names import ACTION, CAMERA, DEPTH, INTRINSICS, POINTS, SCENE, STATE
from align.serve.rejected import problem
from pretrain.model.configuration_kinecloud import UNKNOWN_EMBODIMENT, KinecloudConfig

ANY = -1  # a side of any size
_HOLD = "Take the policy's own features, or align a policy to these."


def camera_of(config: KinecloudConfig) -> str:
    """The picture that a policy looks at: what the camera sees, or the scene without the actor."""
    return CAMERA if config.scene == "none" else SCENE


def input_shapes(config: KinecloudConfig, camera: str) -> dict[str, tuple[int, ...]]:
    """What a policy has to be given, shapes without the batch."""
    return {
        camera: (3, ANY, ANY),
        STATE: (len(config.proprio_names),),
        POINTS: (ANY, 3),
        INTRINSICS: (3, 3),
        **({DEPTH: (1, ANY, ANY)} if config.depth else {}),
    }


def output_shapes(config: KinecloudConfig) -> dict[str, tuple[int, ...]]:
    """What a policy gives."""
    return {ACTION: (len(config.action_names),)}


def feature_problems(
    inputs: Mapping[str, Sequence[int]], outputs: Mapping[str, Sequence[int]], config: KinecloudConfig, camera: str
) -> list[str]:
    """Features by name with their shapes, beside the policy's. More inputs than needed are no problem."""
    return [
        *_shapes_differ(inputs, input_shapes(config, camera), config.proprio_names),
        *_shapes_differ(outputs, output_shapes(config), config.action_names),
    ]


def data_set_problems(
    features: Mapping[str, Mapping[str, Any]], fps: float, rate_hz: float, config: KinecloudConfig
) -> list[str]:
    """``features`` and ``fps`` of a data set's meta/info.json, beside the policy's names and action spec."""
    found = []
    for name, wanted in ((ACTION, config.action_names), (STATE, config.proprio_names)):
        names = features.get(name, {}).get("names")
        if isinstance(names, Sequence) and not isinstance(names, str) and list(names) != list(wanted):
            found.append(problem(name, f"names {list(names)}", f"names {list(wanted)}", _HOLD))
    theirs = (features.get(ACTION, {}).get("info") or {}).get("action_spec") or {}
    for key, value in (config.action_spec or {}).items():
        if key in theirs and key not in ("names", "proprio_names") and theirs[key] != value:
            found.append(problem(ACTION, f"{key} {theirs[key]!r}", f"{key} {value!r}", _HOLD))
    if abs(fps - rate_hz) > 0.5:  # LeRobot counts in whole frames per second
        remedy = "Set policy.fps if the data set's frames are what the policy is to count in."
        found.append(problem("fps", f"{fps:g} of the data set", f"{rate_hz:g} of the policy", remedy))
    return found


def embodiment_problems(embodiment: str | None, config: KinecloudConfig) -> list[str]:
    """Whether the policy knows the body that is to act."""
    known = [*config.embodiments, UNKNOWN_EMBODIMENT]
    if embodiment in known:
        return []
    remedy = f"Set policy.embodiment; {UNKNOWN_EMBODIMENT} stands for any other body."
    return [problem("embodiment", repr(embodiment), f"one of {', '.join(known)}", remedy)]


def _shapes_differ(
    found: Mapping[str, Sequence[int]], wanted: Mapping[str, tuple[int, ...]], names: Sequence[str]
) -> list[str]:
    lines = []
    for name, shape in wanted.items():
        meaning = f"{_text(shape)} ({', '.join(names)})" if name in (ACTION, STATE) else _text(shape)
        if name not in found:
            lines.append(problem(name, f"nothing; there are {', '.join(sorted(found)) or 'none'}", meaning, _HOLD))
        elif not _fits(found[name], shape):
            lines.append(problem(name, _text(found[name]), meaning, _HOLD))
    return lines


def _fits(found: Sequence[int], wanted: Sequence[int]) -> bool:
    return len(found) == len(wanted) and all(
        side in (ANY, other) or other == ANY for side, other in zip(wanted, found, strict=True)
    )


def _text(shape: Sequence[int]) -> str:
    return "[" + ", ".join("any" if side == ANY else str(side) for side in shape) + "]"
