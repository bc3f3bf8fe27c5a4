"""``python -m data convert``: what it reads, writes and says."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path

from data.clips import Shard
from data.convert.from_lerobot import from_lerobot, refuse_inside
from data.convert.stored import open_sets
from data.convert.to_lerobot import Summary, to_lerobot
from data.convert.write import Limits
from pipeline.errors import TooManyFailures, UserError
from pipeline.logs import StageLog

FILES_IN_A_FOLDER = 1000  # LeRobot's own number


def convert_to(shards: list[Path], out: Path, file_mb: int, allowed: int) -> None:
    """Clips to LeRobot data sets. Raises TooManyFailures when more clips than ``allowed`` were rejected."""
    if file_mb < 1:
        raise UserError(f"--file-mb {file_mb}: data files have at least 1 MB. LeRobot's own number is 100.")
    limits = Limits(file_mb << 20, FILES_IN_A_FOLDER)
    clips = sum(len(Shard(path).keys) for path in shards)
    _run(out, clips, allowed, lambda advance: to_lerobot(shards, out, limits, advance))


def convert_from(folder: Path, out: Path, allowed: int) -> None:
    """LeRobot data sets to clips. Raises as ``convert_to``."""
    sets = open_sets(folder)
    refuse_inside(sets, out)  # before there is a log in it
    clips = sum(len(stored.listed) for stored in sets)
    _run(out, clips, allowed, lambda advance: from_lerobot(sets, out, advance))


def _run(out: Path, clips: int, allowed: int, convert: Callable[[Callable[[int], None]], Summary]) -> None:
    log, started = StageLog(out, "convert"), time.perf_counter()
    with log.progress("clips", clips) as advance:
        summary = convert(advance)
    seconds = time.perf_counter() - started
    for line in summary.made:
        log.info(line)
    if summary.done_before:
        log.info("nothing to do: this was converted before")
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        rates = f"{summary.frames / seconds:.0f} frames/s, {summary.bytes / 1e6 / seconds:.1f} MB/s"
        log.info(f"{summary.clips} clips in {seconds:.1f} s: {rates}; at most {peak:.0f} MB of memory")
    for reason, count in summary.rejected.items():
        log.warning(f"rejected: {count} clips: {reason}")
    rejected = sum(summary.rejected.values())
    if rejected > allowed:
        raise TooManyFailures(
            f"{rejected} clips were rejected, {allowed} are allowed; the others were converted. "
            f"{out / 'rejected.jsonl'} says why. Go on with --allow-rejected {rejected}, or mend them and convert anew."
        )
