"""Folders of colour and depth with a calibration, as a layout describes them (data/sources/folders_layout.py)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.sources.declared import declared_license, naming
from data.sources.folders_layout import FoldersCamera, FoldersLayout, InFile
from data.sources.mapping import shipped
from data.sources.patterns import as_glob, matched
from data.sources.pictures import decode_picture, decode_sensor_depth, depth_size, picture_size
from data.sources.recording import MAX_FRAMES, Camera, Measured, Pictures, Piece, Recording, Rejected, safe_name
from data.sources.rgbd_files import intrinsics, told
from data.sources.rgbd_streams import Filmed, Stream, filmed
from data.video import Unreadable, frames, probe
from pipeline.remote import folders

MAX_PICTURE_BYTES = 256 << 20
MAX_WORDS = 2000  # characters of an instruction


def recordings(root: Path, layout: FoldersLayout | None = None) -> Iterator[Recording | Rejected]:
    """Every episode folder below ``root``, or ``root`` itself.

    layout: of all folders; None: for each folder the shipped one that fits. Damage is a rejection of its folder, and so
    are pictures that were left out because no depth or pose belongs to them.
    """
    about = About.read(root, layout)
    for folder, shape in episodes(root, layout):
        try:
            episode = _Episode(root, folder, shape)
            found = episode.recording(*about.declared)
        except Unreadable as error:
            yield Rejected(str(folder), error.reason, error.detail)
            continue
        yield from (Rejected(str(folder), "unpaired", detail) for detail in episode.left_out)
        yield found


def episodes(root: Path, layout: FoldersLayout | None = None) -> Iterator[tuple[Path, FoldersLayout]]:
    """Folders that have what marks an episode of the layout, or of a shipped one, in order, hidden ones left out."""
    choices = [layout] if layout else _shipped()
    for folder in folders(root):
        for choice in choices:
            marked = any((folder / marker).exists() for marker in choice.episodes)
            if marked and (layout or _has_pictures(folder, choice)):
                yield folder, choice
                break


def _shipped() -> list[FoldersLayout]:
    return [one for one in shipped() if isinstance(one, FoldersLayout)]


def _has_pictures(folder: Path, layout: FoldersLayout) -> bool:
    """Whether there is colour and depth where the layout has them: markers alone may be anything."""
    patterns = [place for camera in layout.cameras.values() for place in (camera.color, camera.depth) if place]
    return all(next(folder.glob(as_glob(pattern)), None) is not None for pattern in patterns)


@dataclass(frozen=True)
class About:
    """What is told about all episodes of a data set. declared: its licence, and where it is told."""

    root: Path
    layout: FoldersLayout | None
    declared: tuple[str, str]

    @staticmethod
    def read(root: Path, layout: FoldersLayout | None = None) -> About:
        return About(root, layout, declared_license(root))

    def reopened(self, address: Mapping[str, Any]) -> Recording:
        """The episode at an address that ``recordings`` gave. Raises Unreadable."""
        folder = self.root / address["path"]
        shape = self.layout or next((one for one in _shipped() if one.name == address["layout"]), None)
        if shape is None:
            raise Unreadable("no_layout", f"{folder}: there is no layout {address['layout']} any more")
        return _Episode(self.root, folder, shape).recording(*self.declared)


class _Episode:
    """One folder. left_out: pictures that are not used, in words. Raises Unreadable where it is not whole."""

    def __init__(self, root: Path, folder: Path, layout: FoldersLayout):
        self.root, self.folder, self.layout = root, folder, layout
        if not folder.is_dir():
            raise Unreadable("missing", f"{folder} does not exist")
        self._settings = self._cameras()
        self._filmed = {
            label: filmed(folder, layout, camera, {"camera": label}) for label, camera in self._settings.items()
        }
        counts = {label: len(one.times) for label, one in self._filmed.items()}
        if len(set(counts.values())) != 1 or not 0 < min(counts.values()) <= MAX_FRAMES:
            raise Unreadable("ragged", f"{folder}: numbers of pictures differ, or there are none: {counts}")
        if len({one.color.keys for one in self._filmed.values() if one.color.keys}) > 1:
            raise Unreadable("ragged", f"{folder}: not all cameras have the same frames: {', '.join(counts)}")
        self.left_out = [f"camera {label}: {said}" for label, one in self._filmed.items() for said in one.left_out]

    def recording(self, license_: str, told_in: str) -> Recording:
        layout, first = self.layout, next(iter(self._filmed.values()))
        if layout.license and not license_:
            license_, told_in = layout.license, f"{layout.name} layout"
        times = first.times - first.times[0]
        rate = self._rate(times)
        relative = self.folder.relative_to(self.root).as_posix()
        words = told(layout.instruction, self.folder, self.root, {})
        instruction = _one_line(*words) if words else ""
        return Recording(
            name=safe_name(self.root.name if relative == "." else relative),
            frames=len(times),
            cameras={label: self._camera(label, one, rate) for label, one in self._filmed.items()},
            robot=layout.robot,
            license=license_,
            origin={
                "timestamps": layout.timestamps or f"the pictures, or regular at {rate:g} Hz",
                "instructions": words[0].name if words else "not told",
                "robot": f"{layout.name} layout",
                "license": told_in,
            },
            read=lambda: Measured(times, (instruction,) * len(times)),
            pieces=tuple(map(Piece, self._files([words[0]] if words else []))),
            address={"path": relative, "layout": layout.name},
        )

    def _cameras(self) -> dict[str, FoldersCamera]:
        """Cameras by name; a star has become every name that there is."""
        found: dict[str, FoldersCamera] = {}
        for label, camera in self.layout.cameras.items():
            if label != "*":
                found[label] = camera
                continue
            for path in sorted(self.folder.glob(as_glob(camera.color))):
                named = matched(camera.color, path.relative_to(self.folder).as_posix())
                if named is not None:
                    found[named["camera"]] = camera
        if not found:
            raise Unreadable("no_camera", f"{self.folder}: there is no camera of the {self.layout.name} layout")
        return found

    def _rate(self, times: np.ndarray) -> float:
        if self.layout.rate_hz is not None:
            return self.layout.rate_hz
        gap = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
        if not 1e-6 < gap < 1e6:
            raise Unreadable("bad_timestamps", f"{self.folder}: no rate can be told from times {gap:g} s apart")
        return 1 / gap

    def _files(self, others: list[Path]) -> list[Path]:
        """All that the recording is made of, each once."""
        layout, found = self.layout, list(others)
        for label, one in self._filmed.items():
            settings = self._settings[label]
            lists = [settings.color, settings.depth, settings.world_from_camera, layout.timestamps]
            found += [path for name in lists if name and (path := self.folder / name).is_file()]
            found += [*one.color.paths, *(one.depth.paths if one.depth else ())]
            told_by = self._told(settings, label)
            found += [told_by[0]] if told_by else []
        return list(dict.fromkeys(found))

    def _told(self, settings: FoldersCamera, label: str) -> tuple[Path, list[Any]] | None:
        places = [place for place in settings.intrinsics if isinstance(place, InFile)]
        return told(places, self.folder, self.root, {"camera": label})

    def _camera(self, label: str, one: Filmed, rate: float) -> Camera:
        settings = self._settings[label]
        width, height = _size(one.color, picture_size)
        depths = None
        if one.depth is not None:
            if (found := _size(one.depth, depth_size)) != (width, height):
                detail = f"depth is {found[0]}x{found[1]}, colour {width}x{height}; align depth to colour"
                raise Unreadable("mixed_sizes", f"{one.depth.paths[0]}: {detail}")
            depths = _depths(one.depth, self._unit_m(settings, label))
        matrix = None
        if settings.intrinsics and not isinstance(settings.intrinsics[0], InFile):
            matrix = np.array(settings.intrinsics, np.float64)
        elif (by := self._told(settings, label)) is not None:
            matrix = intrinsics(by, (width, height))
        poses = one.poses
        path = None if poses is None else lambda: poses
        return Camera(label, width, height, rate, len(one.times), _images(one.color), depths, matrix, path)

    def _unit_m(self, settings: FoldersCamera, label: str) -> float:
        found = told(settings.depth_per_m, self.folder, self.root, {"camera": label})
        if found is None:
            return float(settings.depth_unit_m or 0)
        per_m = found[1][-1]
        if not isinstance(per_m, int | float) or not 0 < per_m < 1e6:
            raise Unreadable("bad_info", f"{found[0]}: {per_m!r} is no number of units per metre")
        return 1 / per_m


def _one_line(path: Path, passed: list[Any]) -> str:
    """Words that a file tells, as the last of what was passed on the way. Raises Unreadable (bad_text)."""
    if not isinstance(passed[-1], str) or len(passed[-1]) > MAX_WORDS:
        raise Unreadable("bad_text", f"{path}: no words, or more than {MAX_WORDS} characters: {passed[-1]!r:.80}")
    return " ".join(passed[-1].split())


def _size(stream: Stream, of: Any) -> tuple[int, int]:
    """Width and height of the first picture, by its header."""
    path = stream.paths[0]
    if stream.frames is None:
        return of(_bytes(path), str(path))
    with naming(path):
        info = probe(path)
    return info.width, info.height


def _images(stream: Stream) -> Pictures:
    def read(start: int, stop: int) -> Iterator[np.ndarray]:
        if stream.frames is None:
            for path in stream.paths[start:stop]:
                yield decode_picture(_bytes(path), str(path))
            return
        wanted = set(stream.frames[start:stop])
        with naming(stream.paths[0]):
            for index, _, image in frames(stream.paths[0], None, (min(wanted), max(wanted) + 1)):
                if index in wanted:
                    yield image

    return read


def _depths(stream: Stream, unit_m: float) -> Pictures:
    def read(start: int, stop: int) -> Iterator[np.ndarray]:
        for path in stream.paths[start:stop]:
            yield decode_sensor_depth(_bytes(path), unit_m, str(path))

    return read


def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_PICTURE_BYTES:
            raise Unreadable("too_large", f"{path}: a picture of {path.stat().st_size} bytes")
        return path.read_bytes()
    except FileNotFoundError:
        raise Unreadable("missing", f"{path} does not exist") from None
    except OSError as error:
        raise Unreadable("unreadable", f"{path}: {error.strerror}") from None
