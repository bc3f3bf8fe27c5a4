"""Clips as training reads them: a few rows of an array and one image at a time, straight from their place in the shard.

A window needs some 14 of a clip's frames. ``data.clips.Shard`` reads clips whole and keeps the place of every file of
a shard in memory; here only the place of each clip is kept, so that a data set of millions of clips opens quickly,
travels to loader processes in a few megabytes and needs no more memory than its reader allows.
"""

from __future__ import annotations

import io
import itertools
import os
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from data.archive import File, Irregular, all_files, walk
from data.clips import VERIFY, Clip, Decode, decode_depth, decode_image, parse_array, parse_meta, series_of
from data.pictures import BadPicture
from data.schema import FIELD_BY_NAME, FIELDS, PICTURES, ClipMeta, misfit
from data.waypoints import grasp_path, waypoints_ahead
from pipeline.errors import UserError

OPEN_FILES = 64
SMALL = (  # kept whole
    "timestamps", "intrinsics", "world_from_camera", "opening", "grasp", "sigma", "actions", "proprio",
)  # fmt: skip
LARGE = ("points", "visible")  # read by rows
_NPY_HEADER = 128  # bytes; what numpy writes before an array of few dimensions


class OpenShards:
    """The shards of a data set, opened when needed, a bounded number at a time; closed when pickled. For one thread."""

    def __init__(self, paths: list[Path]):
        self.paths = paths
        self._handles: OrderedDict[int, int] = OrderedDict()
        self._irregular: dict[tuple[int, int], list[File]] = {}  # clips that only tarfile finds, by shard and header

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_handles": OrderedDict()}

    def __del__(self) -> None:
        for handle in self._handles.values():
            os.close(handle)

    def read(self, shard: int, offset: int, length: int) -> bytes:
        """Bytes of a shard; UserError when it ends before."""
        content = os.pread(self._handle(shard), length, offset)
        if len(content) < length:
            raise UserError(f"{self.paths[shard]}: truncated. Remove it and run the stage again.")
        return content

    def clips(self, shard: int) -> Iterator[tuple[str, list[File]]]:
        """Key and files of each clip, in the order of the archive. Raises UserError when the shard cannot be read."""
        files, plain = all_files(self.paths[shard])
        for key, group in itertools.groupby(files, lambda file: file.key):
            members = list(group)
            if not plain:
                self._irregular[shard, members[0].header] = members
            yield key, members

    def key(self, shard: int, header: int) -> str:
        """Key of the clip whose first header is at ``header``."""
        return next(self._from(shard, header)).key

    def files(self, shard: int, header: int) -> tuple[str, list[File]]:
        """Key and files of the clip whose first header is at ``header``."""
        members = [next(following := self._from(shard, header))]
        key = members[0].key
        members += itertools.takewhile(lambda file: file.name.startswith(f"{key}."), following)
        return key, members

    def _from(self, shard: int, header: int) -> Iterator[File]:
        """Files from a clip's first header on."""
        known, found = self._irregular.get((shard, header)), False
        try:
            for file in walk(self._handle(shard), header) if known is None else known:
                found = True
                yield file
        except Irregular:
            found = False
        if not found:
            raise UserError(f"{self.paths[shard]}: has changed since it was opened. Start again.")

    def _handle(self, shard: int) -> int:
        if shard not in self._handles:
            if len(self._handles) >= OPEN_FILES:
                os.close(self._handles.popitem(last=False)[1])
            try:
                self._handles[shard] = os.open(self.paths[shard], os.O_RDONLY)
            except OSError as error:
                raise UserError(f"{self.paths[shard]}: cannot be read as a shard ({error}).") from error
        self._handles.move_to_end(shard)
        return self._handles[shard]


@dataclass(frozen=True)
class _Rows:
    """Where the rows of an array lie: offset of the first, and what they are."""

    offset: int
    dtype: np.dtype
    shape: tuple[int, ...]  # of all rows


@lru_cache(1024)  # numpy parses such a header in 40 us; clips share a few
def _layout(start: bytes) -> _Rows | None:
    """Layout of the .npy file that begins with ``start``; None where only numpy should read it."""
    stream = io.BytesIO(start)
    try:
        if np.lib.format.read_magic(stream) != (1, 0):
            return None
        shape, columns_first, dtype = np.lib.format.read_array_header_1_0(stream)
    except Exception:  # of whatever kind: numpy has many for damaged headers
        return None
    if columns_first or dtype.hasobject or not all(type(size) is int and size >= 0 for size in shape):
        return None
    return _Rows(stream.tell(), dtype, shape)


