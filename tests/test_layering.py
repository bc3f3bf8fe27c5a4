"""The packages depend on each other in one direction only."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAY_IMPORT = {
    "pipeline": set(),
    "data": {"pipeline"},
    "extract": {"data", "pipeline"},
    "pretrain": {"data", "pipeline"},
    "align": {"pretrain", "extract", "data", "pipeline"},
}
MODEL = ROOT / "pretrain" / "model"
OURS = set(MAY_IMPORT) | {"tests"}


def imported(path: Path) -> set[str]:
    """Top-level names of all modules that a file imports, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            # the files of pretrain/model are copied beside exported weights, where they have no package
            assert node.level == (1 if path.parent == MODEL and node.level else 0), f"{path}: relative import"
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_imports_follow_the_layers(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        forbidden = (imported(path) & OURS) - MAY_IMPORT[package] - {package}
        assert not forbidden, f"{path.relative_to(ROOT)} imports {sorted(forbidden)}"


def test_every_package_folder_has_an_init() -> None:
    for package in OURS:
        for folder in {path.parent for path in (ROOT / package).rglob("*.py")}:
            assert (folder / "__init__.py").exists(), folder


def test_the_exported_model_files_stand_alone() -> None:
    for path in MODEL.glob("*.py"):
        assert not imported(path) & OURS, path
