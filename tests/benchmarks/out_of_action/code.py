"""Which code decides a step's result: what its modules define, and what that uses of the project (definitions.py).

Code that was shown to give the same results as a former one counts as the former one: SAME, see ``same_results``.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from pipeline.atomic import publishing_dir
from pipeline.fingerprint import digest, file_sha256
from tests.benchmarks.out_of_action.definitions import reached

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("pipeline", "data", "extract", "pretrain", "align", "tests")
DECIDING = ("data", "extract", "pretrain", "align", "tests")  # the rest starts, stores and reports
# Modules that tell about a result without changing it.
REPORTS = frozenset({"data.simulation.report", "pretrain.report", "pretrain.pictures", "pretrain.trackers",
                     "align.report", "align.rollout_report"})  # fmt: skip
_OURS = "tests.benchmarks.out_of_action"
# By step: digest of the code, and of the former that it counts as, and how that was shown, change after change.
SAME = Path(*_OURS.split("."), "same_results.json")
ENTRIES: dict[str, tuple[str, ...]] = {
    "simulate": ("data.simulation.run",),
    "episodes": (f"{_OURS}.episodes",),
    "extract": ("data.scan.build", "extract.worker"),
    "pack": ("data.pack", f"{_OURS}.labels"),
    "grid": ("tests.benchmarks.pretraining_data",),
    "pretrain": ("pretrain.train",),
    "judge": (f"{_OURS}.judge",),
    "align": ("align.train",),
    "rollout": ("align.rollout",),
}  # by step


def snapshot(work: Path, same: dict[str, dict[str, Any]] | None = None) -> Path:
    """A copy of the project's code as it is now, in ``work``: what runs for hours is not mixed with later changes.

    same: what the copy is to take for the same as former code, in the place of SAME.
    """
    files = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*") if _is_source(path))
    content = {str(path.relative_to(ROOT)): file_sha256(path) for path in files}
    told = {} if same is None else {str(SAME): json.dumps(same)}
    out = work.resolve() / "code" / digest(content | told)[:16]
    if not out.exists():
        with publishing_dir(out) as temporary:
            for name in content:
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, temporary / name)
            for name, text in told.items():
                (temporary / name).write_text(text)
    return out


def _is_source(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts


def code_digest(step: str, root: Path = ROOT) -> str:
    """SHA-256 over the definitions that decide the step's result, or over former ones that gave the same."""
    found, same = own_digest(step, root), same_code(root).get(step)
    return same["as"] if same and same["code"] == found else found


def own_digest(step: str, root: Path = ROOT) -> str:
    """SHA-256 over the definitions that decide the step's result."""
    return digest(reached(ENTRIES[step], root, decides))


def same_code(root: Path = ROOT) -> dict[str, dict[str, Any]]:
    """SAME of the project in ``root``, by step; ``same_results.record`` writes it."""
    path = root / SAME
    return json.loads(path.read_text()) if path.exists() else {}


def decides(module: str) -> bool:
    """Whether a result may depend on a module of this name. The rows and the suite of this benchmark do not count:
    their values are in fingerprints."""
    return module.split(".")[0] in DECIDING and module not in REPORTS | {f"{_OURS}.rows", f"{_OURS}.suite"}
