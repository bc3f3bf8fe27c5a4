"""Which source files decide a step's result: those that its modules import, directly or through others."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from pipeline.atomic import publishing_dir
from pipeline.fingerprint import digest, file_sha256

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("pipeline", "data", "extract", "pretrain", "align", "tests")
DECIDING = ("data", "extract", "pretrain", "align", "tests")  # the rest starts, stores and reports
# What tells about a result without changing it.
REPORTS = frozenset({"report", "rollout_report", "cli", "pictures", "trackers", "card", "peek", "stats", "rerun_log"})
_OURS = "tests.benchmarks.out_of_action"
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


def snapshot(work: Path) -> Path:
    """A copy of the project's code as it is now, in ``work``: what runs for hours is not mixed with later changes."""
    files = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*") if _is_source(path))
    content = {str(path.relative_to(ROOT)): file_sha256(path) for path in files}
    out = work.resolve() / "code" / digest(content)[:16]
    if not out.exists():
        with publishing_dir(out) as temporary:
            for name in content:
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, temporary / name)
    return out


def _is_source(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts


def code_digest(step: str, root: Path = ROOT) -> str:
    """SHA-256 over what the files that decide the step's result do, by their paths."""
    files = sorted(reached(ENTRIES[step], root))
    return digest({str(path.relative_to(root)): _done_by(path, path.stat().st_mtime_ns) for path in files})


@lru_cache(4096)
def _done_by(path: Path, changed: int) -> str:
    """SHA-256 of a source file but for comments, docstrings and layout. changed: time, for the cache."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node, clean=False
        ):
            node.body[0] = ast.Pass()
    return digest(ast.dump(tree))


def reached(modules: Iterable[str], root: Path = ROOT) -> set[Path]:
    """Files of the project's packages that the modules import, themselves included, without those that only report.

    Imports inside functions count. The rows and the suite of this benchmark do not: their values are in fingerprints.
    """
    found: set[Path] = set()
    todo = [path for module in modules for path in _files(module, root)]
    while todo:
        path = todo.pop()
        if path not in found:
            found.add(path)
            todo += [file for module in _imports(path, path.stat().st_mtime_ns, root) for file in _files(module, root)]
    return found


def _files(module: str, root: Path) -> Iterator[Path]:
    """The file of a module, and the ``__init__`` files of the packages around it."""
    parts = module.split(".")
    if parts[0] not in DECIDING or REPORTS & set(parts) or module in (f"{_OURS}.rows", f"{_OURS}.suite"):
        return
    place = root.joinpath(*parts)
    if not place.is_dir() and not place.with_suffix(".py").exists():
        return  # a name inside a module
    for depth in range(1, len(parts) + 1):
        init = root.joinpath(*parts[:depth]) / "__init__.py"
        if init.exists():
            yield init
    if place.with_suffix(".py").exists():
        yield place.with_suffix(".py")


@lru_cache(4096)
def _imports(path: Path, changed: int, root: Path) -> tuple[str, ...]:
    """Names of modules, and of what is taken from them, which may be modules too. changed: time, for the cache."""
    names: list[str] = []
    own = path.relative_to(root).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = own[: len(own) - node.level + 1] if node.level else ()
            module = ".".join((*above, *(node.module or "").split("."))).strip(".")
            names += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    return tuple(names)
