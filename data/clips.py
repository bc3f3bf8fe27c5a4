"""Motion clips in WebDataset shards: writing them, reading them in order or by their place in the archive."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import ValidationError

from data.archive import all_files
from data.pictures import BadPicture, decoded
from data.schema import (
    FIELD_BY_NAME,
    FIELDS,
    KEY_PATTERN,
    PICTURE_BY_NAME,
    PICTURE_BY_SUFFIX,
    PICTURES,
    SCHEMA_VERSION,
    ClipMeta,
    PictureSpec,
    problems,
)
from pipeline.errors import UserError

JPEG_QUALITY = 90
MM_PER_M = 1000  # depth is stored in millimetres
VERIFY = "`python -m data verify` tells all that is wrong with a shard."
Decode = Callable[[bytes, tuple[int, int]], np.ndarray]
PNG_LEVEL = 3  # of compression, 0 to 9


@dataclass(frozen=True)
class Clip:
    """One motion clip.

    arrays: by field name of data.schema, without ``.npy``. images: T JPEG files. scenes: T JPEG files of the scene
    without the actor, or none. depths: T PNG files of that scene's depth, or none.
    """

    key: str
    arrays: dict[str, np.ndarray]
    images: list[bytes]
    meta: ClipMeta
    scenes: list[bytes] = field(default_factory=list)
    depths: list[bytes] = field(default_factory=list)

    @property
    def frames(self) -> int:
        return len(self.arrays["timestamps"])

    def image(self, frame: int) -> np.ndarray:
        """uint8 [H,W,3] RGB of one frame. Raises UserError naming a picture that cannot be decoded."""
        return self._decoded("images", frame, decode_image)

    def scene(self, frame: int) -> np.ndarray:
        """uint8 [H,W,3] RGB of one frame without the actor. Raises as ``image``."""
        return self._decoded("scenes", frame, decode_image)

    def depth(self, frame: int) -> np.ndarray:
        """f32 [H,W] metres, depth of one frame's scene, 0 = unknown. Raises as ``image``."""
        return self._decoded("depths", frame, decode_depth)

    def _decoded(self, series: str, frame: int, decode: Decode) -> np.ndarray:
        spec, files = PICTURE_BY_NAME[series], getattr(self, series)
        try:
            return decode(files[frame], self.meta.image_size)
        except BadPicture as error:
            name = f"{range(len(files))[frame]:04d}.{spec.suffix}"
            raise UserError(f"clip {self.key}: {name}: {error}. {VERIFY}") from None

    def pictures(self, spec: PictureSpec) -> list[bytes]:
        """The files of one series."""
        return getattr(self, spec.name)

    def problems(self) -> list[str]:
        """Violations of the contract; empty when sound."""
        found = problems(self.arrays, self.meta, {spec.name: len(self.pictures(spec)) for spec in PICTURES})
        return found if KEY_PATTERN.fullmatch(self.key) else [f"key: '{self.key}' does not match [a-z0-9-]+", *found]


