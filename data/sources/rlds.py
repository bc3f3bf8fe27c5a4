"""RLDS data sets as TensorFlow Datasets stores them: one tf.train.Example per episode, read without TensorFlow.

The steps of an episode are flattened: ``steps/action`` holds T times the action's numbers, ``steps/observation/image``
T encoded pictures. Formats: https://www.tensorflow.org/datasets/external_tfrecord, https://github.com/google-research/rlds.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.sources.declared import declared_license, naming
from data.sources.example import Values, features
from data.sources.mapping import StepsLayout, full, shipped
from data.sources.parts import joined
from data.sources.pictures import decode_picture, picture_size
from data.sources.recording import MAX_FRAMES, Camera, Measured, Pictures, Piece, Recording, Rejected, safe_name
from data.sources.tfds import Described, Shard, read_description
from data.sources.tfrecord import Record, records
from data.video import Unreadable


def recordings(root: Path, layout: StepsLayout | None = None) -> Iterator[Recording | Rejected]:
    """Every episode of the data set in ``root``, the folder of dataset_info.json and features.json.

    layout: of the features; None: the shipped one that fits. Every byte is read once, to hold it to its checksum.
    Raises Unreadable where the data set as a whole cannot be read, or no layout fits.
    """
    about = About.read(root, layout)
    for shard in about.described.shards:
        if not shard.path.is_file():
            remedy = "Copy it from where the data set came from."
            yield Rejected(
                str(shard.path), "missing", f"{shard.path} does not exist; {shard.length} episodes. {remedy}"
            )
            continue
        yield from _of_shard(shard, about)


@dataclass(frozen=True)
class About:
    """What is told about all episodes of a data set."""

    root: Path
    described: Described
    layout: StepsLayout
    license: str
    told_in: str

    @staticmethod
    def read(root: Path, layout: StepsLayout | None = None) -> About:
        described = read_description(root)
        layout = _fitting(root, described, layout)
        declared = [
            declared_license(root),
            (described.license, "dataset_info.json: redistributionInfo"),
            (layout.license, f"{layout.name} layout"),
        ]
        license_, told_in = next((pair for pair in declared if pair[0]), declared[0])
        return About(root, described, layout, license_, told_in)

    def reopened(self, address: Mapping[str, Any]) -> Recording:
        """The episode at an address that ``recordings`` gave; its checksum is not read again. Raises Unreadable."""
        record = Record(*(address[name] for name in ("number", "start", "stop")))
        return _Episode(self.root / address["path"], record, self).recording(address["name"])


def _of_shard(shard: Shard, about: About) -> Iterator[Recording | Rejected]:
    whole, broken = 0, 0
    for record in records(shard.path):
        if isinstance(record, Rejected):
            broken += 1
            yield record
            continue
        whole += 1
        try:
            name = f"{shard.split}-{shard.number:05d}-{record.number:06d}"
            yield _Episode(shard.path, record, about).recording(name)
        except Unreadable as error:
            yield Rejected(f"{shard.path}: record {record.number}", error.reason, error.detail)
    if not broken and whole != shard.length:
        detail = f"{shard.path}: dataset_info.json promises {shard.length} episodes, the file holds {whole}"
        yield Rejected(str(shard.path), "truncated" if whole < shard.length else "bad_info", detail)


def _fitting(root: Path, described: Described, layout: StepsLayout | None) -> StepsLayout:
    """Of the layouts all of whose features there are, the one that uses most of them."""
    there = described.features.keys()
    choices = [layout] if layout else [shape for shape in shipped() if isinstance(shape, StepsLayout)]
    fitting = [choice for choice in choices if choice.needs() <= there]
    if not fitting:
        lacking = "; ".join(f"{choice.name} lacks {', '.join(sorted(choice.needs() - there))}" for choice in choices)
        listing = ", ".join(f"{name} {stored.kind} {list(stored.shape)}" for name, stored in described.features.items())
        remedy = "Write one as docs/sources.md says"
        raise Unreadable("no_layout", f"{root}: no layout fits ({lacking}). {remedy}, from these features: {listing}")
    return max(fitting, key=lambda choice: len(choice.needs()))


@dataclass(frozen=True)
class _Episode:
    """One record. Its features are found anew whenever they are asked for, so that nothing of it is held."""

    path: Path
    record: Record
    about: About

    @property
    def layout(self) -> StepsLayout:
        return self.about.layout

    def recording(self, name: str) -> Recording:
        values = self._values()
        length = self._length(values)
        about, layout, record = self.about, self.layout, self.record
        cameras = {label: self._camera(values, label, full(path), length) for label, path in layout.cameras.items()}
        actions = ", ".join(full(part.path) for part in layout.actions)
        return Recording(
            name=safe_name(name),
            frames=length,
            cameras=cameras,
            robot=layout.robot,
            license=about.license,
            origin={
                "timestamps": f"regular at {layout.rate_hz:g} Hz, as the {layout.name} layout says",
                "instructions": ", ".join(full(place) for place in layout.instruction),
                "actions": actions,
                "proprio": ", ".join(full(part.path) for part in layout.proprio),
                "robot": f"{layout.name} layout",
                "license": about.told_in,
            },
            read=lambda: self._measured(length),
            pieces=(Piece(self.path, f"bytes {record.start} to {record.stop}"),),
            address={"name": name, "path": str(self.path.relative_to(about.root)), **vars(record)},
        )

    def _values(self) -> dict[str, Values]:
        try:
            with self.path.open("rb") as handle:
                # mapped for as long as a value refers to it; only what is touched takes memory
                view = memoryview(mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ))
        except (OSError, ValueError) as error:
            raise Unreadable("unreadable", f"{self.path}: {error}") from None
        if len(view) < self.record.stop:
            raise Unreadable("truncated", f"{self.where}: the file has only {len(view)} bytes now")
        with naming(self.where):
            return features(view, self.record.start, self.record.stop)

    def _length(self, values: dict[str, Values]) -> int:
        """Frames of the episode, which all pictures agree on."""
        counts = {path: len(self._of(values, full(path))) for path in self.layout.cameras.values()}
        length = max(counts.values())
        if len(set(counts.values())) != 1 or not 0 < length <= MAX_FRAMES:
            raise Unreadable("ragged", f"{self.where}: numbers of pictures differ, or there are none: {counts}")
        return length

    def _camera(self, values: dict[str, Values], label: str, path: str, length: int) -> Camera:
        first = self._of(values, path)
        width, height = picture_size(first.text(0), f"{self.where}: {path}: step 0")
        told = self.about.described.features[path].shape
        if any(size > 0 and size != found for size, found in zip(told, (height, width), strict=False)):
            detail = f"{path}: pictures are {height}x{width}, features.json says {'x'.join(map(str, told))}"
            raise Unreadable("mixed_sizes", f"{self.where}: {detail}")
        return Camera(label, width, height, self.layout.rate_hz, length, self._pictures(path))

    def _pictures(self, path: str) -> Pictures:
        def read(start: int, stop: int) -> Iterator[np.ndarray]:
            values = self._of(self._values(), path)
            for step in range(start, min(stop, len(values))):
                yield decode_picture(values.text(step), f"{self.where}: {path}: step {step}")

        return read

    def _measured(self, length: int) -> Measured:
        values = self._values()
        return Measured(
            timestamps=np.arange(length) / self.layout.rate_hz,
            instructions=self._instructions(values, length),
            actions=joined(self.layout.actions, lambda place: self._numbers(values, full(place), length), "action"),
            proprio=joined(self.layout.proprio, lambda place: self._numbers(values, full(place), length), "state"),
        )

    def _numbers(self, values: dict[str, Values], path: str, length: int) -> np.ndarray:
        """[length, numbers per step] of a feature that is stored as plain numbers."""
        stored = self.about.described.features[path]
        if stored.kind != "numbers" or stored.encoding != "none":
            raise Unreadable(
                "unsupported_format", f"{self.where}: {path}: {stored.kind} with encoding {stored.encoding}"
            )
        found = self._of(values, path)
        if found.kind == "bytes":
            raise Unreadable("bad_dtype", f"{self.where}: {path}: holds bytes, features.json declares {stored.dtype}")
        numbers = found.numbers()
        width = int(np.prod([size for size in stored.shape if size > 0])) if stored.shape else 1
        if len(numbers) != length * width:
            detail = f"{len(numbers)} numbers for {length} steps of {width}"
            raise Unreadable("ragged", f"{self.where}: {path}: {detail}")
        return numbers.reshape(length, width)

    def _instructions(self, values: dict[str, Values], length: int) -> tuple[str, ...]:
        """Per step, the first of the layout's features that says something. Embeddings tell no words."""
        words = [""] * length
        for place in map(full, self.layout.instruction):
            found = self._of(values, place)
            if found.kind != "bytes" or len(found) not in (1, length):
                raise Unreadable("ragged", f"{self.where}: {place}: {len(found)} of {found.kind} for {length} steps")
            try:
                told = [found.text(min(step, len(found) - 1)).decode() for step in range(length)]
            except UnicodeDecodeError as error:
                raise Unreadable("bad_text", f"{self.where}: {place}: not UTF-8 ({error.reason})") from None
            words = [word or other for word, other in zip(words, told, strict=True)]
        known: dict[str, str] = {}
        return tuple(known.setdefault(word, word) for word in words)

    def _of(self, values: dict[str, Values], path: str) -> Values:
        if path not in values:
            raise Unreadable("missing", f"{self.where}: there is no feature '{path}'; there are {', '.join(values)}")
        return values[path]

    @property
    def where(self) -> str:
        return f"{self.path}: record {self.record.number} at byte {self.record.start - 12}"
