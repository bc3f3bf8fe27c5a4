"""meta/info.json of a LeRobot data set: version, rate, features, and where the files of an episode lie."""

from __future__ import annotations

import math
import re
import string
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from data.sources.declared import inside, read_json
from data.video import Unreadable

VERSIONS = ("v2.0", "v2.1", "v3.0")
_FIELDS = frozenset(("episode_chunk", "episode_index", "video_key", "chunk_index", "file_index"))
_WIDTH = re.compile(r"(0?[1-9]d?)?")  # of a number in a path: :03d, never :0999999999d


@dataclass(frozen=True)
class Feature:
    """One feature as declared. names: flat, empty where there are none. info: what is said of a video or depth map."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...]
    info: dict[str, Any]

    @property
    def camera(self) -> bool:
        return self.dtype in ("video", "image")

    @property
    def depth(self) -> bool:
        return bool(self.info.get("is_depth_map") or self.info.get("video.is_depth_map"))

    @property
    def numbers(self) -> int:
        """How many numbers there are in each frame."""
        return math.prod(self.shape)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of pictures, declared with the channels first or last. Raises Unreadable (bad_shape)."""
        if len(self.shape) == 3:
            places = {name.rstrip("s"): place for place, name in enumerate(self.names)}
            if len(self.names) != 3 or not {"height", "width"} <= places.keys():
                first = self.shape[0] in (1, 3) and self.shape[2] not in (1, 3)
                places = {"height": 1, "width": 2} if first else {"height": 0, "width": 1}
            width, height = self.shape[places["width"]], self.shape[places["height"]]
            if width > 0 and height > 0:
                return width, height
        raise Unreadable("bad_shape", f"meta/info.json: {self.name}: shape {list(self.shape)} is not that of pictures")


@dataclass(frozen=True)
class Info:
    """What meta/info.json tells. concatenated: v3.0, where a file holds many episodes."""

    version: str
    fps: float
    robot: str
    episodes: int
    chunks_size: int
    data_path: str
    video_path: str
    features: dict[str, Feature]

    @property
    def concatenated(self) -> bool:
        return self.version == "v3.0"


def read_info(root: Path) -> Info:
    """Raises Unreadable (missing, bad_json, unknown_version, bad_info, unsafe_path) naming file, field and value."""
    path = root / "meta" / "info.json"
    raw = read_json(path)
    version = raw.get("codebase_version")
    if version not in VERSIONS:
        known = ", ".join(VERSIONS)
        raise Unreadable("unknown_version", f"{path}: codebase_version: {version!r}, known are {known}. Convert it.")
    fps = raw.get("fps")
    if not isinstance(fps, int | float) or isinstance(fps, bool) or not 0 < fps < 10_000:
        raise Unreadable("bad_info", f"{path}: fps: {fps!r} is not a positive number")
    features = raw.get("features")
    if not isinstance(features, dict) or not features:
        raise Unreadable("bad_info", f"{path}: features: expected an object of features, found {features!r:.100}")
    found = Info(
        version=version,
        fps=float(fps),
        robot=str(raw.get("robot_type") or ""),
        episodes=_count(path, raw, "total_episodes", 0),
        chunks_size=max(1, _count(path, raw, "chunks_size", 1000)),
        data_path=str(raw.get("data_path") or ""),
        video_path=str(raw.get("video_path") or ""),
        features={name: _feature(path, name, declared) for name, declared in features.items()},
    )
    for name, template in (("data_path", found.data_path), ("video_path", found.video_path)):
        if name == "data_path" or any(feature.dtype == "video" for feature in found.features.values()):
            _check_template(path, name, template)
    return found


@lru_cache(64)
def file_of(root: Path, told_by: str, template: str, **values: Any) -> Path:
    """The file that a path template of info.json names: one object for all episodes in it that follow each other.
    Raises Unreadable (unsafe_path, bad_info)."""
    try:
        relative = template.format(**values)
    except (KeyError, ValueError, IndexError) as error:
        raise Unreadable("bad_info", f"meta/info.json: {told_by}: {template!r} cannot be filled in ({error})") from None
    return inside(root, relative, f"meta/info.json: {told_by}")


def _feature(path: Path, name: str, declared: Any) -> Feature:
    if "/" in name or "\\" in name or ".." in name or "\0" in name:
        raise Unreadable("unsafe_path", f"{path}: features: {name!r} becomes part of file names; rename it")
    shape = declared.get("shape") if isinstance(declared, dict) else None
    dtype = declared.get("dtype") if isinstance(declared, dict) else None
    if not isinstance(dtype, str) or not isinstance(shape, list) or not all(type(size) is int for size in shape):
        raise Unreadable("bad_info", f"{path}: features: {name}: needs dtype and shape, found {declared!r:.100}")
    told = (declared.get(key) for key in ("video_info", "info"))
    info = {key: value for one in told if isinstance(one, dict) for key, value in one.items()}
    return Feature(name, dtype, tuple(shape), tuple(_flat(declared.get("names"))), info)


def _flat(names: Any) -> list[str]:
    """Names come as a list, a list of lists, or an object of lists."""
    if isinstance(names, dict):
        return _flat(list(names.values()))
    if isinstance(names, list):
        return [name for part in names for name in (_flat(part) if isinstance(part, list) else [str(part)])]
    return []


def _count(path: Path, raw: dict[str, Any], name: str, default: int) -> int:
    value = raw.get(name, default)
    if type(value) is not int or value < 0:
        raise Unreadable("bad_info", f"{path}: {name}: {value!r} is not a count")
    return value


def _check_template(path: Path, name: str, template: str) -> None:
    """Templates come from strangers: named numbers of a fixed width only, no attributes, items or conversions."""
    try:
        for _, field, width, conversion in string.Formatter().parse(template):
            if field is not None and (field not in _FIELDS or not _WIDTH.fullmatch(width or "") or conversion):
                raise ValueError(f"{{{field}:{width}}} is not known")
    except ValueError as error:
        raise Unreadable("bad_info", f"{path}: {name}: {template!r}: {error}") from None
    inside(path.parent, template, f"{path}: {name}")
