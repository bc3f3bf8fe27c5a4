"""What a stage wants shown in the run's report: a section of texts, figures, pictures, curves and moving clouds.

A stage fills a ``Section`` and saves it; ``pipeline.report`` later joins the sections of all stages into one page.
Nothing here knows what a page looks like, and nothing heavy is imported, so that every stage can afford it.

    section = Section("Extraction", order=30)
    section.summary("118 motion clips from 61 videos; 7 videos gave none.")
    section.facts([("clips", 118), ("frames with a hand", "99.4 %")], top=True)
    section.images("Points on the video", [(jpeg, "reach.mp4, 1.2 s")], top=True)
    section.save(run_dir / "extract")

On disk: ``report/section.json`` beside the pictures and clouds it names, which are called by their content. The JSON is
written last, so a section is there entirely or not at all, and the same calls give the same bytes.
``top=True`` asks for a place in the first screens of the page.
"""

from __future__ import annotations

import hashlib
import json
import math
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.atomic import write_bytes
from pipeline.report.cloud import pack_cloud
from pipeline.report.picture import picture_of

SECTION_VERSION = 1
NOTE_KINDS = ("info", "warning", "simulated")
MAX_CURVE_POINTS = 2000
MAX_ROWS = 500
MAX_PICTURES = 200
MAX_REJECTIONS = 300
MAX_CELL = 600
MAX_TEXT = 20_000
_TURNING = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


class Section:
    """One stage's part of the report.

    title: heading. order: sections are shown by rising order (simulate 10, index 20, extract 30, ... is a good habit).
    Every method appends one item, and raises ValueError naming item and value found on input that cannot be shown.
    """

    def __init__(self, title: str, order: int):
        self._head = {"version": SECTION_VERSION, "title": plain(title), "order": int(order)}
        self._summary = ""
        self._items: list[dict[str, Any]] = []
        self._files: dict[str, bytes] = {}

    def summary(self, text: str) -> None:
        """One sentence on what the stage did: opens the section, and joins the lead at the top of the page."""
        self._summary = plain(text)

    def text(self, text: str) -> None:
        """Paragraphs, separated by blank lines. Plain text, no markup."""
        self._items.append({"kind": "text", "text": plain(text, MAX_TEXT)})

    def note(self, text: str, kind: str = "info") -> None:
        """A marked remark: ``info``, ``warning``, or ``simulated`` (marks the section and the top of the page)."""
        if kind not in NOTE_KINDS:
            raise ValueError(f"note kind {kind!r}; known: {', '.join(NOTE_KINDS)}")
        self._items.append({"kind": "note", "note": kind, "text": plain(text, MAX_TEXT)})

    def facts(self, facts: Sequence[tuple[str, Any]], top: bool = False) -> None:
        """Key figures, (name, value) each; give the unit inside the value: ("error at 0.5 s", "14.2 mm")."""
        self._add("facts", top, facts=[[plain(name), cell(value)] for name, value in facts])

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], folded: bool = False) -> None:
        """A table; cells are text or numbers. More than 500 rows are cut, and the page says so.

        folded: only the title is seen until it is opened.
        """
        for number, row in enumerate(rows):
            if len(row) != len(columns):
                raise ValueError(f"table {title!r}: row {number} has {len(row)} cells for {len(columns)} columns")
        shown = [[cell(value) for value in row] for row in rows[:MAX_ROWS]]
        fields = {"columns": [plain(c) for c in columns], "rows": shown, "left_out": len(rows) - len(shown)}
        self._add("table", False, title, **fields, **({"folded": True} if folded else {}))

    def images(self, title: str, images: Sequence[tuple[bytes, str]], top: bool = False) -> None:
        """Pictures side by side: (PNG or JPEG bytes, caption) each."""
        self._add("images", top, title, **self._pictures(title, images))

    def sides(
        self,
        title: str,
        left: tuple[str, Sequence[tuple[bytes, str]]],
        right: tuple[str, Sequence[tuple[bytes, str]]],
    ) -> None:
        """Two columns of pictures to compare: (heading, [(PNG or JPEG bytes, caption), ...]) each."""
        fields = self._pictures(title, [*left[1], *right[1]])
        for number, picture in enumerate(fields["images"]):
            picture["side"] = "left" if number < len(left[1]) else "right"
        self._add("sides", False, title, headings=[plain(left[0]), plain(right[0])], **fields)

    def film(self, title: str, frames: Sequence[tuple[bytes, str]], fps: float = 5.0, top: bool = False) -> None:
        """A film strip: (PNG or JPEG bytes, caption) in time order, played at ``fps`` when opened."""
        self._add("film", top, title, fps=_rounded(fps), **self._pictures(title, frames))

    def curves(
        self,
        title: str,
        x_label: str,
        y_label: str,
        series: Mapping[str, tuple[Any, Any]],
        log_y: bool = False,
        top: bool = False,
    ) -> None:
        """A line chart of {name: (xs, ys)}.

        Values that are not finite become gaps and are counted; long curves are thinned so that every peak stays.
        """
        lines = [_line(title, name, xs, ys) for name, (xs, ys) in series.items()]
        labels = {"x_label": plain(x_label), "y_label": plain(y_label)}
        self._add("curves", top, title, **labels, log_y=bool(log_y), series=lines)

    def cloud(
        self,
        title: str,
        points_TN3: Any,
        visible_TN: Any = None,
        fps: float = 20.0,
        caption: str = "",
        predicted_TM3: Any = None,
        top: bool = False,
    ) -> None:
        """A moving point cloud that can be turned. Metres, camera frame (x right, y down, z forward).

        points_TN3: [T,N,3]. visible_TN: bool [T,N], measured (true) or carried, or None. predicted_TM3: a second cloud
        over the same frames, drawn in another colour, or None. Thinned to 60 000 point positions; the page says so.
        """
        try:
            spec, data = pack_cloud(points_TN3, visible_TN, fps, predicted_TM3)
        except ValueError as error:
            raise ValueError(f"cloud {title!r}: {error}") from error
        spec["file"] = self._file("cloud", data, "bin")
        self._add("cloud", top, title, caption=plain(caption), has_carried=visible_TN is not None, cloud=spec)

    def rejections(self, rejections: Sequence[tuple[str, str, str, bytes | None]]) -> None:
        """What was dropped and why: (item, reason, detail, PNG or JPEG frame or None) each.

        All are counted by reason; the first 300 are listed.
        """
        counts = Counter(plain(reason) for _, reason, _, _ in rejections)
        listed = []
        for name, reason, detail, image in rejections[:MAX_REJECTIONS]:
            entry: dict[str, Any] = {"item": plain(name), "reason": plain(reason), "detail": plain(detail)}
            if image is not None:
                entry["image"] = self._picture(f"rejection of {name!r}", image, "")
            listed.append(entry)
        by_reason = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
        self._add(
            "rejections", False, total=len(rejections), counts=[list(pair) for pair in by_reason], rejections=listed
        )

    def save(self, stage_dir: Path) -> Path:
        """Write STAGE_DIR/report/ and return the path of its section.json; files of an earlier section are removed."""
        folder = Path(stage_dir) / "report"
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in self._files.items():
            if not (folder / name).exists():  # named by content: what is there is the same
                write_bytes(folder / name, data)
        path = folder / "section.json"
        section = {**self._head, "summary": self._summary, "items": self._items}
        write_bytes(path, (json.dumps(section, ensure_ascii=False, allow_nan=False, indent=1) + "\n").encode())
        for stale in folder.iterdir():
            if stale.name.startswith(("image-", "cloud-")) and stale.name not in self._files:
                stale.unlink()
        return path

    def _add(self, kind: str, top: bool, title: str | None = None, **fields: Any) -> None:
        head = {"kind": kind} if title is None else {"kind": kind, "title": plain(title)}
        self._items.append({**head, **({"top": True} if top else {}), **fields})

    def _file(self, stem: str, data: bytes, extension: str) -> str:
        name = f"{stem}-{hashlib.sha256(data).hexdigest()[:16]}.{extension}"
        self._files[name] = data
        return name

    def _picture(self, where: str, data: bytes, caption: str) -> dict[str, Any]:
        try:
            picture = picture_of(data)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        name = self._file("image", data, picture.extension)
        return {"file": name, "width": picture.width, "height": picture.height, "caption": plain(caption)}

    def _pictures(self, title: str, images: Sequence[tuple[bytes, str]]) -> dict[str, Any]:
        shown = images[:MAX_PICTURES]
        pictures = [self._picture(f"{title!r}, picture {i}", data, caption) for i, (data, caption) in enumerate(shown)]
        return {"images": pictures, "left_out": len(images) - len(pictures)}


