"""From a video of any length to stretches with an effector in view, each short enough to be handled in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import Field, model_validator

from extract.effector import Sight
from pipeline.config import Settings

AnySight = TypeVar("AnySight", bound=Sight)
LOST_S = 1.0  # without an effector for so long, a stretch ends; shorter losses are the extractor's to bridge or cut
SCRAP = 1.25  # a stretch that is longer than the limit by less than a quarter is not cut


class ClipSettings(Settings):
    """How long videos become clips."""

    max_seconds: float = Field(default=12.0, gt=1, description="Longer stretches are cut into clips of this length.")
    overlap_s: float = Field(
        default=0.7, ge=0, description="By how much such clips overlap, so that no training window is lost at the cut."
    )
    rest_s: float | None = Field(
        default=2.0, gt=0, description="An effector at rest for longer is cut out; null keeps rest."
    )
    rest_m: float = Field(default=0.01, gt=0, description="Moving less than this within a second is rest, metres.")

    @model_validator(mode="after")
    def _overlap_is_part_of_a_clip(self) -> ClipSettings:
        if self.overlap_s > self.max_seconds / 2:
            raise ValueError(f"overlap_s {self.overlap_s:g} is more than half of max_seconds {self.max_seconds:g}")
        return self


@dataclass(frozen=True)
class Stretch(Generic[AnySight]):
    """Consecutive frames. first: the slot of the first one in the video's list of frames.

    known: so many of its frames were in the stretch before, too.
    """

    first: int
    sights: list[AnySight]
    known: int


def stretches(sights: Iterable[AnySight], settings: ClipSettings) -> Iterator[Stretch[AnySight]]:
    """Cuts a stream of sights; at most ``SCRAP`` times ``max_seconds`` of it are held at any time.

    A stretch begins and ends with an effector in view. Where one stays for longer than ``SCRAP`` times ``max_seconds``,
    the stretch ends after ``max_seconds`` and the next one repeats its last ``overlap_s``: no scrap is left over.
    """
    kept: list[AnySight] = []
    first = known = 0
    for slot, sight in enumerate(sights):
        if kept and sight.time - _last_seen(kept) > LOST_S:
            yield from _complete(first, kept, known)
            kept, known = [], 0
        elif kept and sight.time - kept[0].time >= SCRAP * settings.max_seconds:
            end = kept[0].time + settings.max_seconds
            whole = sum(old.time < end for old in kept)
            yield from _complete(first, kept[:whole], known)
            start = next((i for i, old in enumerate(kept) if old.time >= end - settings.overlap_s and old.found), None)
            start = len(kept) if start is None else start
            kept, first, known = kept[start:], first + start, max(whole - start, 0)
        if kept or sight.found:
            first = first if kept else slot
            kept.append(sight)
    yield from _complete(first, kept, known)


def _complete(first: int, kept: list[AnySight], known: int) -> Iterator[Stretch[AnySight]]:
    """The stretch without the frames at its end that show no effector, unless all of it is known."""
    end = next((number + 1 for number in reversed(range(len(kept))) if kept[number].found), 0)
    if end > known:
        yield Stretch(first, kept[:end], known)


def _last_seen(sights: list[AnySight]) -> float:
    return next((sight.time for sight in reversed(sights) if sight.found), sights[0].time)
