"""Where the rows and videos of each episode of a LeRobot data set lie, and which episodes are not there."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.sources.declared import read_json_lines
from data.sources.lerobot_info import Info, file_of
from data.sources.parquet import episodes_in, read_rows
from data.sources.recording import MAX_FRAMES, Rejected
from data.video import Unreadable

REMEDY = "Copy it from where the data set came from, or leave the episode out."


@dataclass(frozen=True)
class Place:
    """One episode. first_index: its first row in the data set, None where its file holds nothing else.

    videos: by feature, the file and the second at which the episode begins in it.
    """

    index: int
    length: int
    tasks: tuple[str, ...]
    data: Path
    first_index: int | None
    videos: dict[str, tuple[Path, float]]

    def address(self, root: Path) -> dict[str, Any]:
        """As JSON, with paths from ``root`` on."""
        videos = {name: (str(path.relative_to(root)), begin) for name, (path, begin) in self.videos.items()}
        return {**vars(self), "data": str(self.data.relative_to(root)), "videos": videos}

    @staticmethod
    def from_address(root: Path, address: Mapping[str, Any]) -> Place:
        """What ``address`` told."""
        videos = {name: (root / path, begin) for name, (path, begin) in address["videos"].items()}
        return Place(**{**address, "tasks": tuple(address["tasks"]), "data": root / address["data"], "videos": videos})


def places(root: Path, info: Info) -> Iterator[Place | Rejected]:
    """Every listed episode as a place, in order, after what is wrong with the others. All are known before the first is
    handed over, in less than a kilobyte each."""
    found: list[Place] = []
    for one in _told(root, info):
        if isinstance(one, Rejected):
            yield one
        else:
            found.append(one)
    if info.concatenated:
        found, shared = _apart(found, info)
        yield from (Rejected(f"{root}: episode {place.index}", "bad_frame_range", why) for place, why in shared)
    yield from sorted(found, key=lambda place: place.index)


def _told(root: Path, info: Info) -> Iterator[Place | Rejected]:
    """What meta/ tells of each episode, held to what is there."""
    homes: dict[int, list[Path]] = {}
    if info.concatenated:
        homes, broken = _homes(root)
        yield from broken
    counts, lines = Counter[int](), 0
    places: dict[int, Place | Rejected] = {}
    for row in _listed_in_parquet(root) if info.concatenated else _listed_in_lines(root):
        lines += 1
        if isinstance(row, Rejected):
            yield row
            continue
        index = row["episode_index"]
        counts[index] += 1
        try:
            place = _place_concatenated(root, info, row, homes) if info.concatenated else _place(root, info, row)
            for path in (place.data, *(path for path, _ in place.videos.values())):
                if not path.is_file():
                    raise Unreadable("missing", f"{path} does not exist. {REMEDY}")
            places[index] = place
        except Unreadable as error:
            places[index] = Rejected(f"{root}: episode {index}", error.reason, error.detail)
    for index, one in places.items():
        detail = f"episode_index {index} is listed {counts[index]} times under meta/"
        yield one if counts[index] == 1 else Rejected(f"{root}: episode {index}", "duplicate", detail)
    if not lines:
        raise Unreadable("empty", f"{root}: meta/ lists no episode")
    unlisted = info.episodes - len(counts)
    if unlisted > 0:
        detail = f"info.json promises {info.episodes} episodes, {len(counts)} are listed. {REMEDY}"
        yield Rejected(f"{root}: {unlisted} episodes", "missing", detail)


def _listed_in_lines(root: Path) -> Iterator[dict[str, Any] | Rejected]:
    path = root / "meta" / "episodes.jsonl"
    for number, row in read_json_lines(path):
        item = f"{path}: line {number}"
        if isinstance(row, Unreadable):
            yield Rejected(item, row.reason, row.detail)
        elif problem := _unsound(row):
            yield Rejected(item, "bad_info", f"{item}: {problem}")
        else:
            yield row


def _listed_in_parquet(root: Path) -> Iterator[dict[str, Any] | Rejected]:
    folder = root / "meta" / "episodes"
    files = sorted(folder.glob("*/*.parquet"))
    if not files:
        raise Unreadable("missing", f"{folder}: no parquet file lists the episodes. Copy meta/ as a whole.")
    for path in files:
        try:
            rows = read_rows(path, lambda name: not name.startswith("stats/"))
        except Unreadable as error:
            yield Rejected(str(path), error.reason, error.detail)
            continue
        for number, row in enumerate(rows):
            problem = _unsound(row)
            item = f"{path}: row {number}"
            yield Rejected(item, "bad_info", f"{item}: {problem}") if problem else row


def _unsound(row: dict[str, Any]) -> str | None:
    index, length = row.get("episode_index"), row.get("length")
    if type(index) is not int or not 0 <= index < 10**9:
        return f"episode_index: {index!r} is not an index"
    if type(length) is not int or not 0 < length <= MAX_FRAMES:
        return f"length: {length!r} is not a number of frames"
    return None


def _tasks(row: dict[str, Any]) -> tuple[str, ...]:
    tasks = row.get("tasks")
    return tuple(map(str, tasks)) if isinstance(tasks, list) else ()


def _place(root: Path, info: Info, row: dict[str, Any]) -> Place:
    index = row["episode_index"]
    values = {"episode_index": index, "episode_chunk": index // info.chunks_size}
    videos = {
        name: (file_of(root, "video_path", info.video_path, video_key=name, **values), 0.0)
        for name, feature in info.features.items()
        if feature.dtype == "video"
    }
    data = file_of(root, "data_path", info.data_path, **values)
    return Place(index, row["length"], _tasks(row), data, None, videos)


def _homes(root: Path) -> tuple[dict[int, list[Path]], list[Rejected]]:
    """The data files in which each episode has rows, and the files that cannot be read.

    What meta/episodes says of this is not used: lerobot's converter from v2.1 tells the wrong file for every episode
    that begins a new one (github.com/huggingface/lerobot/issues/2401, in 0.4.4 still). Its reader never looks there.
    """
    homes: dict[int, list[Path]] = {}
    broken = []
    for path in sorted((root / "data").glob("*/*.parquet")):
        try:
            for episode in episodes_in(path):
                homes.setdefault(episode, []).append(path)
        except Unreadable as error:
            broken.append(Rejected(str(path), error.reason, error.detail))
    return homes, broken


def _place_concatenated(root: Path, info: Info, row: dict[str, Any], homes: dict[int, list[Path]]) -> Place:
    data = homes.get(row["episode_index"], [])
    if len(data) != 1:
        found = f"{len(data)} files below {root / 'data'} hold rows of episode {row['episode_index']}"
        raise Unreadable("duplicate" if data else "missing", f"{found}. {REMEDY}")
    first, last = _count(row, "dataset_from_index"), _count(row, "dataset_to_index")
    if last - first != row["length"]:
        detail = f"dataset_from_index..dataset_to_index is {first}..{last} for a length of {row['length']}"
        raise Unreadable("bad_frame_range", f"episode {row['episode_index']}: {detail}")
    videos = {}
    for name, feature in info.features.items():
        if feature.dtype != "video":
            continue
        chunk, file = _count(row, f"videos/{name}/chunk_index"), _count(row, f"videos/{name}/file_index")
        path = file_of(root, "video_path", info.video_path, video_key=name, chunk_index=chunk, file_index=file)
        begin, end = _seconds(row, f"videos/{name}/from_timestamp"), _seconds(row, f"videos/{name}/to_timestamp")
        if (end - begin) * info.fps < row["length"] - 1:
            detail = f"{begin:g}..{end:g} s at {info.fps:g} fps hold no {row['length']} frames"
            raise Unreadable("bad_frame_range", f"episode {row['episode_index']}: videos/{name}: {detail}")
        videos[name] = (path, begin)
    return Place(row["episode_index"], row["length"], _tasks(row), data[0], first, videos)


def _count(row: dict[str, Any], name: str) -> int:
    value = row.get(name)
    if type(value) is not int or value < 0:
        raise Unreadable("bad_frame_range", f"episode {row['episode_index']}: {name}: {value!r} is not a count")
    return value


def _seconds(row: dict[str, Any], name: str) -> float:
    value = row.get(name)
    if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise Unreadable("bad_frame_range", f"episode {row['episode_index']}: {name}: {value!r} is no time")
    return float(value)


def _apart(found: list[Place], info: Info) -> tuple[list[Place], list[tuple[Place, str]]]:
    """Episodes whose rows or stretches of video overlap with those of another are taken out, both of them."""
    spans: dict[tuple[str, Path], list[tuple[float, float, Place]]] = {}
    for place in found:
        first = place.first_index or 0
        spans.setdefault(("rows", Path()), []).append((first, first + place.length, place))
        for name, (path, begin) in place.videos.items():
            frames = begin * info.fps
            spans.setdefault((name, path), []).append((frames, frames + place.length, place))
    shared: dict[int, tuple[Place, str]] = {}
    for (name, _), ranges in spans.items():
        ranges.sort(key=lambda span: span[:2])
        for place, other in ((ranges[k], ranges[k + 1]) for k in range(len(ranges) - 1)):
            if other[0] < place[1] - 0.5:
                for one, two in ((place, other), (other, place)):
                    shared.setdefault(one[2].index, (one[2], f"{name}: overlaps with episode {two[2].index}"))
    return [place for place in found if place.index not in shared], list(shared.values())
