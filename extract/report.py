"""The report section of the extract stage."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from data.clips import Clip, Shard, encode_image
from data.index import Episode, Rejection
from data.overlay import filmstrip, strip_image
from extract.passage import STRIP
from extract.worker import REJECTED
from pipeline.section import Section
from pipeline.units import finished_shards

CLIPS_PER_KIND = 2
SIDE = 8  # pictures in each column of accepted and rejected


def write_section(
    folder: Path, summary: dict[str, Any], rejections: list[Rejection], episodes: dict[str, Episode]
) -> None:
    """Counts, every rejection with a frame, and clips of every source and embodiment with their points."""
    section = Section("Extraction", order=20)
    shown = _examples(folder, set(episodes))
    simulated = [clip.meta.simulated for clip in shown]
    if any(simulated):  # a section of rendered video only carries the mark as a whole
        remark = "Clips marked 'simulated' come from rendered video, not from a camera."
        section.note(remark, kind="simulated" if all(simulated) else "info")
    section.summary(
        f"{summary['clips']} motion clips from {summary['episodes_with_clips']} of {summary['episodes']} episodes."
    )
    section.facts(
        [
            ("episodes with clips", f"{summary['episodes_with_clips']} of {summary['episodes']}"),
            ("clips", summary["clips"]),
            ("frames with an effector", f"{summary['frames_with_effector']} of {summary['frames']}"),
            ("rejections", sum(summary["rejections"].values())),
        ],
        top=True,
    )
    leading = _leading(shown)
    for clip in shown:
        pictures = [(jpeg, _caption(clip)) for jpeg in filmstrip(clip)]
        section.images(f"{_kind(clip)}: {clip.key}", pictures, top=clip is leading)
    for clip in {_kind(clip): clip for clip in reversed(shown)}.values():
        times = clip.arrays["timestamps"]
        fps = float((len(times) - 1) / (times[-1] - times[0]))
        points, visible = clip.arrays["points"], clip.arrays["visible"]
        section.cloud(_kind(clip), points, visible, fps, _caption(clip), top=clip is leading)
    section.sides("Accepted and rejected", ("accepted", _accepted(shown)), ("rejected", _rejected(folder, rejections)))
    section.rejections(
        [
            (
                episodes[rejection.item].path.name if rejection.item in episodes else rejection.item,
                rejection.reason,
                rejection.detail,
                _picture(folder, rejection.picture),
            )
            for rejection in rejections
        ]
    )
    section.save(folder)


def _accepted(shown: list[Clip]) -> list[tuple[bytes, str]]:
    return [(encode_image(strip_image(clip, STRIP)), f"{clip.key}: {_caption(clip)}") for clip in shown[:SIDE]]


def _rejected(folder: Path, rejections: list[Rejection]) -> list[tuple[bytes, str]]:
    """One of every reason first, then more of each, until the column is full."""
    seen: Counter[str] = Counter()
    ranked = []
    for number, rejection in enumerate(rejections):
        if (picture := _picture(folder, rejection.picture)) is not None:
            ranked.append((seen[rejection.reason], number, picture, f"{rejection.reason}: {rejection.detail}"))
            seen[rejection.reason] += 1
    return [(picture, text) for _, _, picture, text in sorted(ranked)[:SIDE]]


def _leading(shown: list[Clip]) -> Clip | None:
    """What the page opens with: a hand that the real detector found, filmed rather than simulated if there is one."""
    return min(shown, key=lambda clip: (clip.meta.side is None, clip.meta.simulated), default=None)


def _examples(folder: Path, wanted: set[str]) -> list[Clip]:
    """The clips with the most measured points, a few for each source, embodiment and extractor."""
    best: dict[tuple[str, str, str], list[tuple[float, Path, str]]] = {}
    for path, _ in finished_shards(folder):
        shard = Shard(path)
        for key in shard.keys:
            meta = shard.meta(key)
            if meta.episode_id in wanted:
                score = meta.quality.get("visible", 0.0) * len(meta.source_frames) ** 0.5
                best.setdefault((meta.source, meta.embodiment, meta.extractor), []).append((score, path, key))
    chosen = []
    for kind in sorted(best):
        for _, path, key in sorted(best[kind], key=lambda entry: (-entry[0], entry[2]))[:CLIPS_PER_KIND]:
            chosen.append(Shard(path).clip(key))
    return chosen


def _kind(clip: Clip) -> str:
    mark = " (simulated)" if clip.meta.simulated else ""
    return f"{clip.meta.source}, {clip.meta.embodiment}, {clip.meta.extractor.split('/')[0]}{mark}"


def _caption(clip: Clip) -> str:
    side = f"{clip.meta.side} " if clip.meta.side else ""
    scale = {"metric": "metric scale", "assumed": "assumed scale", "relative": "unknown scale"}[clip.meta.scale]
    return (
        f"{side}{clip.meta.embodiment}: {clip.meta.instruction or 'no instruction'} ({scale}, {clip.meta.depth_source})"
    )


def _picture(folder: Path, name: str) -> bytes | None:
    path = folder / REJECTED / name
    return path.read_bytes() if name and path.is_file() else None
