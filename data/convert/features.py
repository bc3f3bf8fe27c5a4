"""What a clip becomes in a LeRobot data set: its features, their types in parquet, and which clips share a data set.

Symbols in shapes: T frames, N points, A actions, P proprioception, H x W pixels.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from data.schema import FIELDS, PICTURES, ActionSpec, ClipMeta, FieldSpec, PictureSpec
from pipeline.fingerprint import digest

VERSION = "v3.0"  # of LeRobot's format
CONVERTER = 1  # raise it when the same clips become other bytes
FIELD_FEATURES = {spec.name: spec.name for spec in FIELDS} | {"actions": "action", "proprio": "observation.state"}
PICTURE_FEATURES = {
    "images": "observation.images.camera",
    "scenes": "observation.images.scene",
    "depths": "observation.images.scene_depth",
}
COUNTED = {  # what LeRobot itself keeps of every frame
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}
PICTURE_TYPE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
_NAMES = {
    "points": ["point", "axis"],
    "raw_points": ["point", "axis"],
    "visible": ["point"],
    "sigma": ["across_ray", "along_ray"],
    "grasp": ["x", "y", "z"],
}


@dataclass(frozen=True)
class Kind:
    """What all clips of one data set have in common. Clips that differ in any of it go into different data sets.

    fps: nearest whole number of frames per second; the true times are kept beside it. image_size: width, height.
    optional: the optional fields and series of pictures that are there.
    """

    embodiment: str
    fps: int
    image_size: tuple[int, int]
    points: int
    optional: tuple[str, ...]
    action_spec: ActionSpec | None

    @property
    def name(self) -> str:
        """Of the data set's folder: readable, and different for every kind."""
        slug = re.sub(r"[^a-z0-9]+", "-", self.embodiment.lower()).strip("-")[:40] or "effector"
        more = ("-labelled" if self.action_spec else "") + ("-scenes" if "scenes" in self.optional else "")
        return f"{slug}-{self.fps}hz-{self.points}p{more}-{digest(self.document())[:8]}"

    def document(self) -> dict[str, Any]:
        return {
            "embodiment": self.embodiment,
            "fps": self.fps,
            "image_size": list(self.image_size),
            "points": self.points,
            "optional": list(self.optional),
            "action_spec": self.action_spec.model_dump() if self.action_spec else None,
        }

    @classmethod
    def of_document(cls, document: dict[str, Any]) -> Kind:
        spec = document["action_spec"]
        return cls(
            document["embodiment"],
            document["fps"],
            (document["image_size"][0], document["image_size"][1]),
            document["points"],
            tuple(document["optional"]),
            ActionSpec.model_validate(spec) if spec else None,
        )

    @property
    def fields(self) -> list[FieldSpec]:
        """The arrays of every clip, in the order of the format."""
        return [
            spec
            for spec in FIELDS
            if (spec.name in self.optional) or not (spec.optional or (spec.labelled_only and not self.action_spec))
        ]

    @property
    def pictures(self) -> list[PictureSpec]:
        """The series of pictures of every clip."""
        return [spec for spec in PICTURES if not spec.optional or spec.name in self.optional]

    def shape(self, spec: FieldSpec) -> tuple[int, ...]:
        """Of one frame of a field, (1,) for a single number."""
        spec_A = self.action_spec
        sizes = {"N": self.points}
        if spec_A is not None:
            sizes |= {"A": len(spec_A.names), "P": len(spec_A.proprio_names)}
        return tuple(sizes[side] if isinstance(side, str) else side for side in spec.shape if side != "T") or (1,)

    def features(self) -> dict[str, dict[str, Any]]:
        """``features`` of meta/info.json."""
        found = {FIELD_FEATURES[spec.name]: self._numbers(spec) for spec in self.fields}
        width, height = self.image_size
        for spec in self.pictures:
            depth = spec.name == "depths"
            found[PICTURE_FEATURES[spec.name]] = {
                "dtype": "image",
                "shape": [height, width, 1 if depth else 3],
                "names": ["height", "width", "channels"],
                **({"info": {"is_depth_map": True, "depth_unit": "mm"}} if depth else {}),
            }
        return found | {name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in COUNTED.items()}

    def _numbers(self, spec: FieldSpec) -> dict[str, Any]:
        names: list[str] | None = _NAMES.get(spec.name)
        info: dict[str, Any] = {"unit": spec.unit}
        if spec.labelled_only and self.action_spec:
            names = self.action_spec.names if spec.name == "actions" else self.action_spec.proprio_names
            info = {"action_spec": self.action_spec.model_dump()}
        return {"dtype": spec.dtype, "shape": list(self.shape(spec)), "names": names, "info": info}

    def schema(self) -> pa.Schema:
        """Of the files below data/, with the note by which ``datasets`` knows pictures and matrices."""
        columns, note = [], {}
        for name, feature in self.features().items():
            columns.append(pa.field(name, column_type(feature["dtype"], tuple(feature["shape"]))))
            note[name] = _noted(feature)
        text = json.dumps({"info": {"features": note}}, sort_keys=True)
        return pa.schema(columns, metadata={"huggingface": text})


def kind_of(meta: ClipMeta, points: int, timestamps_T: np.ndarray, there: set[str]) -> Kind:
    """The kind of a clip. there: names of its fields and series of pictures."""
    names = [spec.name for spec in (*FIELDS, *PICTURES) if spec.optional and spec.name in there]
    return Kind(meta.embodiment, rate_of(timestamps_T), meta.image_size, points, tuple(names), meta.action_spec)


def rate_of(timestamps_T: np.ndarray) -> int:
    """Frames per second by the median distance, as a whole number of at least 1, which is what LeRobot counts in."""
    steps = np.diff(timestamps_T)
    step = float(np.median(steps)) if len(steps) else 1.0
    return min(max(1, round(1 / step)), 10_000) if np.isfinite(step) and step > 0 else 1


def column_type(dtype: str, shape: tuple[int, ...]) -> pa.DataType:
    """As ``datasets`` lays features out: a number, a list of fixed length, or lists of lists."""
    if dtype == "image":
        return PICTURE_TYPE
    kind = pa.bool_() if dtype == "bool" else pa.from_numpy_dtype(np.dtype(dtype))
    if shape == (1,):
        return kind
    if len(shape) == 1:
        return pa.list_(kind, shape[0])
    for _ in shape:
        kind = pa.list_(kind)
    return kind


def column_of(values: np.ndarray) -> pa.Array:
    """[T,...] as a column of ``column_type``; values keep their bits."""
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    shape = values.shape[1:]
    if shape in ((), (1,)):
        return flat
    if len(shape) == 1:
        return pa.FixedSizeListArray.from_arrays(flat, shape[0])
    for side in reversed(shape):
        offsets = np.arange(0, len(flat) + 1, side, dtype=np.int32)
        flat = pa.ListArray.from_arrays(pa.array(offsets), flat)
    return flat


def _noted(feature: dict[str, Any]) -> dict[str, Any]:
    dtype, shape = feature["dtype"], feature["shape"]
    if dtype == "image":
        return {"_type": "Image"}
    value = {"dtype": dtype, "_type": "Value"}
    if shape == [1]:
        return value
    if len(shape) == 1:
        return {"feature": value, "length": shape[0], "_type": "Sequence"}
    return {"shape": shape, "dtype": dtype, "_type": f"Array{len(shape)}D"}