def plain(text: Any, limit: int = MAX_CELL) -> str:
    """Text that JSON and HTML can hold: valid Unicode, no control characters, at most ``limit`` characters."""
    clean = str(text).encode("utf-8", "replace").decode().replace("\r\n", "\n")
    clean = "".join("\N{REPLACEMENT CHARACTER}" if _unsafe(c) else c for c in clean)
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def _unsafe(character: str) -> bool:
    """Control characters, and the marks that turn the direction of the text after them."""
    if character in "\n\t":
        return False
    return unicodedata.category(character) == "Cc" or unicodedata.bidirectional(character) in _TURNING


def cell(value: Any) -> str:
    """A value as the page shows it: four significant digits for fractions, a dash for nothing."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if not math.isfinite(value):
            return "not a number" if math.isnan(value) else ("∞" if value > 0 else "−∞")
        if abs(value) < 1e9 and (value == int(value) or abs(value) >= 1e4):
            return f"{value:.0f}"
        return f"{value:.4g}"
    return plain(value)


def _line(title: str, name: str, xs: Any, ys: Any) -> dict[str, Any]:
    x, y = (np.asarray(values, np.float64) for values in (xs, ys))
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(
            f"curves {title!r}: {name!r} has xs {list(x.shape)} and ys {list(y.shape)}; expected two equal lengths"
        )
    x, y = x[np.isfinite(x)], y[np.isfinite(x)]
    keep = _thinned(y)
    line: dict[str, Any] = {
        "name": plain(name),
        "x": [_rounded(v) for v in x[keep]],
        "y": [_rounded(v) for v in y[keep]],
    }
    if len(keep) < len(y):
        line["of"] = len(y)
    if not_finite := int(np.count_nonzero(~np.isfinite(y))):
        line["not_finite"] = not_finite
    return line


def _thinned(y: np.ndarray) -> np.ndarray:
    """Indices of at most MAX_CURVE_POINTS points: the ends; of every stretch its lowest, highest and one gap."""
    if len(y) <= MAX_CURVE_POINTS:
        return np.arange(len(y))
    keep = {0, len(y) - 1}
    for stretch in np.array_split(np.arange(len(y)), (MAX_CURVE_POINTS - 2) // 3):
        finite = stretch[np.isfinite(y[stretch])]
        keep.update(stretch[~np.isfinite(y[stretch])][:1].tolist())
        if len(finite):
            keep.update((int(finite[np.argmin(y[finite])]), int(finite[np.argmax(y[finite])])))
    return np.array(sorted(keep))


def _rounded(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
