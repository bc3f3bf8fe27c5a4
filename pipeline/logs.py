"""One log per stage: readable lines for people (a progress bar on a terminal), JSON lines for programs."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

PLAIN_INTERVAL_S = 5.0
TOLD = 20  # of many messages of a kind


class StageLog:
    """Writes events of one stage to standard output and to ``RUN/logs/<stage>.jsonl``."""

    def __init__(self, run_dir: Path, stage: str):
        self.stage = stage
        self.path = run_dir / "logs" / f"{stage}.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def info(self, message: str, **fields: Any) -> None:
        self._write("info", message, fields)

    def warning(self, message: str, **fields: Any) -> None:
        self._write("warning", message, fields)

    def first(self, messages: Sequence[str], rest: Path) -> None:
        """Writes the first TOLD messages, and how many more are in the file ``rest``."""
        for message in messages[:TOLD]:
            self.info(message)
        if len(messages) > TOLD:
            self.info(f"... and {len(messages) - TOLD} more: {rest}")

    def _write(self, level: str, message: str, fields: dict[str, Any]) -> None:
        with self.path.open("a") as handle:
            handle.write(
                json.dumps({"time": round(time.time(), 3), "level": level, "message": message, **fields}) + "\n"
            )
        mark = "" if level == "info" else f"{level}: "
        print(f"[{self.stage}] {mark}{message}", flush=True)

    @contextlib.contextmanager
    def progress(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """Yields ``advance(n)``: a progress bar on a terminal, a plain line every few seconds elsewhere."""
        if sys.stdout.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("[{task.description}]"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            with Progress(*columns, transient=True) as bar:
                task = bar.add_task(f"{self.stage}: {label}", total=total)
                yield lambda n: bar.advance(task, n)
            return
        done, started, spoken = 0, time.monotonic(), time.monotonic()

        def advance(n: int) -> None:
            nonlocal done, spoken
            done += n
            now = time.monotonic()
            if now - spoken >= PLAIN_INTERVAL_S and done < total:
                spoken = now
                left = (now - started) / max(done, 1) * (total - done)
                print(f"[{self.stage}] {label}: {done}/{total}, about {left:.0f} s left", flush=True)

        yield advance
