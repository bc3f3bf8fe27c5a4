"""What small files of RGB-D folders tell: lists of pictures, camera matrices, poses, words."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy.spatial.transform import Rotation, Slerp

from data.sources.declared import MAX_BYTES, inside, read_text
from data.sources.folders_layout import InFile
from data.sources.patterns import filled
from data.sources.recording import MAX_FRAMES
from data.video import Unreadable

MAX_TEXT_BYTES = 1 << 20  # of JSON, YAML and words


def text(path: Path, limit: int = MAX_BYTES) -> str:
    """Raises Unreadable (missing, too_large, bad_text)."""
    return read_text(path, limit, "utf-8-sig", "bad_text")


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """Words of each line, comments and empty lines left out, with the numbers of the lines."""
    split = (
        (number, re.split(r"[,\s]+", line.strip())) for number, line in enumerate(text(path).splitlines(), start=1)
    )
    return [(number, words) for number, words in split if words != [""] and not words[0].startswith("#")]


def numbers(path: Path) -> np.ndarray:
    """f64 [T,D] of a text file with D numbers on each line. Raises Unreadable (missing, bad_text, ragged, empty)."""
    lines = _lines(path)
    if not lines:
        raise Unreadable("empty", f"{path} holds no numbers")
    width = len(lines[0][1])
    for number, words in lines:
        if len(words) != width:
            raise Unreadable("ragged", f"{path}: line {number} has {len(words)} numbers, the first {width}")
    try:
        return np.array([words for _, words in lines], np.float64)
    except ValueError as error:
        raise Unreadable("bad_text", f"{path}: {error}") from None


def listed(path: Path, folder: Path) -> list[tuple[float, Path]]:
    """Times and files of lines ``seconds file``. Raises Unreadable, also for a file outside of ``folder``."""
    found = []
    for number, words in _lines(path):
        where = f"{path}: line {number}"
        if len(words) != 2:
            raise Unreadable("bad_text", f"{where}: expected seconds and a file, found {len(words)} words")
        try:
            found.append((float(words[0]), inside(folder, words[1], where)))
        except ValueError:
            raise Unreadable("bad_timestamps", f"{where}: {words[0]!r} is not a number of seconds") from None
    if len(found) > MAX_FRAMES:
        raise Unreadable("too_large", f"{path}: {len(found)} pictures, at most {MAX_FRAMES}")
    return found


def told(places: Sequence[InFile], folder: Path, root: Path, named: dict[str, str]) -> tuple[Path, list[Any]] | None:
    """The first of these that is there: its file, and what was passed on the way to it, itself last; None without any.

    Raises Unreadable (bad_json, missing).
    """
    for place in places:
        path = (root if place.at.startswith("/") else folder) / filled(place.at, named).removeprefix("/")
        if not path.is_file():
            continue
        if not place.key:
            return path, [text(path, MAX_TEXT_BYTES).strip()]
        passed = [_document(path)]
        for step in place.key:
            passed.append(passed[-1].get(step) if isinstance(passed[-1], dict) else None)
        if passed[-1] is not None:
            return path, passed
    return None


def _document(path: Path) -> Any:
    content = text(path, MAX_TEXT_BYTES)
    try:
        if path.suffix == ".json":
            return json.loads(content)
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(content, yaml.SafeLoader)):
            raise Unreadable("bad_json", f"{path}: aliases are not read, which make much out of little")
        return yaml.safe_load(content)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise Unreadable("bad_json", f"{path}: not valid {path.suffix.removeprefix('.').upper()} ({error})") from None


def intrinsics(found: tuple[Path, list[Any]], size: tuple[int, int]) -> np.ndarray:
    """f64 [3,3] pixels. size: width and height of the pictures, which the file must not contradict. Raises Unreadable.

    A matrix may be nested, or nine numbers by rows or by columns, which its 0 0 1 tells.
    """
    path, passed = found
    for holder in passed:
        declared = (holder.get("width"), holder.get("height")) if isinstance(holder, dict) else (None, None)
        if None not in declared and declared != size:
            detail = f"is for {declared[0]}x{declared[1]}, the pictures are {size[0]}x{size[1]}"
            raise Unreadable("mixed_sizes", f"{path}: {detail}")
    value = passed[-1]
    if isinstance(value, str):
        value = numbers(path).tolist()
    if isinstance(value, dict):
        value = [value.get("fx"), value.get("fy"), value.get("cx", value.get("ppx")), value.get("cy", value.get("ppy"))]
    try:
        given = np.array(value, np.float64).reshape(-1)
    except (TypeError, ValueError):
        given = np.zeros(0)
    if given.shape == (4,):
        given = np.array([given[0], 0, given[2], 0, given[1], given[3], 0, 0, 1])
    matrix = given.reshape(3, 3) if given.shape == (9,) else np.zeros((3, 3))
    if matrix[2].tolist() != [0, 0, 1] and matrix[:, 2].tolist() == [0, 0, 1]:
        matrix = matrix.T
    if not (np.isfinite(matrix).all() and matrix[2].tolist() == [0, 0, 1] and matrix[0, 0] > 0 and matrix[1, 1] > 0):
        raise Unreadable("bad_shape", f"{path}: no camera matrix of pixels: {passed[-1]!r:.200}")
    return matrix


def poses_at(path: Path, times: np.ndarray, within_s: float) -> tuple[np.ndarray, np.ndarray]:
    """f64 [T,4,4], between the poses of a file of lines ``seconds tx ty tz qx qy qz qw``; and bool [T], where poses are
    no further than ``within_s`` from each time. Raises Unreadable (bad_shape, bad_timestamps, bad_pose)."""
    table = numbers(path)
    if table.shape[1] != 8:
        raise Unreadable("bad_shape", f"{path}: {table.shape[1]} numbers on a line, expected seconds, 3 and 4")
    if not np.isfinite(table).all() or (np.diff(table[:, 0]) <= 0).any():
        raise Unreadable("bad_timestamps", f"{path}: times or poses are not finite, or do not strictly increase")
    if (np.abs(np.linalg.norm(table[:, 4:], axis=1) - 1) > 1e-2).any():
        raise Unreadable("bad_pose", f"{path}: quaternions that are not of length 1")
    stamps = table[:, 0]
    after = np.clip(np.searchsorted(stamps, times), 0, len(stamps) - 1)
    before = np.clip(after - 1, 0, None)
    near = np.minimum(np.abs(stamps[after] - times), np.abs(stamps[before] - times)) <= within_s
    inside_s = np.clip(times, stamps[0], stamps[-1])
    poses = np.tile(np.eye(4), (len(times), 1, 1))
    turns = Rotation.from_quat(table[:, 4:])
    poses[:, :3, :3] = (Slerp(stamps, turns)(inside_s) if len(stamps) > 1 else turns).as_matrix()
    poses[:, :3, 3] = np.stack([np.interp(inside_s, stamps, table[:, axis]) for axis in (1, 2, 3)], axis=1)
    return poses, near
