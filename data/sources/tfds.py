"""What TensorFlow Datasets writes beside the records: the features of an episode, splits and shards."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.sources.declared import inside, read_json
from data.sources.recording import safe_name
from data.video import Unreadable

TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
_SHARDS = 100_000
_NAME = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class Stored:
    """One feature. kind: image, text or numbers. shape: of each step, -1 = not told. encoding: none where plain."""

    kind: str
    shape: tuple[int, ...]
    dtype: str
    encoding: str


@dataclass(frozen=True)
class Shard:
    """One file of records. length: how many it should hold."""

    path: Path
    split: str
    number: int
    length: int


@dataclass(frozen=True)
class Described:
    """features: by path, such as ``steps/observation/image``. license: as declared, or empty."""

    name: str
    license: str
    features: dict[str, Stored]
    shards: list[Shard]


def read_description(root: Path) -> Described:
    """Reads dataset_info.json and features.json. Raises Unreadable (missing, bad_json, bad_info, unsafe_path, ...)."""
    path = root / "dataset_info.json"
    raw = read_json(path)
    name = raw.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise Unreadable("unsafe_path", f"{path}: name: {name!r} becomes part of file names; use letters and digits")
    if raw.get("fileFormat", "tfrecord") != "tfrecord":
        raise Unreadable("unsupported_format", f"{path}: fileFormat: {raw['fileFormat']!r}, only tfrecord is read")
    splits = raw.get("splits")
    if not isinstance(splits, list) or not splits:
        raise Unreadable("bad_info", f"{path}: splits: expected a list of splits, found {splits!r:.100}")
    shards = [shard for split in splits for shard in _shards(root, path, name, split)]
    labels = [safe_name(split["name"]) for split in splits]
    if len(set(labels)) != len(labels):
        raise Unreadable("duplicate", f"{path}: splits: two are named alike: {labels}")
    found: dict[str, Stored] = {}
    _flatten(root / "features.json", read_json(root / "features.json"), "", found)
    told = raw.get("redistributionInfo")
    return Described(name, str(told.get("license", "")) if isinstance(told, dict) else "", found, shards)


def _shards(root: Path, path: Path, name: str, split: Any) -> list[Shard]:
    try:
        label, lengths = split["name"], [int(length) for length in split["shardLengths"]]
    except (KeyError, TypeError, ValueError, OverflowError):
        raise Unreadable("bad_info", f"{path}: splits: needs name and shardLengths, found {split!r:.100}") from None
    if not isinstance(label, str) or not _NAME.fullmatch(label):
        raise Unreadable("unsafe_path", f"{path}: splits: name {label!r} becomes part of file names")
    if len(lengths) > _SHARDS or min(lengths, default=0) < 0:
        raise Unreadable("bad_info", f"{path}: splits: {label}: {len(lengths)} shardLengths from {min(lengths)} on")
    template = str(split.get("filepathTemplate") or TEMPLATE)
    found = []
    for number, length in enumerate(lengths):
        relative = template.replace("{DATASET}", name).replace("{SPLIT}", label).replace("{FILEFORMAT}", "tfrecord")
        relative = relative.replace("{SHARD_X_OF_Y}", f"{number:05d}-of-{len(lengths):05d}")
        found.append(Shard(inside(root, relative, f"{path}: filepathTemplate"), label, number, length))
    return found


def _flatten(path: Path, node: Any, name: str, found: dict[str, Stored], depth: int = 0) -> None:
    """The tree of features.json as paths. TFDS stores the steps of an episode in features of the same names."""
    if not isinstance(node, dict) or depth > 20:
        raise Unreadable("bad_info", f"{path}: {name or 'content'}: expected a feature, found {node!r:.100}")
    fold, sequence = node.get("featuresDict"), node.get("sequence")
    inner = fold.get("features") if isinstance(fold, dict) else None
    if isinstance(inner, dict):
        for key, child in inner.items():
            _flatten(path, child, f"{name}/{key}" if name else key, found, depth + 1)
    elif isinstance(sequence, dict):
        _flatten(path, sequence.get("feature"), name, found, depth + 1)
    else:
        found[name] = _leaf(path, node, name)


def _leaf(path: Path, node: dict[str, Any], name: str) -> Stored:
    label = str(node.get("pythonClassName", "")).rsplit(".", 1)[-1]
    if "text" in node:
        return Stored("text", (), "string", "none")
    for key, kind in (("image", "image"), ("tensor", "numbers")):
        if isinstance(inner := node.get(key), dict):
            try:
                sizes = tuple(int(size) for size in (inner.get("shape") or {}).get("dimensions", ()))
            except (TypeError, ValueError, OverflowError, AttributeError):
                raise Unreadable("bad_info", f"{path}: {name}: shape {inner.get('shape')!r:.100}") from None
            dtype = str(inner.get("dtype", ""))
            encoding = str(inner.get("encodingFormat" if kind == "image" else "encoding", "")) or "none"
            return Stored("text" if dtype == "string" else kind, sizes, dtype, encoding)
    return Stored(label or "unknown", (), "", "none")
