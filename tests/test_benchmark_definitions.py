"""Which definitions count: those that are used, however they are imported, and what importing runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.out_of_action.definitions import reached

FILES = {
    "made/__init__.py": "from .colours import mixed",
    "made/run.py": '''
"""A module."""
from __future__ import annotations
import numpy as np
import made.paths
from made import numbers as n, mixed
from .shapes import Round
LIMIT = 3
UNUSED = 4
def run(x: Round) -> int:
    """Words."""
    from made.late import later
    return later(n.double(x.size) + LIMIT + made.paths.find()) + mixed()
if __name__ == "__main__":
    only_as_a_command()
''',
    "made/numbers.py": """
import logging
logging.disable()
HALF, WHOLE = 0.5, 1
def double(x): return x / HALF
def triple(x): ...
""",
    "made/paths.py": """
def find(): return _deep()
def _deep(): return 1
def other(): ...
""",
    "made/late.py": """
try:
    from made.fast import quick as how
except ImportError:
    how = None
def later(x): return how(x)
""",
    "made/fast.py": "def quick(x): return x",
    "made/shapes.py": """
from made import base
class Round(base.Shape):
    size = base.SIZE
    def area(self): return helper(self)
def helper(x): return x
class Square: ...
""",
    "made/base.py": """
SIZE = 1
class Shape: ...
class Other: ...
""",
    "made/colours.py": """
def mixed(): return _TABLE['red']()
def _red(): return 1
_TABLE = {'red': _red}
def unmixed(): ...
""",
    "made/report.py": "def page(): ...",
}
USED = {
    "run:run", "run:LIMIT", "run:UNUSED", "numbers:double", "numbers:HALF", "numbers:WHOLE", "paths:find",
    "paths:_deep", "late:later", "fast:quick", "shapes:Round", "shapes:helper", "base:Shape", "base:SIZE",
    "colours:mixed", "colours:_TABLE", "colours:_red",
}  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def found(root: Path) -> dict[str, str]:
    return reached(["made.run"], root, lambda module: module.split(".")[0] == "made")


def test_what_is_used_counts_and_nothing_else(root: Path) -> None:
    names = {name for name in found(root) if not name.endswith("<top>")}
    assert names == {f"made.{name}" for name in USED}


def test_what_importing_runs_counts(root: Path) -> None:
    before = found(root)
    path = root / "made/numbers.py"
    path.write_text(path.read_text().replace("logging.disable()", "logging.disable(5)"))
    after = found(root)
    assert {name for name in after if after[name] != before.get(name)} == {"made.numbers:<top>"}


@pytest.mark.parametrize(
    ("file", "old", "new", "changed"),
    [
        ("numbers", "x / HALF", "x / HALF / 1", {"made.numbers:double"}),
        ("numbers", "0.5, 1", "0.5, 2", {"made.numbers:HALF", "made.numbers:WHOLE"}),  # assigned together
        ("numbers", "triple(x): ...", "triple(x): return 3", set()),
        ("run", '"""Words."""', '"""Other words."""  # and a comment', set()),
        ("run", "only_as_a_command()", "anything_else()", set()),
        ("shapes", "return helper(self)", "return 2 * helper(self)", {"made.shapes:Round"}),
        ("fast", "return x", "return -x", {"made.fast:quick"}),
        ("base", "class Other: ...", "class Other:\n    x = 1", set()),
    ],
)
def test_a_change_is_one_of_what_it_changes(root: Path, file: str, old: str, new: str, changed: set[str]) -> None:
    before = found(root)
    path = root / f"made/{file}.py"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    after = found(root)
    assert {name for name in before | after if after.get(name) != before.get(name)} == changed


def test_modules_that_do_not_count_are_not_gone_into(root: Path) -> None:
    run = root / "made/run.py"
    run.write_text(run.read_text() + "from made.report import page\nSHOWN = page()\n")
    names = reached(["made.run"], root, lambda module: module.startswith("made") and "report" not in module)
    assert "made.run:SHOWN" in names and not any("report" in name for name in names)
