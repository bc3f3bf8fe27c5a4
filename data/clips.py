"""Motion clips in WebDataset shards: writing them, reading them in order or by their place in the archive."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import ValidationError

from data.archive import all_files
from data.schema import FIELD_BY_NAME, FIELDS, KEY_PATTERN, SCHEMA_VERSION, ClipMeta, problems
from pipeline.errors import UserError

JPEG_QUALITY = 90


@dataclass(frozen=True)
class Clip:
    """One motion clip. arrays: by field name of data.schema, without ``.npy``. images: T JPEG files."""

    key: str
    arrays: dict[str, np.ndarray]
    images: list[bytes]
    meta: ClipMeta

    @property
    def frames(self) -> int:
        return len(self.arrays["timestamps"])

    def image(self, frame: int) -> np.ndarray:
        """uint8 [H,W,3] RGB of one frame."""
        return decode_image(self.images[frame])

    def problems(self) -> list[str]:
        """Violations of the contract; empty when sound."""
        found = problems(self.arrays, self.meta, len(self.images))
        return found if KEY_PATTERN.fullmatch(self.key) else [f"key: '{self.key}' does not match [a-z0-9-]+", *found]


def encode_image(image_HW3: np.ndarray) -> bytes:
    """uint8 [H,W,3] RGB -> JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(image_HW3).save(buffer, "JPEG", quality=JPEG_QUALITY)
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
    for number, jpeg in enumerate(clip.images):
        sample[f"{number:04d}.jpg"] = jpeg
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


def decode_image(jpeg: bytes) -> np.ndarray:
    """JPEG -> uint8 [H,W,3] RGB."""
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))


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
        arrays, images = {}, []
        for name, content in sample.items():
            if isinstance(content, str):
                continue
            stem, _, suffix = name.rpartition(".")
            if suffix == "npy":
                if stem not in FIELD_BY_NAME:
                    raise UserError(f"{self.path}: clip {key}: {name} is not a field of the format.")
                arrays[stem] = parse_array(content, self.path, key, stem)
            elif suffix == "jpg":
                images.append((name, content))
        return Clip(key, arrays, [content for _, content in sorted(images)], self.meta(key))

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
        return np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise UserError(f"{path}: clip {key}: {field}.npy cannot be read ({error}).") from error


def parse_meta(content: bytes, path: Path, key: str) -> ClipMeta:
    """A clip's meta.json; UserError naming what is wrong with it, such as an older version."""
    try:
        stored = json.loads(content)
    except ValueError as error:
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
    for number, jpeg in enumerate(clip.images):
        try:
            with Image.open(io.BytesIO(jpeg)) as image:
                image.load()
                size = image.size
        except (OSError, SyntaxError) as error:
            found.append(f"{number:04d}.jpg: not a readable image ({error})")
            continue
        if size != clip.meta.image_size:
            found.append(f"{number:04d}.jpg: {size[0]}x{size[1]}, meta.image_size says {clip.meta.image_size}")
    return found
