"""What a training run tells while it runs: a metrics file, TensorBoard, and lines with the time left."""

from __future__ import annotations

import json
import time

from torch.utils.tensorboard import SummaryWriter

from pretrain.run import TrainingRun


class Recorder:
    """Metrics of every step to metrics.jsonl and TensorBoard; now and then a line with the time left to the log.

    Only values that a rerun repeats go into the file; timings go to the log.
    """

    def __init__(self, run: TrainingRun, first_step: int):
        self.run = run
        self.first_step, self.started = first_step, time.monotonic()
        if not run.leads:
            return
        run.folder.mkdir(parents=True, exist_ok=True)
        self.handle = run.metrics_path.open("a")
        self.board = SummaryWriter(str(run.folder / "tensorboard"), purge_step=first_step + 1)

    def step(self, step: int, row: dict[str, float]) -> None:
        if not self.run.leads:
            return
        self._write(step, row, "train")
        settings = self.run.settings
        if step % settings.log_every == 0 or step == settings.steps:
            each = (time.monotonic() - self.started) / (step - self.first_step)
            left = each * (settings.steps - step)
            terms = " ".join(f"{name} {row[name]:.4f}" for name in row if name not in ("learning_rate",))
            self.run.log.info(
                f"step {step}/{settings.steps} {terms} | {1000 * each:.0f} ms/step, about {left:.0f} s left",
                step=step, ms_per_step=round(1000 * each, 1),
            )  # fmt: skip

    def validation(self, step: int, measure: str, error: float, words: str) -> None:
        """measure: name in the file. words: format for people, with a place for the error."""
        self._write(step, {f"val_{measure}": error}, "val")
        self.run.log.info(f"step {step}: {words.format(error)}", step=step)

    def _write(self, step: int, row: dict[str, float], prefix: str) -> None:
        self.handle.write(json.dumps({"step": step, **row}, sort_keys=True) + "\n")
        self.handle.flush()
        for name, value in row.items():
            self.board.add_scalar(f"{prefix}/{name}", value, step)

    def close(self) -> None:
        if self.run.leads:
            self.handle.close()
            self.board.close()
