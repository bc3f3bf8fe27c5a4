"""A function of a test, run in a process of its own that can import torchvision.

torchvision is not in the environment: transformers would choose other image processors with it, and its build on the
package index loads CUDA libraries, so that it fails beside a CPU-only torch. ``pipeline/install.sh --dev`` puts it into
a folder that only such processes look into. Where its build does not fit, the two operators that it wants to describe
on import are declared first; what is tested calls neither of them, nor anything else of its compiled part.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

FOLDER = Path(sys.prefix) / "torchvision"
ROOT = Path(__file__).resolve().parent.parent
SECONDS = 120


def run_beside_torchvision(function: Callable[[Path], None], folder: Path) -> None:
    """Runs ``function(folder)``, a function at the top of a test module; its results are what it writes to ``folder``.

    Fails with what the process said when it fails.
    """
    assert (FOLDER / "torchvision").is_dir(), f"{FOLDER} holds no torchvision: run bash pipeline/install.sh --dev"
    command = [sys.executable, "-m", __name__, function.__module__, function.__name__, str(folder)]
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, f"{function.__name__} failed beside torchvision:\n{done.stdout}{done.stderr}"


def _import_torchvision() -> None:
    import torch

    sys.path.append(str(FOLDER))
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        importlib.import_module("torchvision")


if __name__ == "__main__":
    _import_torchvision()
    getattr(importlib.import_module(sys.argv[1]), sys.argv[2])(Path(sys.argv[3]))
