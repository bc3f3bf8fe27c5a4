"""Lays out the source of the distribution: ``python -m align.lerobot_plugin.assemble OUT``.

The packages of this repository are never installed under their own names. What the plugin imports of them goes along
below ``lerobot_policy_kinecloud.carried``, each import with the new name, nothing else changed.
"""

from __future__ import annotations

import ast
import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE, SOURCE, CARRIED = "lerobot_policy_kinecloud", "align.lerobot_plugin", "carried"
OURS = ("align", "data", "extract", "pipeline", "pretrain")
HERE = ("assemble", "discovered")  # modules that are no part of the package under their own name
_IMPORT = re.compile(rf"^(\s*from )((?:{'|'.join(OURS)})(?:\.\w+)*)( import )", re.MULTILINE)


def assemble(out: Path) -> list[Path]:
    """Writes pyproject.toml, LICENSE and the package to ``out``; all its Python files."""
    plugin = ROOT.joinpath(*SOURCE.split("."))
    modules = sorted(path.stem for path in plugin.glob("*.py") if path.stem not in (*HERE, "__init__"))
    written = [_write(out, SOURCE, "discovered", "__init__")]
    written += [_write(out, SOURCE, module, module) for module in modules]
    needed: dict[str, Path] = {}
    for module in ("discovered", *modules):
        _gather(f"{SOURCE}.{module}", needed)
    for name, path in needed.items():
        if not name.startswith(SOURCE):
            target = out / PACKAGE / CARRIED / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(renamed(path))
            written.append(target)
    init = out / PACKAGE / CARRIED / "__init__.py"
    init.write_text('"""Modules of Kinecloud, as they are in its repository but for the names of imports."""\n')
    for name in ("pyproject.toml", "README.md"):
        shutil.copyfile(plugin / name, out / name)
    shutil.copyfile(ROOT / "LICENSE", out / "LICENSE")
    return [*written, init]


def renamed(path: Path) -> str:
    """The text of a module with the names of imports as they are in the distribution.

    Raises ValueError for an import of this repository that it cannot rename.
    """
    text = path.read_text()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import) and any(alias.name.split(".")[0] in OURS for alias in node.names):
            raise ValueError(
                f"{path}: line {node.lineno}: found `import PACKAGE`; expected `from PACKAGE import NAME`."
            )
    return _IMPORT.sub(lambda found: found[1] + _new_name(found[2]) + found[3], text)


def _new_name(module: str) -> str:
    if module == SOURCE or module.startswith(f"{SOURCE}."):
        return PACKAGE + module.removeprefix(SOURCE)
    return f"{PACKAGE}.{CARRIED}.{module}"


def _write(out: Path, package: str, module: str, name: str) -> Path:
    target = out / PACKAGE / f"{name}.py"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(renamed(ROOT.joinpath(*package.split("."), f"{module}.py")))
    return target


def _gather(module: str, needed: dict[str, Path]) -> None:
    """Adds a module, the packages it lies in, and all of this repository that they import."""
    place = ROOT.joinpath(*module.split("."))
    path = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    if module in needed or not path.is_file():
        return
    needed[module] = path
    package = module if place.is_dir() else module.rpartition(".")[0]
    if package != module:
        _gather(package, needed)
    elif "." in module:
        _gather(module.rpartition(".")[0], needed)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            inside = parts[: len(parts) - node.level + 1] if node.level else []
            base = ".".join([*inside, *([node.module] if node.module else [])])
            if base.split(".")[0] in OURS:
                _gather(base, needed)
                for alias in node.names:
                    _gather(f"{base}.{alias.name}", needed)


if __name__ == "__main__":
    assemble(Path(sys.argv[1]))
