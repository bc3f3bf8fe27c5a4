"""docs/results/extraction.md: accuracy, trust and speed of extraction, measured part by part.

    python -m tests.benchmarks.extraction [--json FILE] [--only PART ...]

FILE keeps the figures of every part: with ``--only``, the other parts come from it as they were measured before.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

from pipeline.atomic import write_bytes, write_json
from tests.footage import footage_folder

PAGE = Path("docs/results/extraction.md")
PARTS = ("hands", "masks", "boxes", "depth", "robots", "camera", "trust")

HEAD = """# Extraction: accuracy and trust

Written by `python -m tests.benchmarks.extraction --json FILE`, with `KINECLOUD_FOOTAGE` set for what uses real footage.
Every clip with exact truth is **simulated**; real footage has no truth beyond a depth sensor. Errors are in the frame
of the camera unless said otherwise. Displacement: from frame to frame, of the same point. Constants were set on other
seeds than those shown here. Networks: MediaPipe's HandLandmarker alone; no depth, segmentation or tracking network
could be had where this was measured (see [models.md](../models.md)).

{when}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, help="figures of all parts, read and written")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="measure these parts only")
    parser.add_argument("--cache", type=Path, help="folder that keeps rendered clips (default: a temporary one)")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {}
    if arguments.json and arguments.json.exists():
        figures = json.loads(arguments.json.read_text())
    with tempfile.TemporaryDirectory() as temporary:
        for part in arguments.only or PARTS:
            began = time.perf_counter()
            folder = (arguments.cache or Path(temporary)) / part
            folder.mkdir(parents=True, exist_ok=True)
            figures[part] = {
                "figures": _measured(part, folder),
                "seconds": round(time.perf_counter() - began),
                "date": datetime.date.today().isoformat(),
                "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, no GPU used",
            }
            print(f"{part}: {figures[part]['seconds']} s", flush=True)
            if arguments.json:
                write_json(arguments.json, figures)
    if missing := [part for part in PARTS if part not in figures]:
        print(f"{PAGE} is not written: {', '.join(missing)} were not measured yet")
    else:
        write_bytes(PAGE, page(figures).encode())


def _measured(part: str, folder: Path) -> dict[str, Any]:
    if part == "trust":
        return _module(part).measure(folder, footage=footage_folder())
    return _module(part).measure(folder)


def page(figures: dict[str, Any]) -> str:
    """The whole page from the figures of all parts."""
    rows = [
        f"- {part}: {figures[part]['date']}, {figures[part]['machine']}, {figures[part]['seconds']} s" for part in PARTS
    ]
    sections = [_module(part).section(figures[part]["figures"]).strip() for part in PARTS]
    return "\n\n".join([HEAD.format(when="Measured:\n\n" + "\n".join(rows)).strip(), *sections]) + "\n"


def _module(part: str) -> Any:
    return importlib.import_module(f"tests.benchmarks.extraction_{part}")


if __name__ == "__main__":
    main()
