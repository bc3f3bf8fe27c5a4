"""What a training run tells while it runs: a metrics file, trackers, and lines with speed and the time left."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator
from itertools import groupby

import torch
from torch import Tensor

from pipeline.errors import KinecloudError
from pretrain.run import TrainingRun
from pretrain.trackers import Guarded, TensorBoard, WeightsAndBiases

BUFFERED_STEPS = 50
NORM = "gradient_norm"


class Recorder:
    """Metrics of every step to metrics.jsonl and trackers; now and then a line with the time left to the log.

    The values of a step stay on the device until some are read together, so that a step need not wait for the one
    before; all ranks take part in reading. Only values that a rerun repeats go into the file; timings go to the log.
    """

    def __init__(self, run: TrainingRun, first_step: int, windows_per_step: int):
        self.run = run
        self.windows_per_step = windows_per_step
        self._waiting: list[tuple[int, dict[str, Tensor], dict[str, float]]] = []
        self._trackers: list[Guarded] = []
        if run.leads:
            self._open(first_step)
        self._said_step, self._said_at, self._paused = first_step, time.monotonic(), 0.0

    def _open(self, first_step: int) -> None:
        run = self.run
        run.folder.mkdir(parents=True, exist_ok=True)
        self.handle = run.metrics_path.open("a")
        self._trackers.append(Guarded("TensorBoard", lambda: TensorBoard(run.folder, first_step), run.log.warning))
        tracking = run.settings.tracking
        if tracking.wandb is not None:
            document = run.made_from["settings"]
            make = lambda: WeightsAndBiases(run.folder, tracking, document)  # noqa: E731
            self._trackers.append(Guarded("Weights & Biases", make, run.log.warning))

    def step(self, step: int, row: dict[str, Tensor], known: dict[str, float]) -> None:
        """row: scalars of this rank, on its device; their mean over ranks is recorded. known: alike on all ranks."""
        self._waiting.append((step, row, known))
        settings = self.run.settings
        speaks = step % settings.log_every == 0 or step == settings.steps
        if speaks or len(self._waiting) >= BUFFERED_STEPS:
            means = self.flush()
            if speaks and self.run.leads:
                self._say(step, means)

    def flush(self) -> dict[str, float]:
        """Reads and writes what is waiting, on all ranks together; returns the last row.

        Raises KinecloudError when a gradient was not finite, after writing the rows before.
        """
        rows: list[tuple[int, dict[str, float]]] = []
        for names, group in groupby(self._waiting, key=lambda waiting: tuple(waiting[1])):
            steps = list(group)
            values = torch.stack([torch.stack([row[name].float() for name in names]) for _, row, _ in steps])
            means = self.run.accelerator.reduce(values, "mean")
            assert isinstance(means, Tensor)
            for (step, _, known), numbers in zip(steps, means.tolist(), strict=True):
                rows.append((step, dict(zip(names, numbers, strict=True)) | known))
        self._waiting = []
        broken = [step for step, row in rows if not math.isfinite(row[NORM])]
        if self.run.leads:
            self._write([(step, row) for step, row in rows if not broken or step < broken[0]], "train")
        if broken:
            raise gradient_not_finite(self.run, broken[0])
        return rows[-1][1] if rows else {}

    def validation(self, step: int, measure: str, error: float, words: str) -> None:
        """measure: name in the file. words: format for people, with a place for the error."""
        self._write([(step, {f"val_{measure}": error})], "val")
        self.run.log.info(f"step {step}: {words.format(error)}", step=step)

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """What is done inside does not count as training when speed is told."""
        started = time.monotonic()
        yield
        self._paused += time.monotonic() - started

    def _say(self, step: int, row: dict[str, float]) -> None:
        now, settings = time.monotonic(), self.run.settings
        each = max(1e-9, now - self._said_at - self._paused) / max(1, step - self._said_step)
        self._said_step, self._said_at, self._paused = step, now, 0.0
        speed = self.windows_per_step / each
        left = each * (settings.steps - step)
        terms = " ".join(f"{name} {value:.4f}" for name, value in row.items() if name != "learning_rate")
        self.run.log.info(
            f"step {step}/{settings.steps} {terms} | {1000 * each:.0f} ms/step, {speed:.0f} windows/s, about "
            f"{_duration(left)} left",
            step=step, ms_per_step=round(1000 * each, 1), windows_per_s=round(speed, 1),
        )  # fmt: skip

    def _write(self, rows: list[tuple[int, dict[str, float]]], prefix: str) -> None:
        self.handle.write("".join(json.dumps({"step": step, **row}, sort_keys=True) + "\n" for step, row in rows))
        self.handle.flush()
        for tracker in self._trackers:
            for step, row in rows:
                tracker.write(step, {f"{prefix}/{name}": value for name, value in row.items()})

    def close(self) -> None:
        if self.run.leads:
            self.handle.close()
            for tracker in self._trackers:
                tracker.close()


def gradient_not_finite(run: TrainingRun, step: int) -> KinecloudError:
    """step: 1-based, the one whose gradient it was."""
    return KinecloudError(
        f"step {step}: the gradient is not finite, the loss is; lower {run.stage}.learning_rate and start again"
    )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