class ClipRows:
    """One clip: what is small in memory, what is large on disk. Raises UserError naming what cannot be read."""

    def __init__(self, shards: OpenShards, shard: int, header: int):
        self._shards, self._shard = shards, shard
        self.key, files = shards.files(shard, header)
        self._files = {file.field: file for file in files}
        self.meta: ClipMeta = parse_meta(self._content("meta.json"), self._path, self.key)
        self.arrays = {name: self._whole(name) for name in SMALL if f"{name}.npy" in self._files}
        self._pictures: dict[str, list[File]] = {spec.name: [] for spec in PICTURES}
        for name in sorted(self._files):
            if (series := series_of(name)) is not None:
                self._pictures[series].append(self._files[name])
        self._large = {name: self._place(name) for name in LARGE}
        self._require_layouts()
        self._waypoints: dict[float, tuple[np.ndarray, np.ndarray]] = {}
        places = 200 * len(self._files)  # about what a name and its place take
        derived = 100 * len(self.arrays["timestamps"])  # the grasp path, waypoints
        self.nbytes = sum(array.nbytes for array in self.arrays.values()) + derived + places

    @property
    def frames(self) -> int:
        return len(self.arrays["timestamps"])

    @property
    def points(self) -> int:
        """How many points the clip has."""
        return self._large["points"].shape[1]

    def rows(self, name: str, first: int, end: int) -> np.ndarray:
        """Rows first ... end-1 of ``points`` or ``visible``; do not write to them."""
        place = self._large[name]
        if isinstance(place, np.ndarray):
            return place[first:end]
        width = int(np.prod(place.shape[1:])) * place.dtype.itemsize
        content = self._shards.read(self._shard, place.offset + first * width, (end - first) * width)
        return np.frombuffer(content, place.dtype).reshape(end - first, *place.shape[1:])

    def image(self, frame: int) -> np.ndarray:
        """uint8 [H,W,3] RGB of one frame."""
        return self._decoded("images", frame, decode_image)

    def scene(self, frame: int) -> np.ndarray:
        """uint8 [H,W,3] RGB of one frame without the actor. Raises UserError where the clip has no scenes."""
        return self._decoded("scenes", frame, decode_image)

    def depth(self, frame: int) -> np.ndarray | None:
        """f32 [H,W] metres, depth of one frame's scene, 0 = unknown; None where the clip has no depth."""
        return self._decoded("depths", frame, decode_depth) if self._pictures["depths"] else None

    @cached_property
    def grasp(self) -> np.ndarray:
        """f32 [T,3]: the grasp point in the camera frame, the centroid of all points where it is not known."""
        known = self.arrays.get("grasp")
        if known is not None and not np.isnan(known).any():
            return known
        return grasp_path(self.rows("points", 0, self.frames), known)

    def waypoints(self, frame: int, within_m: float) -> tuple[np.ndarray, np.ndarray]:
        """What lies ahead of a frame, f32 [3,4] and bool [3]: a row of data.waypoints.waypoints_ahead."""
        if within_m not in self._waypoints:
            poses, opening = self.arrays["world_from_camera"], self.arrays["opening"]
            self._waypoints[within_m] = waypoints_ahead(self.grasp, opening, poses, within_m)
        points_TW4, valid_TW = self._waypoints[within_m]
        return points_TW4[frame], valid_TW[frame]

    def whole(self) -> Clip:
        """All of the clip."""
        arrays = {}
        for name in self._files:
            stem, _, suffix = name.rpartition(".")
            if suffix == "npy":
                if stem not in FIELD_BY_NAME:
                    raise UserError(f"{self._path}: clip {self.key}: {name} is not a field of the format.")
                arrays[stem] = self._whole(stem).copy()
        images, scenes, depths = (
            [self._shards.read(self._shard, file.content, file.length) for file in self._pictures[spec.name]]
            for spec in PICTURES
        )
        return Clip(self.key, arrays, images, self.meta, scenes, depths)

    def _require_layouts(self) -> None:
        """Raises UserError where an array is not there, or of another type or shape than the format says."""
        sizes: dict[str, int] = {}
        for spec in FIELDS:
            stored = self._large.get(spec.name, self.arrays.get(spec.name))
            if stored is not None:
                wrong = misfit(spec, stored.dtype, stored.shape, sizes)
            else:
                needed = self.meta.action_spec is not None if spec.labelled_only else not spec.optional
                wrong = "missing" if needed and spec.name in SMALL else None
            if wrong is not None:
                raise UserError(f"{self._path}: clip {self.key}: {spec.name}: {wrong}. {VERIFY}")

    @property
    def _path(self) -> Path:
        return self._shards.paths[self._shard]

    def _decoded(self, series: str, frame: int, decode: Decode) -> np.ndarray:
        files = self._pictures[series]
        if frame >= len(files):
            raise UserError(f"{self._path}: clip {self.key}: {series}: no picture of frame {frame}.")
        content = self._shards.read(self._shard, files[frame].content, files[frame].length)
        try:
            return decode(content, self.meta.image_size)
        except BadPicture as error:
            raise UserError(f"{self._path}: clip {self.key}: {files[frame].field}: {error}. {VERIFY}") from None

    def _content(self, name: str, length: int | None = None) -> bytes:
        if name not in self._files:
            raise UserError(f"{self._path}: clip {self.key} has no {name}.")
        file = self._files[name]
        return self._shards.read(self._shard, file.content, file.length if length is None else min(length, file.length))

    def _whole(self, name: str) -> np.ndarray:
        content = self._content(f"{name}.npy")
        layout = _layout(content[:_NPY_HEADER])
        if layout is None:
            return parse_array(content, self._path, self.key, name)
        try:
            return np.frombuffer(content, layout.dtype, offset=layout.offset).reshape(layout.shape)
        except (ValueError, OverflowError) as error:
            raise UserError(f"{self._path}: clip {self.key}: {name}.npy cannot be read ({error}).") from error

    def _place(self, name: str) -> _Rows | np.ndarray:
        """Where the rows lie; the array itself where it is not stored row by row."""
        layout = _layout(self._content(f"{name}.npy", _NPY_HEADER))
        if layout is None:
            return self._whole(name)
        return replace(layout, offset=self._files[f"{name}.npy"].content + layout.offset)
