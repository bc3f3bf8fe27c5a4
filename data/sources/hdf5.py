"""HDF5 demonstrations: robomimic, LIBERO, EgoDex, and whatever a layout describes (data/sources/mapping.py)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from data.sources.declared import declared_license, naming
from data.sources.hdf5_file import File, open_file
from data.sources.hdf5_hands import read_hands
from data.sources.mapping import GroupsCamera, GroupsLayout, Told, shipped
from data.sources.parts import joined
from data.sources.pictures import MAX_PIXELS, metres
from data.sources.recording import Camera, Measured, Pictures, Piece, Recording, Rejected, safe_name
from data.video import Unreadable, frames, probe

SUFFIXES = (".hdf5", ".h5")
BLOCK_BYTES = 8 << 20  # pictures are read in blocks of about this size


def recordings(root: Path, layout: GroupsLayout | None = None) -> Iterator[Recording | Rejected]:
    """Every episode of every HDF5 file below ``root``, or of ``root`` itself.

    layout: of all files; None: for each file the shipped one that fits. Damage is a rejection of its file or episode.
    """
    files = [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES)
    about = About.read(root, layout)
    taken: set[str] = set()
    for path in files:
        try:
            with open_file(path) as file:
                shape = _fitting(file, layout)
                groups = [str(group.name) for group in file.groups(shape.episodes)]
        except Unreadable as error:
            yield Rejected(str(path), error.reason, error.detail)
            continue
        stem = path.stem if root.is_file() else str(path.relative_to(root).with_suffix(""))
        for group in groups:
            try:
                name = _unused(safe_name(f"{stem}-{group.rsplit('/', 1)[-1]}"), taken)
                yield _Episode(root, path, group, shape).recording(name, *about.declared)
            except Unreadable as error:
                yield Rejected(f"{path}: {group}", error.reason, error.detail)


@dataclass(frozen=True)
class About:
    """What is told about all episodes of a data set. declared: its licence, and where it is told."""

    root: Path
    layout: GroupsLayout | None
    declared: tuple[str, str]

    @staticmethod
    def read(root: Path, layout: GroupsLayout | None = None) -> About:
        return About(root, layout, declared_license(root if root.is_dir() else root.parent))

    def reopened(self, address: Mapping[str, Any]) -> Recording:
        """The episode at an address that ``recordings`` gave. Raises Unreadable."""
        path = self.root / address["path"]
        with open_file(path) as file:
            shape = _fitting(file, self.layout)
        return _Episode(self.root, path, address["group"], shape).recording(address["name"], *self.declared)


def _unused(name: str, taken: set[str]) -> str:
    """Names that differ only in signs and case get a number."""
    unique, number = name, 2
    while unique in taken:
        unique, number = f"{name}-{number}", number + 1
    taken.add(unique)
    return unique


def _fitting(file: File, layout: GroupsLayout | None) -> GroupsLayout:
    choices = [layout] if layout else [shape for shape in shipped() if isinstance(shape, GroupsLayout)]
    lacking = []
    for choice in choices:
        group = next(iter(file.groups(choice.episodes)), None)
        if group is None:
            lacking.append(f"{choice.name}: no episodes at {choice.episodes}")
            continue
        missing = sorted(place for place in choice.needs() if not isinstance(file.find(group, place), h5py.Dataset))
        if not missing and _cameras(file, group, choice):
            return choice
        lacking.append(f"{choice.name} lacks {', '.join(missing) or 'cameras'}")
    there = ", ".join(file.listing(file.root)) or "nothing"
    remedy = "Write one as docs/sources.md says"
    raise Unreadable("no_layout", f"{file.path}: no layout fits ({'; '.join(lacking)}). {remedy}; there are {there}")


def _cameras(file: File, group: h5py.Group, layout: GroupsLayout) -> dict[str, GroupsCamera]:
    """Cameras by name; a star has become every name that there is."""
    found: dict[str, GroupsCamera] = {}
    for label, camera in layout.cameras.items():
        if camera.path is None or "*" not in camera.path:
            found[label] = camera
            continue
        folder, _, pattern = camera.path.rpartition("/")
        head, tail = pattern.split("*")
        parent = file.find(group, folder) if folder else group
        for name in sorted(parent) if isinstance(parent, h5py.Group) else ():
            if name.startswith(head) and name.endswith(tail) and len(name) > len(head) + len(tail):
                star = name[len(head) : len(name) - len(tail)]
                found[star] = camera.model_copy(update={"path": f"{folder}/{name}" if folder else name})
    return found


@dataclass(frozen=True)
class _Episode:
    """One group of a file. The file is open only while something is read."""

    root: Path
    path: Path
    group: str
    layout: GroupsLayout

    def recording(self, name: str, license_: str, told_in: str) -> Recording:
        layout = self.layout
        if layout.license and not license_:
            license_, told_in = layout.license, f"{layout.name} layout"
        with open_file(self.path) as file:
            group = self._group(file)
            length = _rows(file.demand(group, layout.length))
            if not length:
                raise Unreadable("empty", f"{self.path}: {self.group}/{layout.length} has no rows")
            rate = self._rate(file, group)
            cameras = {
                label: self._camera(file, group, label, camera, length, rate)
                for label, camera in _cameras(file, group, layout).items()
            }
        times = layout.timestamps or f"regular at {rate:g} Hz"
        return Recording(
            name=name,
            frames=length,
            cameras=cameras,
            robot=layout.robot,
            license=license_,
            origin={
                "timestamps": times,
                "instructions": f"{layout.name} layout: instruction",
                "actions": ", ".join(part.path for part in layout.actions),
                "proprio": ", ".join(part.path for part in layout.proprio),
                "robot": f"{layout.name} layout",
                "license": told_in,
            },
            read=lambda: self._measured(length, rate),
            pieces=(Piece(self.path, self.group),),
            address={"name": name, "path": str(self.path.relative_to(self.root)), "group": self.group},
        )

    def _group(self, file: File) -> h5py.Group:
        found = file.find(file.root, self.group)
        if not isinstance(found, h5py.Group):
            raise Unreadable("missing", f"{self.path}: there is no group {self.group}")
        return found

    def _rate(self, file: File, group: h5py.Group) -> float:
        found = next(iter(self._told(file, group, self.layout.rate)), self.layout.rate_hz)
        try:
            rate = float(found)
        except ValueError:
            rate = math.nan
        if not 0 < rate < 1e6:
            raise Unreadable("bad_info", f"{self.path}: {self.group}: rate: {found!r} is not a positive number")
        return rate

    def _told(self, file: File, group: h5py.Group, places: Sequence[Told]) -> list[Any]:
        """What the first place that is there tells: one value, or one per frame."""
        for place in places:
            node = file.find(group, place.at) if place.at else group
            if node is None or any(str(file.attribute(node, key)) != value for key, value in place.when.items()):
                continue
            if place.attribute is not None:
                found = file.attribute(node, place.attribute)
                values = [] if found is None else [found]
            else:
                values = file.text(node) if isinstance(node, h5py.Dataset) else []
            values = [self._within(value, place) for value in values]
            if values and all(value is not None for value in values):
                return values
        return []

    def _within(self, value: Any, place: Told) -> Any:
        """What is found in a text of JSON, or None."""
        where = f"{self.path}: {place.at or self.group}: {place.attribute or 'text'}"
        if place.key:
            try:
                value = json.loads(value)
            except (TypeError, ValueError, RecursionError) as error:
                raise Unreadable("bad_json", f"{where}: not valid JSON ({error})") from None
        for step in place.key:
            value = value.get(step) if isinstance(value, dict) else None
        return value if isinstance(value, str | int | float) else None

    def _camera(
        self, file: File, group: h5py.Group, label: str, camera: GroupsCamera, length: int, rate: float
    ) -> Camera:
        if camera.path is not None:
            height, width = self._sized(file.demand(group, camera.path), length, colour=True)
            pieces: tuple[Piece, ...] = ()
            images = self._blocks(camera.path, camera, colour=True)
        else:
            video = self.path.with_suffix(str(camera.video))
            if not video.is_file():
                raise Unreadable(
                    "missing", f"{video} does not exist; camera {label} is a video beside {self.path.name}"
                )
            with naming(video):
                info = probe(video)
            height, width, pieces = info.height, info.width, (Piece(video),)
            images = _filmed(video)
        depths = None
        if camera.depth is not None and file.find(group, camera.depth) is not None:
            if self._sized(file.demand(group, camera.depth), length, colour=False) != (height, width):
                raise Unreadable("mixed_sizes", f"{self.path}: {camera.depth}: not as large as the pictures of {label}")
            depths = self._blocks(camera.depth, camera, colour=False)
        intrinsics = None
        if camera.intrinsics is not None:
            intrinsics = file.array(group, camera.intrinsics).astype(np.float64)
            if intrinsics.shape != (3, 3) or not (intrinsics[0, 0] > 0 and intrinsics[1, 1] > 0):
                raise Unreadable("bad_shape", f"{self.path}: {camera.intrinsics}: no camera matrix [3,3]: {intrinsics}")
        place = camera.world_from_camera
        poses = None if place is None else lambda: self._poses(place, length)
        return Camera(label, width, height, rate, length, images, depths, intrinsics, poses, pieces)

    def _sized(self, dataset: h5py.Dataset, length: int, colour: bool) -> tuple[int, int]:
        """Height and width. Raises Unreadable where these are no pictures, or not one for each frame."""
        shape = [int(size) for size in dataset.shape or ()]
        where = f"{self.path}: {dataset.name}"
        right = (
            len(shape) == 4 and shape[3] == 3 and dataset.dtype == np.uint8
            if colour
            else len(shape) == 3 or (len(shape) == 4 and shape[3] == 1)
        )  # fmt: skip
        if not right or shape[0] != length:
            kind = f"u8 [{length},H,W,3]" if colour else f"[{length},H,W]"
            raise Unreadable("bad_shape", f"{where}: {dataset.dtype} {shape}, expected {kind}")
        if not 0 < shape[1] * shape[2] <= MAX_PIXELS:
            raise Unreadable("too_large", f"{where}: pictures of {shape[2]}x{shape[1]}, at most {MAX_PIXELS} pixels")
        return int(shape[1]), int(shape[2])

    def _blocks(self, place: str, camera: GroupsCamera, colour: bool) -> Pictures:
        def read(start: int, stop: int) -> Iterator[np.ndarray]:
            with open_file(self.path) as file:
                dataset = file.demand(self._group(file), place)
                each = dataset.nbytes // max(1, _rows(dataset))
                step = max(1, BLOCK_BYTES // max(1, each))
                for first in range(start, stop, step):
                    for picture in dataset[first : min(first + step, stop)]:
                        upright = np.ascontiguousarray(_upright(picture, camera.turn))
                        yield upright if colour else metres(upright.reshape(upright.shape[:2]), camera.depth_unit_m)

        return read

    def _poses(self, place: str, length: int) -> np.ndarray:
        with open_file(self.path) as file:
            found = file.array(self._group(file), place).astype(np.float64)
        return np.tile(found, (length, 1, 1)) if found.shape == (4, 4) else found

    def _measured(self, length: int, rate: float) -> Measured:
        layout = self.layout
        with open_file(self.path) as file:
            group = self._group(file)
            if layout.timestamps is not None:
                times = file.array(group, layout.timestamps).astype(np.float64).reshape(-1)
            else:
                times = np.arange(length) / rate
            words = [str(value) for value in self._told(file, group, layout.instruction)] or [""]
            return Measured(
                timestamps=times,
                instructions=tuple(words * length if len(words) == 1 else words),
                actions=joined(layout.actions, lambda place: self._numbers(file, group, place, length), "action"),
                proprio=joined(layout.proprio, lambda place: self._numbers(file, group, place, length), "state"),
                hands=layout.hands and read_hands(file, group, layout.hands, length),
            )

    def _numbers(self, file: File, group: h5py.Group, place: str, length: int) -> np.ndarray:
        found = file.array(group, place)
        if found.ndim not in (1, 2) or len(found) != length:
            detail = f"{list(found.shape)}, expected {length} rows of numbers"
            raise Unreadable("bad_shape", f"{self.path}: {self.group}/{place}: {detail}")
        return found.reshape(length, -1)


def _rows(dataset: h5py.Dataset) -> int:
    return int(dataset.shape[0]) if dataset.shape else 0


def _upright(picture: np.ndarray, turn: str) -> np.ndarray:
    return picture if turn == "none" else picture[::-1] if turn == "flip" else picture[::-1, ::-1]


def _filmed(video: Path) -> Pictures:
    def read(start: int, stop: int) -> Iterator[np.ndarray]:
        with naming(video):
            yield from (image for _, _, image in frames(video, None, (start, stop)))

    return read
