"""The command of a benchmark that measures held-out or tuning clips of the mask cases."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main(
    doc: str | None, measure: Callable[[Path, str], dict[str, Any]], section: Callable[[dict[str, Any]], str]
) -> None:
    """Measures, writes the figures to --json and prints the section."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0] if doc else None)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--cache", type=Path, help="folder that keeps rendered episodes")
    parser.add_argument("--tuning", action="store_true", help="the tasks and seeds that constants are chosen on")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        figures = measure(arguments.cache or Path(temporary), "tuning" if arguments.tuning else "held out")
    arguments.json.write_text(json.dumps(figures, indent=1))
    print(section(figures))
