"""The HTML of every kind of item that a section can hold (see pipeline.section for what each one means)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.report.html import count_of, data_script, esc, is_number, paragraphs, quantity

CARDS_SHOWN = 12
_NOTE_LABEL = {"info": "Note", "warning": "Warning", "simulated": "Simulated"}


def render_item(item: dict[str, Any], element_id: str, place: str) -> str:
    """One item as HTML. ``element_id`` is unique in the page; ``place`` is the folder with what the page leaves out.

    An item that cannot be understood becomes a visible warning: one damaged section never costs the whole report.
    """
    kind = item.get("kind")
    try:
        return _RENDER[str(kind)](item, element_id, place)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        detail = f"{type(error).__name__}: {error}"
        return _callout("warning", f"An item of kind {kind!r} in {place} cannot be shown ({detail}).")


def _text(item: dict[str, Any], element_id: str, place: str) -> str:
    return f'<div class="prose">{paragraphs(item["text"])}</div>'


def _note(item: dict[str, Any], element_id: str, place: str) -> str:
    return _callout(item["note"] if item["note"] in _NOTE_LABEL else "info", item["text"])


def _callout(kind: str, text: str) -> str:
    return f'<aside class="note {kind}"><strong>{_NOTE_LABEL[kind]}</strong>{paragraphs(text)}</aside>'


def facts_html(facts: list[Any], css_class: str = "facts", shown: Callable[[Any], str] = quantity) -> str:
    """Key figures as a definition list of tiles. shown: a value as HTML."""
    tiles = "".join(f"<div><dt>{esc(name)}</dt><dd>{shown(value)}</dd></div>" for name, value in facts)
    return f'<dl class="{css_class}">{tiles}</dl>'


def _facts(item: dict[str, Any], element_id: str, place: str) -> str:
    return facts_html(item["facts"])


def _table(item: dict[str, Any], element_id: str, place: str) -> str:
    columns, rows = item["columns"], item["rows"]
    numeric = [bool(rows) and all(is_number(row[c]) for row in rows) for c in range(len(columns))]
    mark = [' class="number"' if n else "" for n in numeric]
    head = "".join(f'<th scope="col"{mark[c]}>{esc(name)}</th>' for c, name in enumerate(columns))
    body = "".join(
        "<tr>" + "".join(f"<td{mark[c]}><bdi>{esc(row[c])}</bdi></td>" for c in range(len(columns))) + "</tr>"
        for row in rows
    )
    more = _aside(f"{count_of(int(item['left_out']), 'more row')} not shown") if item.get("left_out") else ""
    title = f"<figcaption>{esc(item['title'])}</figcaption>"
    table = (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{esc(item["title"])}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{more}"
    )
    if item.get("folded"):
        return f'<details><summary>{esc(item["title"])}</summary><figure class="table">{table}</figure></details>'
    return f'<figure class="table">{title}{table}</figure>'


def picture_html(picture: dict[str, Any], title: str) -> str:
    """A picture that opens large. The caption is its text alternative; without one, the title of its item."""
    alternative = esc(picture.get("caption") or title)
    size = f'width="{int(picture["width"])}" height="{int(picture["height"])}"'
    return f'<button type="button" class="zoom"><img src="{esc(picture["uri"])}" alt="{alternative}" {size}></button>'


def _pictures(item: dict[str, Any], place: str) -> tuple[list[dict[str, Any]], str]:
    """The pictures at hand, and a line on those that are not."""
    shown = [picture for picture in item["images"] if "uri" in picture]
    gone = sum(picture.get("missing") == "gone" for picture in item["images"])
    left_out = len(item["images"]) - len(shown) - gone
    lines = []
    if left_out:
        of = f"{left_out} of {len(item['images'])} pictures left out to keep this page small; all are in {place}"
        lines.append(of)
    if gone:
        lines.append(f"{count_of(gone, 'picture')} missing from {place}")
    if item.get("left_out"):
        lines.append(f"{int(item['left_out'])} more were not stored")
    return shown, _aside("; ".join(lines)) if lines else ""


def _figures(pictures: list[dict[str, Any]], title: str) -> str:
    return "".join(
        f"<figure>{picture_html(p, title)}<figcaption>{esc(p.get('caption', ''))}</figcaption></figure>"
        for p in pictures
    )


def _sides(item: dict[str, Any], element_id: str, place: str) -> str:
    shown, more = _pictures(item, place)
    columns = ""
    for side, heading in zip(("left", "right"), item["headings"], strict=True):
        pictures = [picture for picture in shown if picture.get("side") == side]
        cells = _figures(pictures, heading) or '<p class="small">none</p>'
        columns += f"<div><h4>{esc(heading)}</h4>{cells}</div>"
    return (
        f'<figure class="gallery" data-group><figcaption>{esc(item["title"])}</figcaption>'
        f'<div class="sides">{columns}</div>{more}</figure>'
    )


def _images(item: dict[str, Any], element_id: str, place: str) -> str:
    shown, more = _pictures(item, place)
    cells = _figures(shown, item["title"])
    size = " few" if len(shown) <= 2 else ""
    return (
        f'<figure class="gallery" data-group><figcaption>{esc(item["title"])}</figcaption>'
        f'<div class="grid{size}">{cells}</div>{more}</figure>'
    )


def _film(item: dict[str, Any], element_id: str, place: str) -> str:
    shown, more = _pictures(item, place)
    cells = _figures(shown, item["title"])
    fps = float(item.get("fps") or 5.0)
    play = '<button type="button" class="play" hidden>Play</button>' if len(shown) > 1 else ""
    return (
        f'<figure class="film" data-group data-fps="{fps:g}"><figcaption>{esc(item["title"])}{play}</figcaption>'
        f'<div class="strip" tabindex="0" role="region" aria-label="{esc(item["title"])}">{cells}</div>{more}</figure>'
    )


def _curves(item: dict[str, Any], element_id: str, place: str) -> str:
    series = item["series"]
    remarks, rows = [], []
    for line in series:
        values = [y for y in line["y"] if y is not None]
        if line.get("not_finite"):
            remarks.append(f"{line['name']}: {count_of(int(line['not_finite']), 'value')} not finite, drawn as gaps")
        if line.get("of"):
            remarks.append(f"{line['name']}: {len(line['x'])} of {int(line['of'])} points drawn, every peak kept")
        ends = (values[0], values[-1], min(values), max(values)) if values else ("–",) * 4
        rows.append(
            f'<tr><th scope="row">{esc(line["name"])}</th>' + "".join(f"<td>{esc(v)}</td>" for v in ends) + "</tr>"
        )
    spec = {key: item.get(key) for key in ("title", "x_label", "y_label", "log_y")} | {"series": series}
    table = (
        f"<table><tr><td></td><th>first</th><th>last</th><th>lowest</th><th>highest</th></tr>{''.join(rows)}</table>"
    )
    return (
        f'<figure class="chart"><figcaption>{esc(item["title"])}</figcaption>'
        f'<div class="plot" data-chart="{element_id}"></div><div class="spoken">{table}</div>'
        f"{_aside('; '.join(remarks)) if remarks else ''}{data_script(element_id, spec)}</figure>"
    )


def _cloud(item: dict[str, Any], element_id: str, place: str) -> str:
    spec = item["cloud"]
    if "data" not in spec:
        reason = "left out to keep this page small" if spec.get("missing") == "left out" else "missing or damaged"
        return _callout("warning", f"The cloud {item['title']!r} is {reason} ({place}).")
    remarks = [text for text in (item.get("caption"), spec.get("thinned")) if text]
    keys = ['<span class="key seen">measured</span>']
    if item.get("has_carried"):
        keys.append('<span class="key carried">carried over</span>')
    if spec["predicted"]:
        keys.append('<span class="key predicted">predicted</span>')
    sent = {k: spec[k] for k in ("frames", "points", "predicted", "fps", "low", "step_m", "box", "data")}
    alternative = (
        f"Moving point cloud that can be turned: {item['title']}, {spec['points']} points in {spec['frames']} frames"
    )
    return (
        f'<figure class="cloud"><figcaption>{esc(item["title"])}</figcaption>'
        f'<div class="stage"><canvas data-cloud="{element_id}" tabindex="0" role="img" aria-label="{esc(alternative)}">'
        "</canvas></div>"
        f'<div class="keys">{"".join(keys)}<span class="hint">drag to turn, click and scroll to zoom</span></div>'
        f"{_aside('; '.join(remarks)) if remarks else ''}{data_script(element_id, sent)}</figure>"
    )


def _rejections(item: dict[str, Any], element_id: str, place: str) -> str:
    entries, total = item["rejections"], int(item["total"])
    if not total:
        return '<p class="prose">Nothing was rejected.</p>'
    most = max(int(count) for _, count in item["counts"])
    bars = "".join(
        f'<tr><th scope="row"><code>{esc(reason)}</code></th><td class="number">{int(count)}</td><td class="bar">'
        f'<svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect width="{100 * count / most:.1f}" height="8"/></svg></td></tr>'
        for reason, count in item["counts"]
    )
    cards = [_card(entry) for entry in entries]
    rest = cards[CARDS_SHOWN:]
    more = f"<details><summary>{len(rest)} more</summary>{_cards(rest)}</details>" if rest else ""
    hidden = _aside(f"{total - len(entries)} more are counted above and not listed") if total > len(entries) else ""
    return (
        f'<figure class="rejections" data-group><figcaption>{total} rejected, and why</figcaption>'
        f'<table class="reasons">{bars}</table>{_cards(cards[:CARDS_SHOWN])}{more}{hidden}</figure>'
    )


def _cards(cards: list[str]) -> str:
    return f'<ul class="cards">{"".join(cards)}</ul>'


def _card(entry: dict[str, Any]) -> str:
    image = entry.get("image") or {}
    named = f"Frame of {entry['item']}, rejected: {entry['reason']}"
    picture = picture_html(image, named) if "uri" in image else '<span class="blank">no frame</span>'
    return (
        f"<li>{picture}<div><bdi>{esc(entry['item'])}</bdi><code>{esc(entry['reason'])}</code>"
        f"<p>{esc(entry.get('detail', ''))}</p></div></li>"
    )


def _aside(text: str) -> str:
    return f'<p class="small">{esc(text)}</p>'


_RENDER = {
    "text": _text,
    "note": _note,
    "facts": _facts,
    "table": _table,
    "images": _images,
    "sides": _sides,
    "film": _film,
    "curves": _curves,
    "cloud": _cloud,
    "rejections": _rejections,
}
