"""Film strips of rollouts as one JPEG each, from the pictures of the rollout's report."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.atomic import write_bytes

FRAMES = 6
SIDE = 160  # pixels of a frame
QUALITY = 80


def write_films(report: Path, out: Path, name: str) -> list[dict[str, str]]:
    """Writes ``out/NAME-<n>.jpg`` for each film of the report section; returns their files and words."""
    section = report / "section.json"
    items = json.loads(section.read_text())["items"] if section.exists() else []
    films = [item for item in items if item["kind"] == "film" and item["images"]]
    written = []
    for number, film in enumerate(films):
        file = f"{name}-{number}.jpg"
        pictures = [Image.open(report / image["file"]) for image in film["images"]]
        write_bytes(out / file, strip(pictures))
        written.append({"file": file, "words": film["title"]})
    return written


def strip(pictures: Sequence[Image.Image]) -> bytes:
    """At most FRAMES pictures beside each other, first and last included, JPEG."""
    places = np.unique(np.linspace(0, len(pictures) - 1, min(FRAMES, len(pictures))).round().astype(int))
    sheet = Image.new("RGB", (SIDE * len(places), SIDE))
    for column, place in enumerate(places):
        frame = pictures[place].convert("RGB")
        frame.thumbnail((SIDE, SIDE))
        sheet.paste(frame, (column * SIDE, 0))
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
