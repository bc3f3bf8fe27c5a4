"""What rows of tables say of one video, as stretches of it; a row that cannot be used is a rejection of its own."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.index import Rejection
from data.scan.moments import Clock, Outside, around, seconds
from data.scan.words import Spoken
from data.sidecar import Sidecar, from_csv, parse
from data.sources.recording import safe_name
from data.sources.tables import Row, inside
from data.sources.videos_layout import VideosLayout
from data.video import VideoInfo
from pipeline.errors import UserError

MAX_WORDS = 2000  # characters of an instruction
SHOWN = 5  # of rows that contradict each other


def stretches(video: Path, info: VideoInfo, about: list[Spoken]) -> list[Sidecar | Rejection]:
    """A sidecar for each row, and the rejections. Without rows, one sidecar of what the layouts say of the video.

    Rows that contradict each other are all rejected: that say different things of the very same stretch.
    Raises Unreadable where times are given and the video's own cannot be read.
    """
    if not any(one.rows for one in about):
        return [_parsed({}, one) for one in about[:1]] or [Sidecar()]
    clock, told, refused = Clock(video, info), [], []
    for one in about:
        around_moments = _around_moments(one, clock)
        left_out = 0
        for row in one.rows:
            item = one.table.place(row)
            try:
                words = _words(row, one.table.layout)
                if words is None:
                    left_out += 1
                    continue
                span = _span(row, one.table.layout, clock, around_moments)
                told.append((item, _sidecar(row, one, words, span, clock.frames)))
            except _Refused as error:
                refused.append(Rejection(item, error.reason, f"{video.name}: {error}"))
        if left_out:
            begins = one.table.layout.begins
            detail = f"{left_out} of {len(one.rows)} rows of {one.table.path.name} do not begin with '{begins}'"
            refused.append(Rejection(str(video), "left_out", detail))
    return [*_agreeing(video, told, refused), *refused]


class _Refused(Exception):
    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason


def _agreeing(video: Path, told: list[tuple[str, Sidecar]], refused: list[Rejection]) -> list[Sidecar]:
    """Those that nothing contradicts; the others become rejections."""
    by_span: dict[Any, list[tuple[str, Sidecar]]] = defaultdict(list)
    for item, sidecar in told:
        by_span[sidecar.frame_range].append((item, sidecar))
    agreeing = []
    for span, rivals in by_span.items():
        if len({json.dumps(sidecar.model_dump(), sort_keys=True) for _, sidecar in rivals}) == 1:
            agreeing += [sidecar for _, sidecar in rivals]
            continue
        of = "the whole video" if span is None else f"frames {span[0]} to {span[1]}"
        said = "; ".join(f"{item.rsplit(': ', 1)[1]}: {sidecar.instruction!r:.80}" for item, sidecar in rivals[:SHOWN])
        refused += [Rejection(item, "contradiction", f"{video.name}: {of}: {said}") for item, _ in rivals]
    return agreeing


def _first(row: Row, columns: tuple[str, ...]) -> Any:
    """The first of these columns that is not empty, or None."""
    found = (inside(row.values, column) for column in columns)
    return next((value for value in found if value is not None and value != ""), None)


def _words(row: Row, layout: VideosLayout) -> str | None:
    """The instruction; None for a row that the layout leaves out. Raises _Refused."""
    if row.wrong:
        raise _Refused("bad_row", row.wrong)
    found = _first(row, layout.instruction)
    text = " ".join(found.split()) if isinstance(found, str) else ""
    if len(text) > MAX_WORDS:
        raise _Refused("bad_row", f"words of {len(text)} characters, at most {MAX_WORDS}")
    if text and not text.casefold().startswith(layout.begins.casefold()):
        return None
    for old, new in layout.replace.items():
        text = re.sub(rf"(?<!\w){re.escape(old)}(?!\w)", lambda _, new=new: new, text, flags=re.IGNORECASE)
    text = " ".join(text.split())
    if not text:
        raise _Refused("no_words", f"{' or '.join(layout.instruction)}: no words (found {found!r:.80})")
    return text


def _around_moments(one: Spoken, clock: Clock) -> Mapping[tuple[str, float], tuple[float, float]]:
    """The stretches of all moments of a table, by the list that they are in and their time."""
    layout = one.table.layout
    lists: dict[str, list[float]] = defaultdict(list)
    for row in one.rows if layout.moment else ():
        try:
            lists[row.within].append(seconds(_first(row, layout.moment), layout.unit_s))
        except ValueError:
            continue  # the row is refused where it is looked at
    return {
        (within, time): (start, min(stop, max(clock.end_s, time)))
        for within, times in lists.items()
        for time, (start, stop) in around(times, layout.reach_s).items()
    }


def _span(
    row: Row, layout: VideosLayout, clock: Clock, around_moments: Mapping[tuple[str, float], tuple[float, float]]
) -> tuple[int, int] | None:
    """Frames of a row; None for all of the video. Raises _Refused."""
    try:
        if layout.moment:
            time = seconds(_first(row, layout.moment), layout.unit_s)
            if time >= clock.end_s:
                raise Outside(f"{time:g} s; the video ends at {clock.end_s:.2f} s")
            return clock.span(*around_moments[row.within, time])
        start, stop = _first(row, layout.start), _first(row, layout.stop)
        if start is None and stop is None and set(layout.start) & set(layout.optional):
            return None
        return clock.span(seconds(start, layout.unit_s), seconds(stop, layout.unit_s)) if layout.start else None
    except Outside as error:
        raise _Refused("outside_video", str(error)) from None
    except ValueError as error:
        raise _Refused("bad_time", str(error)) from None


def _sidecar(row: Row, one: Spoken, words: str, span: tuple[int, int] | None, frames: int) -> Sidecar:
    """frames: of the video, 0 where nobody knows. Raises _Refused."""
    table, layout = one.table, one.table.layout
    fields: dict[str, Any] = {name: inside(row.values, column) for name, column in layout.sidecar.items()}
    if layout.others == "sidecar":
        known = {*table.links, *layout.instruction, *layout.start, *layout.stop, *layout.moment}
        fields |= {name: value for name, value in row.values.items() if name not in known}
    try:
        given = from_csv({name: str(value) for name, value in fields.items() if value not in (None, "")}, table.path)
        if span is not None and "frame_range" in given:
            raise _Refused("bad_row", "a stretch in seconds and one in frames; give one of them")
        if "frame_range" in given and given["frame_range"][1] > frames > 0:
            raise _Refused("outside_video", f"frames {given['frame_range']}; the video has {frames}")
        stretch = {} if span is None else {"frame_range": span}
        return _parsed({"instruction": words, **given, **stretch}, one, row)
    except UserError as error:
        raise _Refused("bad_row", str(error)) from None


def _parsed(given: dict[str, Any], one: Spoken, row: Row | None = None) -> Sidecar:
    """A sidecar of what a row gives and of what the layout says of every video in its place. Raises UserError."""
    layout = one.table.layout
    constant = {
        "embodiment": safe_name(one.where.robot) if one.where.robot else None,
        "effector": one.where.effector,
        "group": _group(one, row),
        "license": layout.license or None,
    }
    told = {name: value for name, value in constant.items() if value is not None}
    return parse(told | given, one.table.path, row.number if row else 0)


def _group(one: Spoken, row: Row | None) -> str | None:
    names = one.table.layout.group
    values = [one.named.get(name) or (inside(row.values, name) if row else None) for name in names]
    known = [str(value) for value in values if value not in (None, "")]
    return "-".join(known) if known and len(known) == len(names) else None
