"""The contract of a motion clip: one table from which writer, reader, ``verify`` and docs/format.md derive.

A motion clip is one effector (one hand, one gripper) over one stretch of video. Symbols in shapes: T frames, N points,
A action dimensions, P proprioception dimensions.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Literal

import numpy as np
from pydantic import Field

from pipeline.config import Settings

SCHEMA_VERSION = 3
KEY_PATTERN = re.compile(r"[a-z0-9-]+")


@dataclass(frozen=True)
class FieldSpec:
    """One array of a clip. ``check`` returns what is wrong with a value, or None."""

    name: str
    dtype: str
    shape: tuple[str | int, ...]
    unit: str
    rule: str
    check: Callable[[np.ndarray], str | None]
    labelled_only: bool = False
    optional: bool = False


def _finite(array: np.ndarray) -> str | None:
    return None if np.isfinite(array).all() else f"{np.count_nonzero(~np.isfinite(array))} values are not finite"


def _positive(array: np.ndarray) -> str | None:
    return _finite(array) or (None if (array > 0).all() else f"smallest value {array.min():g} is not positive")


def _unit_interval(array: np.ndarray) -> str | None:
    return _finite(array) or (
        None if ((array >= 0) & (array <= 1)).all() else f"values span {array.min():g}..{array.max():g}, not 0..1"
    )


def _increasing(array: np.ndarray) -> str | None:
    return _finite(array) or (None if (np.diff(array) > 0).all() else "values do not strictly increase")


def _intrinsics(array: np.ndarray) -> str | None:
    if (wrong := _finite(array)) is not None:
        return wrong
    if not (array[0, 0] > 0 and array[1, 1] > 0):
        return f"focal lengths {array[0, 0]:g}, {array[1, 1]:g} are not positive"
    return None if np.array_equal(array[2], [0, 0, 1]) else f"last row is {array[2].tolist()}, not 0 0 1"


def _rigid(array: np.ndarray) -> str | None:
    if (wrong := _finite(array)) is not None:
        return wrong
    rotation = array[:, :3, :3].astype(np.float64)
    residual = np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max()
    if residual > 1e-3 or (np.linalg.det(rotation) < 0).any():
        return f"rotation part is not a rotation (residual {residual:.1e})"
    return None if np.allclose(array[:, 3], [0, 0, 0, 1]) else "last row is not 0 0 0 1"


def _opening(array: np.ndarray) -> str | None:
    known = array[~np.isnan(array)]
    return None if np.isfinite(known).all() and (known >= 0).all() else "a known value is negative or infinite"


def _known_rows(array: np.ndarray) -> str | None:
    unknown = np.isnan(array)
    if (unknown.any(-1) != unknown.all(-1)).any():
        return "a row is known in part; NaN marks whole rows"
    return None if np.isfinite(array[~unknown]).all() else "a known value is infinite"


def _any(array: np.ndarray) -> str | None:
    return None


FIELDS: tuple[FieldSpec, ...] = (
    FieldSpec(
        "points", "float32", ("T", "N", 3), "metres, camera frame, OpenCV axes (x right, y down, z forward)",
        "finite; point n is the same physical point in every frame", _finite,
    ),
    FieldSpec(
        "raw_points", "float32", ("T", "N", 3), "metres, camera frame", "finite; the points before smoothing over time",
        _finite, optional=True,
    ),
    FieldSpec("visible", "bool", ("T", "N"), "-", "true = measured in this frame, false = carried over", _any),
    FieldSpec(
        "sigma", "float32", ("T", 2), "metres",
        "> 0; one standard deviation of position across and along the viewing ray, calibrated", _positive,
    ),
    FieldSpec("confidence", "float32", ("T",), "-", "0..1: is this the declared effector", _unit_interval),
    FieldSpec("timestamps", "float64", ("T",), "seconds", "presentation times, strictly increasing", _increasing),
    FieldSpec("intrinsics", "float32", (3, 3), "pixels at meta.image_size", "finite; fx, fy > 0", _intrinsics),
    FieldSpec(
        "world_from_camera",
        "float32",
        ("T", 4, 4),
        "metres",
        "finite and rigid; constant when the camera is static, identity when unknown (see meta.camera_motion)",
        _rigid,
    ),
    FieldSpec(
        "opening", "float32", ("T",), "metres", ">= 0, NaN = unknown; grasp aperture (thumb to index, jaws)", _opening
    ),
    FieldSpec(
        "grasp", "float32", ("T", 3), "metres, camera frame",
        "midway between the tips that close on things (thumb and index finger, jaws); a row of NaN = unknown",
        _known_rows, optional=True,
    ),
    FieldSpec(
        "actions", "float32", ("T", "A"), "meta.action_spec",
        "finite; the action that was executed from this frame until the next", _finite, labelled_only=True,
    ),
    FieldSpec("proprio", "float32", ("T", "P"), "meta.action_spec", "finite", _finite, labelled_only=True),
)  # fmt: skip
FIELD_BY_NAME = {spec.name: spec for spec in FIELDS}


@dataclass(frozen=True)
class PictureSpec:
    """One series of pictures of a clip: a file ``NNNN.suffix`` for each frame, or, where optional, none at all.

    name: attribute of data.clips.Clip that holds the files. format, modes: Pillow's names of what may be stored.
    """

    name: str
    suffix: str
    format: str
    rule: str
    modes: tuple[str, ...]
    optional: bool = True


PICTURES: tuple[PictureSpec, ...] = (
    PictureSpec("images", "jpg", "JPEG", "the conditioning frames, JPEG, RGB", ("RGB",), optional=False),
    PictureSpec(
        "scenes", "scene.jpg", "JPEG",
        "the frames without the actor (the effector and its arm), filled with what was last seen behind it: JPEG, RGB",
        ("RGB",),
    ),
    PictureSpec(
        "depths", "depth.png", "PNG",
        "depth of the scene, without the actor: 16-bit PNG, millimetres along z, 0 = unknown",
        ("I;16", "I;16B", "I"),
    ),
)  # fmt: skip
PICTURE_BY_NAME = {spec.name: spec for spec in PICTURES}
PICTURE_BY_SUFFIX = {spec.suffix: spec for spec in PICTURES}


class ActionSpec(Settings):
    """What the numbers of ``actions`` and ``proprio`` mean."""

    names: list[str] = Field(description="One name per action dimension.")
    unit: str = Field(description="Unit of the values, in words.")
    frame: str = Field(description="Reference frame of the action, for example `world`, `base`, `camera`.")
    mode: Literal["delta", "absolute"] = Field(description="Relative to the current pose, or a target.")
    rate_hz: float = Field(gt=0, description="How many actions are executed per second.")
    proprio_names: list[str] = Field(description="One name per proprioception dimension.")


class ClipMeta(Settings):
    """meta.json of a clip."""

    schema_version: int = Field(default=SCHEMA_VERSION, description="Version of this format.")
    episode_id: str = Field(description="Source episode; splits are made by `group`, never by clip.")
    group: str = Field(description="Episodes that show the same recorded motion share it.")
    source: str = Field(description="Name of the source in the index.")
    embodiment: str = Field(description="For example `human-hand`.")
    side: Literal["left", "right"] | None = Field(description="Which hand; null when it does not apply.")
    instruction: str = Field(description="Task in words; may be empty.")
    task: str | None = Field(default=None, description="Short task name, when the source has one.")
    scale: Literal["metric", "assumed", "relative"] = Field(
        description="`metric`: from measured depth, recorded poses or joints, or a taught network; `assumed`: from an "
        "assumed hand size, distance or field of view; `relative`: unknown scale."
    )
    depth_source: str = Field(description="For example `sensor`, `hand-size`.")
    camera_origin: Literal["given", "metadata", "estimated", "assumed"] = Field(
        description="Where the intrinsics come from; `estimated`: from recorded end-effector motion."
    )
    camera_motion: Literal["static", "given", "estimated", "unknown"] = Field(
        description="Where world_from_camera comes from. `static`: the background does not move; `given`: by the "
        "source; `estimated`: from the background, or from recorded end-effector motion; `unknown`: points are good in "
        "the camera frame only."
    )
    image_size: tuple[int, int] = Field(description="Width and height of the stored images, pixels.")
    source_frames: list[int] = Field(description="Index of each frame in the source video.")
    extractor: str = Field(description="Name and version of the extractor.")
    weights_sha256: dict[str, str] = Field(default={}, description="SHA-256 of every network file that was used.")
    quality: dict[str, float] = Field(default={}, description="Named quality scores.")
    simulated: bool = Field(default=False, description="True for rendered video.")
    action_spec: ActionSpec | None = Field(default=None, description="Present in labelled clips only.")


def problems(arrays: dict[str, np.ndarray], meta: ClipMeta, pictures: dict[str, int]) -> list[str]:
    """All violations of the contract in one clip, each naming its field; empty when it is sound.

    pictures: how many of each series of PICTURES there are, by name.
    """
    found: list[str] = []
    sizes: dict[str, int] = {}
    for spec in FIELDS:
        required = not spec.optional and (not spec.labelled_only or meta.action_spec is not None)
        if spec.name not in arrays:
            if required:
                found.append(f"{spec.name}: missing")
            continue
        array = arrays[spec.name]
        if spec.labelled_only and meta.action_spec is None:
            found.append(f"{spec.name}: present, but meta.action_spec is null")
        elif (wrong := misfit(spec, array.dtype, array.shape, sizes) or spec.check(array)) is not None:
            found.append(f"{spec.name}: {wrong}")
    found += [f"{name}: not a field of the format" for name in arrays if name not in FIELD_BY_NAME]
    frames = sizes.get("T")
    for spec in PICTURES:
        count = pictures[spec.name]
        if frames is not None and count != frames and (count or not spec.optional):
            found.append(f"{spec.name}: {count}, expected T={frames}{' or none' if spec.optional else ''}")
    if frames is not None and len(meta.source_frames) != frames:
        found.append(f"meta.source_frames: {len(meta.source_frames)} entries, expected T={frames}")
    if meta.schema_version != SCHEMA_VERSION:
        found.append(
            f"meta.schema_version: {meta.schema_version}, this release reads {SCHEMA_VERSION}; "
            "older shards are brought up by `python -m data upgrade`"
        )
    numbers = {f"quality.{name}": value for name, value in meta.quality.items()}
    if meta.action_spec is not None:
        numbers["action_spec.rate_hz"] = meta.action_spec.rate_hz
    found += [f"meta.{name}: {value} is not finite" for name, value in numbers.items() if not isfinite(value)]
    if meta.action_spec is not None:
        for symbol, names in (("A", meta.action_spec.names), ("P", meta.action_spec.proprio_names)):
            if symbol in sizes and sizes[symbol] != len(names):
                found.append(f"meta.action_spec: {len(names)} names for {sizes[symbol]} dimensions ({symbol})")
    return found


def misfit(spec: FieldSpec, dtype: np.dtype, shape: tuple[int, ...], sizes: dict[str, int]) -> str | None:
    """What is wrong with an array by its header alone, or None. sizes: of symbols, by the arrays looked at before."""
    if dtype != spec.dtype:
        return f"dtype {dtype}, expected {spec.dtype}"
    if not _fits(shape, spec.shape, sizes):
        return f"shape {list(shape)}, expected {_shape_text(spec, sizes)}"
    return "empty" if 0 in shape else None


def _fits(shape: tuple[int, ...], wanted: tuple[str | int, ...], sizes: dict[str, int]) -> bool:
    """Whether ``shape`` matches, where the first array that uses a symbol fixes its size."""
    if len(shape) != len(wanted):
        return False
    return all(
        size == (sizes.setdefault(w, size) if isinstance(w, str) else w) for size, w in zip(shape, wanted, strict=True)
    )


def _shape_text(spec: FieldSpec, sizes: dict[str, int]) -> str:
    return "[" + ", ".join(f"{s}={sizes[s]}" if isinstance(s, str) and s in sizes else str(s) for s in spec.shape) + "]"
