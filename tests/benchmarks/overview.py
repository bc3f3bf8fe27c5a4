"""The picture in the README: the head of a run's report. ``python -m tests.benchmarks.overview RUN_DIR``."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.browser import browse

WIDTH = 1280


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.overview", description=__doc__)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--top", type=int, default=905, help="first row of the page to keep, pixels")
    parser.add_argument("--bottom", type=int, default=2470, help="the row after the last")
    parser.add_argument("--out", type=Path, default=Path("docs/images/overview.png"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        page = (arguments.run_dir / "report.html").resolve()
        opened = browse(page, Path(scratch) / "browser", WIDTH, arguments.bottom)
    picture = opened.screenshot.crop((0, arguments.top, WIDTH, arguments.bottom))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    picture.save(arguments.out, optimize=True)
    print(f"{arguments.out}: {picture.size[0]}x{picture.size[1]}, {arguments.out.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main()
