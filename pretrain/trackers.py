"""Where curves can be watched: TensorBoard files always, Weights & Biases when configured.

A tracker is a convenience. When one fails, the run says so once and goes on; metrics.jsonl has everything.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from pipeline.config import Config
from pipeline.errors import UserError
from pretrain.config import TrackingSettings, TrainingSettings


class Tracker(Protocol):
    """Shows values over steps."""

    def write(self, step: int, values: dict[str, float]) -> None: ...

    def close(self) -> None: ...


def require_installed(config: Config, stage: str, settings: TrainingSettings) -> None:
    """Raises UserError at the start of a run when a configured tracker is not there."""
    if settings.tracking.wandb is not None and importlib.util.find_spec("wandb") is None:
        raise UserError(
            f"{config.path}: {stage}.tracking.wandb: {settings.tracking.wandb!r} is configured, but the package wandb "
            "is not installed. Install it (pip install wandb) or set it to null; metrics.jsonl and TensorBoard need "
            "nothing."
        )


class TensorBoard:
    """Event files in RUN/<stage>/tensorboard."""

    def __init__(self, folder: Path, first_step: int):
        from torch.utils.tensorboard import SummaryWriter  # late: it takes long to import

        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step + 1)

    def write(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


class WeightsAndBiases:
    """A run there that a resumed training goes on writing to; its id is kept in RUN/<stage>/wandb/kinecloud-id."""

    def __init__(self, folder: Path, tracking: TrackingSettings, settings: dict[str, Any]):
        import wandb  # pyright: ignore[reportMissingImports]  (optional)

        path = folder / "wandb" / "kinecloud-id"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(secrets.token_hex(8))
        signed_in = os.environ.get("WANDB_API_KEY") or (Path.home() / ".netrc").exists()
        if not signed_in and os.environ.get("WANDB_MODE", "online") == "online" and sys.stdin.isatty():
            raise RuntimeError("not signed in: set WANDB_API_KEY, run `wandb login`, or set WANDB_MODE=offline")
        self.run = wandb.init(
            project=tracking.wandb, name=tracking.wandb_name or folder.parent.name, id=path.read_text().strip(),
            resume="allow", dir=str(folder), config=settings,
        )  # fmt: skip
        self.run.define_metric("*", step_metric="step")  # a resumed run repeats steps since its last checkpoint

    def write(self, step: int, values: dict[str, float]) -> None:
        self.run.log({**values, "step": step})

    def close(self) -> None:
        self.run.finish()


class Guarded:
    """A tracker that is dropped with one warning at its first error.

    make: opens the tracker. warn: takes the text of the warning.
    """

    def __init__(self, name: str, make: Callable[[], Tracker], warn: Callable[[str], None]):
        self.name, self._warn = name, warn
        self._tracker: Tracker | None = None
        self._try(lambda: setattr(self, "_tracker", make()))

    def write(self, step: int, values: dict[str, float]) -> None:
        tracker = self._tracker
        if tracker is not None:
            self._try(lambda: tracker.write(step, values))

    def close(self) -> None:
        tracker, self._tracker = self._tracker, None
        if tracker is not None:
            self._try(tracker.close)

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:
            self._tracker = None
            self._warn(f"{self.name} has failed and is not used any more ({error!r}); metrics.jsonl goes on")
