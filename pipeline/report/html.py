"""Small pieces of HTML: escaping, numbers with units, data for the page's scripts."""

from __future__ import annotations

import html
import json
import re
from datetime import UTC, datetime
from typing import Any

_QUANTITY = re.compile(r"^([+\-−]?\d[\d.,]*(?:e[+\-]?\d+)?)(\s*\S.{0,14})?$")


def esc(value: Any) -> str:
    """Text that stays text inside HTML, in content and in quoted attributes: for everything read from files."""
    return html.escape(str(value), quote=True)


def data_script(element_id: str, value: Any) -> str:
    """JSON for the page's scripts. No character in it can end the element or open another."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    text = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return f'<script type="application/json" id="{element_id}">{text}</script>'


def paragraphs(text: str) -> str:
    blocks = [block.strip() for block in str(text).split("\n\n")]
    return "".join(f"<p>{esc(block).replace(chr(10), '<br>')}</p>" for block in blocks if block)


def quantity(value: Any) -> str:
    """A number and its unit, so that the unit can be set smaller; anything else as it is."""
    match = _QUANTITY.match(str(value))
    if not match:
        return esc(value)
    unit = (match.group(2) or "").strip()
    return esc(match.group(1)) + (f' <span class="unit">{esc(unit)}</span>' if unit else "")


def is_number(text: str) -> bool:
    """Whether a table cell reads as a quantity, so that its column is set flush right."""
    return str(text) in ("–", "not a number", "") or _QUANTITY.match(str(text)) is not None


def duration(seconds: Any) -> str:
    """Seconds for people: 8.4 s, 3 min 02 s, 1 h 05 min; a dash when unknown."""
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        return "–"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def memory(megabytes: Any) -> str:
    if not isinstance(megabytes, int | float) or isinstance(megabytes, bool):
        return "–"
    return f"{megabytes / 1000:.2f} GB" if megabytes >= 1000 else f"{megabytes:.0f} MB"


def moment(started: Any) -> str:
    """A time as ISO 8601 or seconds since 1970, to the minute; as it is when it is neither."""
    try:
        if isinstance(started, int | float):
            return f"{datetime.fromtimestamp(started, UTC):%Y-%m-%d %H:%M} UTC"
        return f"{datetime.fromisoformat(str(started)):%Y-%m-%d %H:%M %Z}".strip()
    except (ValueError, OverflowError, OSError):
        return str(started)


def count_of(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