def encode_image(image_HW3: np.ndarray) -> bytes:
    """uint8 [H,W,3] RGB -> JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(image_HW3).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def encode_depth_mm(depth_HW: np.ndarray) -> bytes:
    """f32 [H,W] metres along z -> 16-bit PNG in millimetres; 0, unknown, for what it cannot hold."""
    units = np.rint(np.nan_to_num(depth_HW.astype(np.float64), nan=0, posinf=0, neginf=0) * MM_PER_M)
    buffer = io.BytesIO()
    Image.fromarray(np.where((units > 0) & (units <= 65535), units, 0).astype(np.uint16)).save(
        buffer, "PNG", compress_level=PNG_LEVEL
    )
    return buffer.getvalue()


def sample_of(clip: Clip) -> dict[str, bytes | str]:
    """The clip as a WebDataset sample of bytes, in the fixed order of the format.

    Raises ValueError listing every violation of the contract.
    """
    found = clip.problems()
    if found:
        raise ValueError(f"clip {clip.key} violates the format: " + "; ".join(found))
    sample: dict[str, bytes | str] = {"__key__": clip.key}
    sample["meta.json"] = json.dumps(clip.meta.model_dump(), sort_keys=True, allow_nan=False).encode()
    for spec in FIELDS:
        if spec.name in clip.arrays:
            buffer = io.BytesIO()
            np.save(buffer, clip.arrays[spec.name], allow_pickle=False)
            sample[f"{spec.name}.npy"] = buffer.getvalue()
    for spec in PICTURES:
        for number, content in enumerate(clip.pictures(spec)):
            sample[f"{number:04d}.{spec.suffix}"] = content
    return sample


def write_samples(path: Path, samples: Iterable[dict[str, bytes | str]]) -> int:
    """Writes samples into a tar whose bytes depend on nothing but them; returns how many."""
    from webdataset.writer import TarWriter  # brings torch along: not for those who only look

    count = 0
    with (
        path.open("wb") as handle,
        TarWriter(handle, user="kinecloud", group="kinecloud", mode=0o644, mtime=0, encoder=False) as writer,
    ):
        for sample in samples:
            writer.write(sample)
            count += 1
    return count


def write_shard(path: Path, clips: Iterable[Clip]) -> int:
    """Writes clips to ``path`` (use a temporary path and rename it); returns their number."""
    return write_samples(path, (sample_of(clip) for clip in clips))


def decode_image(jpeg: bytes, size: tuple[int, int] | None = None) -> np.ndarray:
    """JPEG -> uint8 [H,W,3] RGB. size: width and height that it must have. Raises BadPicture."""
    return decoded(jpeg, PICTURE_BY_NAME["images"], size)


def decode_depth(png: bytes, size: tuple[int, int] | None = None) -> np.ndarray:
    """16-bit PNG of millimetres -> f32 [H,W] metres, 0 = unknown; otherwise as ``decode_image``."""
    return decoded(png, PICTURE_BY_NAME["depths"], size).astype(np.float32) / np.float32(MM_PER_M)


def series_of(name: str) -> str | None:
    """Which series of pictures (PICTURES) a file of a sample belongs to; None when it is no picture."""
    number, _, suffix = name.partition(".")
    spec = PICTURE_BY_SUFFIX.get(suffix)
    return spec.name if spec is not None and number.isdecimal() else None


class Shard:
    """Random access to the clips of one shard: reads the archive's headers once, then single members."""

    def __init__(self, path: Path):
        self.path = path
        self._places: dict[str, dict[str, tuple[int, int]]] = {}
        for file in all_files(path)[0]:
            self._places.setdefault(file.key, {})[file.field] = (file.content, file.length)
        self.keys = list(self._places)

    def raw(self, key: str) -> dict[str, bytes | str]:
        """The sample's files as they are."""
        members = self._places[key]
        with self.path.open("rb") as handle:
            return {"__key__": key, **{name: self._read(handle, place) for name, place in members.items()}}

    def meta(self, key: str) -> ClipMeta:
        """Only the clip's meta.json."""
        return parse_meta(self.member(key, "meta.json"), self.path, key)

    def array(self, key: str, field: str) -> np.ndarray:
        """Only one array of the clip."""
        return parse_array(self.member(key, f"{field}.npy"), self.path, key, field)

    def member(self, key: str, name: str) -> bytes:
        """One file of the sample."""
        try:
            place = self._places[key][name]
        except KeyError:
            raise UserError(f"{self.path}: clip {key} has no {name}.") from None
        with self.path.open("rb") as handle:
            return self._read(handle, place)

    def clip(self, key: str) -> Clip:
        """The whole clip. Raises UserError naming file, clip and field when a part cannot be read."""
        sample = self.raw(key)
        arrays: dict[str, np.ndarray] = {}
        pictures: dict[str, list[tuple[str, bytes]]] = {spec.name: [] for spec in PICTURES}
        for name, content in sample.items():
            if isinstance(content, str):
                continue
            stem, _, suffix = name.rpartition(".")
            if suffix == "npy":
                if stem not in FIELD_BY_NAME:
                    raise UserError(f"{self.path}: clip {key}: {name} is not a field of the format.")
                arrays[stem] = parse_array(content, self.path, key, stem)
            elif (series := series_of(name)) is not None:
                pictures[series].append((name, content))
        images, scenes, depths = ([content for _, content in sorted(pictures[spec.name])] for spec in PICTURES)
        return Clip(key, arrays, images, self.meta(key), scenes, depths)

    def clips(self) -> Iterator[Clip]:
        """All clips in the order of the archive."""
        return (self.clip(key) for key in self.keys)

    @staticmethod
    def _read(handle: io.BufferedReader, place: tuple[int, int]) -> bytes:
        handle.seek(place[0])
        return handle.read(place[1])


def parse_array(content: bytes, path: Path, key: str, field: str) -> np.ndarray:
    """A clip's .npy file; UserError naming it when it is none."""
    try:
        return np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)  # np.load would open other things, too
    except Exception as error:  # of whatever kind: numpy has many for damaged headers
        raise UserError(f"{path}: clip {key}: {field}.npy cannot be read ({error}).") from error


def parse_meta(content: bytes, path: Path, key: str) -> ClipMeta:
    """A clip's meta.json; UserError naming what is wrong with it, such as an older version."""
    try:
        stored = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: clip {key}: meta.json is not valid JSON ({error}).") from None
    version = stored.get("schema_version") if isinstance(stored, dict) else None
    if isinstance(version, int) and version < SCHEMA_VERSION:
        raise UserError(
            f"{path}: clip {key}: meta.json: schema_version {version}, this release reads {SCHEMA_VERSION}. "
            f"Bring the shard up: python -m data upgrade {path} --out FOLDER"
        )
    try:
        return ClipMeta.model_validate(stored)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: clip {key}: meta.json: {where}: {first['msg']} (found {first['input']!r}).") from None


def verify(paths: Iterable[Path]) -> list[str]:
    """Reads every clip of the shards completely; one line per violation, naming shard, clip and field."""
    found: list[str] = []
    seen: dict[str, Path] = {}
    for path in paths:
        try:
            shard = Shard(path)
        except UserError as error:
            found.append(str(error))
            continue
        for key in shard.keys:
            if key in seen:
                found.append(f"{path}: clip {key} is also in {seen[key]}")
            seen[key] = path
            try:
                clip = shard.clip(key)
            except UserError as error:
                found.append(str(error))
                continue
            found += [f"{path}: clip {key}: {line}" for line in clip.problems()]
            found += [f"{path}: clip {key}: {line}" for line in _image_problems(clip)]
    return found


def _image_problems(clip: Clip) -> list[str]:
    found = []
    for spec in PICTURES:
        for number, content in enumerate(clip.pictures(spec)):
            try:
                decoded(content, spec, clip.meta.image_size)
            except BadPicture as error:
                found.append(f"{number:04d}.{spec.suffix}: {error}")
    return found
