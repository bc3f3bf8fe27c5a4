"""LeRobot data sets, v2.0 and v2.1 (a parquet file and videos per episode) and v3.0 (files of many episodes).

After the reader and writer of https://github.com/huggingface/lerobot; nothing of that package is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from data.sources.declared import declared_license, inside, naming, read_json_lines
from data.sources.lerobot_depth import Quantised, depth_frames
from data.sources.lerobot_info import Feature, Info, read_info
from data.sources.lerobot_places import Place, places
from data.sources.parquet import EpisodeRows, read_rows
from data.sources.pictures import decode_depth, decode_picture
from data.sources.recording import (
    Camera,
    Measured,
    Pictures,
    Piece,
    Recording,
    Rejected,
    Series,
    f32,
    names_for,
    safe_name,
)
from data.video import Unreadable, frames

ACTIONS, PROPRIO = ("action", "actions"), ("observation.state", "state")
RATE_SLACK = 0.02  # of the declared rate: 29.97 goes for 30


def recordings(root: Path) -> Iterator[Recording | Rejected]:
    """Every episode of the data set in ``root``. Raises Unreadable where the data set as a whole cannot be read."""
    about = About.read(root)
    for place in places(root, about.info):
        if isinstance(place, Rejected):
            yield place
            continue
        try:
            yield _recording(about, place)
        except Unreadable as error:
            yield Rejected(f"{root}: episode {place.index}", error.reason, error.detail)


@dataclass(frozen=True)
class About:
    """What is told about all episodes of a data set."""

    root: Path
    info: Info
    tasks: dict[int, str]
    license: str
    told_in: str

    @staticmethod
    def read(root: Path) -> About:
        info = read_info(root)
        return About(root, info, _tasks(root, info), *declared_license(root))

    def reopened(self, address: Mapping[str, Any]) -> Recording:
        """The episode at an address that ``recordings`` gave. Raises Unreadable."""
        return _recording(self, Place.from_address(self.root, address))


def _recording(about: About, place: Place) -> Recording:
    episode = _Episode(about.root, about.info, place, about.tasks)
    rows = "" if place.first_index is None else f"episode {place.index}"
    return Recording(
        name=safe_name(f"episode-{place.index:06d}"),
        frames=place.length,
        cameras=episode.cameras(),
        robot=about.info.robot,
        license=about.license,
        origin={**episode.origin(), "robot": "meta/info.json: robot_type", "license": about.told_in},
        read=episode.measured,
        pieces=(Piece(place.data, rows),),
        address=place.address(about.root),
    )


def _tasks(root: Path, info: Info) -> dict[int, str]:
    """Words by task_index. Raises Unreadable (missing, bad_json, bad_info)."""
    if info.concatenated:
        path = root / "meta" / "tasks.parquet"
        rows = read_rows(path, lambda _: True)
        # pandas writes the words as the index of the table, which has no name in older files
        named = [{**row, "task": row.get("task", row.get("__index_level_0__"))} for row in rows]
    else:
        path = root / "meta" / "tasks.jsonl"
        named = []
        for _, row in read_json_lines(path):
            if isinstance(row, Unreadable):
                raise row
            named.append(row)
    for row in named:
        if type(row.get("task_index")) is not int or not isinstance(row.get("task"), str):
            raise Unreadable("bad_info", f"{path}: needs task_index and task in every row, found {row!r:.100}")
    return {row["task_index"]: row["task"] for row in named}


@dataclass(frozen=True)
class _Episode:
    root: Path
    info: Info
    place: Place
    tasks: dict[int, str]

    @cached_property
    def rows(self) -> EpisodeRows:
        index = self.place.index if self.info.concatenated else None
        return EpisodeRows(self.place.data, self.place.length, index)

    @cached_property
    def times(self) -> np.ndarray:
        """f64 [T] seconds, held to the rate of info.json."""
        times = self.rows.numbers("timestamp", 1)[:, 0].astype(np.float64)
        if len(times) > 1 and times[-1] > times[0]:
            rate = (len(times) - 1) / (times[-1] - times[0])
            if abs(rate / self.info.fps - 1) > RATE_SLACK:
                detail = f"timestamps run at {rate:.4g} Hz, meta/info.json: fps is {self.info.fps:g}"
                raise Unreadable("mixed_fps", f"{self.place.data}: {detail}")
        return times

    def measured(self) -> Measured:
        first = self.place.first_index
        if first is not None and (self.rows.numbers("index", 1)[:, 0] != first + np.arange(self.place.length)).any():
            detail = f"index does not count from {first}, where meta/episodes has the episode"
            raise Unreadable("bad_frame_range", f"{self.place.data}: {detail}")
        return Measured(
            timestamps=self.times,
            instructions=self._instructions(),
            actions=self._series(ACTIONS, "action"),
            proprio=self._series(PROPRIO, "state"),
        )

    def origin(self) -> dict[str, str]:
        found = {"timestamps": f"{self.place.data.name}: timestamp", "instructions": "task_index and meta/tasks"}
        for field, names in (("actions", ACTIONS), ("proprio", PROPRIO)):
            if name := next((name for name in names if name in self.info.features), None):
                found[field] = f"{self.place.data.name}: {name}"
        return found

    def _instructions(self) -> tuple[str, ...]:
        if "task_index" not in self.rows.names() and len(self.place.tasks) == 1:
            return self.place.tasks * self.place.length
        numbers = self.rows.numbers("task_index", 1)[:, 0].tolist()
        if unknown := sorted(set(numbers) - self.tasks.keys()):
            raise Unreadable("missing", f"{self.place.data}: task_index: {unknown[0]} is not listed in meta/tasks")
        return tuple(self.tasks[number] for number in numbers)

    def _series(self, names: tuple[str, ...], prefix: str) -> Series | None:
        feature = next((self.info.features[name] for name in names if name in self.info.features), None)
        if feature is None:
            return None
        values = f32(self.rows.numbers(feature.name, feature.numbers))
        return Series(values, names_for(feature.numbers, feature.names, prefix))

    def cameras(self) -> dict[str, Camera]:
        """By feature. A depth feature goes with the colour camera whose name it extends, or stands alone."""
        features = [feature for feature in self.info.features.values() if feature.camera]
        colours = [feature for feature in features if not feature.depth]
        alone = [feature for feature in features if feature.depth]
        found: dict[str, Camera] = {}
        for colour in colours:
            depth = next((f for f in alone if f.name in _depth_names(colour.name) and f.size == colour.size), None)
            if depth is not None:
                alone.remove(depth)
            found[colour.name] = self._camera(colour, depth)
        return found | {depth.name: self._camera(None, depth) for depth in alone}

    def _camera(self, colour: Feature | None, depth: Feature | None) -> Camera:
        shown = [feature for feature in (colour, depth) if feature]
        width, height = shown[0].size
        filmed = [self.place.videos[feature.name] for feature in shown if feature.dtype == "video"]
        return Camera(
            shown[0].name, width, height, self.info.fps, self.place.length,
            colour and self._pictures(colour), depth and self._depths(depth),
            pieces=tuple(Piece(path, f"from {begin:g} s" if begin else "") for path, begin in filmed),
        )  # fmt: skip

    def _pictures(self, feature: Feature) -> Pictures:
        def filmed(start: int, stop: int) -> Iterator[np.ndarray]:
            path, first, due = self._stretch(feature, start, stop)
            with naming(path):
                read = frames(path, None, (first, first + stop - start))
                for (_, time, image), promised in zip(read, due, strict=False):
                    self._on_time(time, promised)
                    yield image

        def stored(start: int, stop: int) -> Iterator[np.ndarray]:
            for number, value in enumerate(self.rows.stream(feature.name, start, stop), start=start):
                where = f"{self.place.data}: {feature.name}: row {number}"
                yield decode_picture(self._encoded(value, where), where)

        return filmed if feature.dtype == "video" else stored

    def _depths(self, feature: Feature) -> Pictures:
        def filmed(start: int, stop: int) -> Iterator[np.ndarray]:
            path, _, due = self._stretch(feature, start, stop)
            with naming(path):
                read = depth_frames(path, due, 0.5 / self.info.fps, Quantised.declared(feature))
                for (time, depth), promised in zip(read, due, strict=False):
                    self._on_time(time, promised)
                    yield depth

        def stored(start: int, stop: int) -> Iterator[np.ndarray]:
            unit_m = {"m": 1.0, "mm": 0.001}.get(str(feature.info.get("depth_unit")))
            for number, value in enumerate(self.rows.stream(feature.name, start, stop), start=start):
                where = f"{self.place.data}: {feature.name}: row {number}"
                yield decode_depth(self._encoded(value, where), unit_m, where)

        return filmed if feature.dtype == "video" else stored

    def _stretch(self, feature: Feature, start: int, stop: int) -> tuple[Path, int, np.ndarray]:
        """File, first frame in it, and the seconds in the file at which the frames are due."""
        path, begin = self.place.videos[feature.name]
        return path, round(begin * self.info.fps) + start, begin + self.times[start:stop]

    def _on_time(self, time: float, due: float) -> None:
        if abs(time - due) > 0.5 / self.info.fps:
            raise Unreadable("bad_timestamps", f"a frame due at {due:.3f} s is shown at {time:.3f} s")

    def _encoded(self, value: Any, where: str) -> bytes:
        """The bytes of a picture, which are in the row or in a file that the row names."""
        if isinstance(value, dict) and isinstance(value.get("bytes"), bytes):
            return value["bytes"]
        if isinstance(value, dict) and isinstance(value.get("path"), str):
            path = inside(self.root, value["path"], where)
            try:
                return path.read_bytes()
            except OSError as error:
                raise Unreadable("missing", f"{where}: {path}: {error.strerror}") from None
        raise Unreadable("not_an_image", f"{where}: neither bytes nor a path, found {type(value).__name__}")


def _depth_names(colour: str) -> tuple[str, ...]:
    return f"{colour}_depth", f"{colour}.depth", f"{colour}_depth_map", colour.replace("rgb", "depth")
