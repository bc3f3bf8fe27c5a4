"""The report of a run: one HTML file that needs nothing else, neither a network nor a neighbouring file.

The page forbids itself everything but its own inline style, scripts and data: pictures (Content-Security-Policy with
hashes), so that text from files can never act, and nothing can be requested.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from string import Template
from typing import Any

from pipeline.atomic import write_bytes
from pipeline.errors import UserError
from pipeline.report.budget import load_files
from pipeline.report.html import count_of, duration, esc, memory, moment, quantity
from pipeline.report.items import facts_html, render_item
from pipeline.report.run import Part, Run, read_run
from pipeline.report.stages import stages_html
from pipeline.report.top import PICTURES_SHOWN, Chosen, Top, choose_top

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("chart.js", "cloud_scene.js", "cloud.js", "page.js")
MAX_BYTES = 24_000_000


def write_report(run_dir: Path) -> Path:
    """Write RUN_DIR/report.html from the sections, run.json and config.yaml found there, and return its path.

    Parts that are missing or damaged are named in the page. The file stays under about 24 MB: pictures that do not fit
    are left out, and the page says how many. Raises UserError when RUN_DIR is not a folder.
    """
    run_dir = Path(run_dir).resolve()
    if not run_dir.is_dir():
        raise UserError(
            f"{run_dir}: no such run folder; give the folder that holds config.yaml and the stages' results"
        )
    run = read_run(run_dir)
    text_bytes = sum(path.stat().st_size for path in run_dir.glob("*/report/section.json"))
    load_files(run.parts, max(MAX_BYTES - 3 * text_bytes - 2_000_000, 1_000_000))
    path = run_dir / "report.html"
    write_bytes(path, _page(run).encode("utf-8", "replace"))
    return path


def _page(run: Run) -> str:
    style = (ASSETS / "report.css").read_text()
    script = "\n".join((ASSETS / name).read_text() for name in SCRIPTS)
    icon = base64.b64encode((ASSETS / "icon.svg").read_bytes()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; base-uri 'none'"
    )
    return Template((ASSETS / "page.html").read_text()).substitute(
        title=esc(f"{run.name}: Kinecloud run report"),
        policy=policy,
        icon=f"data:image/svg+xml;base64,{icon}",
        style=style,
        script=script,
        body=_body(run),
    )


def _hash(source: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}"


def _body(run: Run) -> str:
    top = choose_top(run.parts)
    ids = {id(part): f"section-{number}" for number, part in enumerate(run.parts)}
    links = [("glance", "At a glance")] if run.parts else []
    links += [("stages", "Stages")] if run.stages else []
    links += [(ids[id(part)], part.title) for part in run.parts]
    links += [("made-with", "Made with")] if run.record else []
    links += [("configuration", "Configuration")] if run.config else []
    navigation = "".join(f'<a href="#{target}">{esc(label)}</a>' for target, label in links)
    return "\n".join(
        [
            _masthead(run),
            f'<nav aria-label="Contents"><div>{navigation}</div></nav><main>',
            *(_aside("warning", problem) for problem in run.problems),
            _glance(run, top, ids) if run.parts else _empty(),
            stages_html(run.stages),
            *(_section(run, part, ids[id(part)], top) for part in run.parts),
            _made_with(run.record),
            _configuration(run.config),
            "</main>",
        ]
    )


def _masthead(run: Run) -> str:
    lead = " ".join(part.summary for part in run.parts if part.summary)
    if not lead:
        lead = "Video without action labels in, a robot policy out: what each stage of this run took in and gave."
    seconds = [s["seconds"] for s in run.stages if isinstance(s.get("seconds"), int | float)]
    peaks = [s["peak_memory_mb"] for s in run.stages if isinstance(s.get("peak_memory_mb"), int | float)]
    facts = [moment(s["started"]) for s in run.stages[:1] if s.get("started")]
    facts += [count_of(len(run.stages), "stage")] if run.stages else []
    facts += [duration(sum(seconds))] if seconds else []
    facts += [f"peak memory {memory(max(peaks))}"] if peaks else []
    facts += [f"seed {run.record['seed']}"] if run.record.get("seed") is not None else []
    meta = "".join(f"<li>{esc(fact)}</li>" for fact in facts)
    return (
        f'<header><p class="eyebrow">Kinecloud run report</p><h1><bdi>{esc(run.name)}</bdi></h1>'
        f'<p class="lead">{esc(lead)}</p><ul class="meta">{meta}</ul></header>'
    )


def _aside(kind: str, text: str) -> str:
    return render_item({"kind": "note", "note": kind, "text": text}, "", "")


def _empty() -> str:
    return _aside(
        "info", "No stage of this run has written a report section yet. Start the run and open this page again."
    )


def _glance(run: Run, top: Top, ids: dict[int, str]) -> str:
    figures = "".join(
        f'<div><dt><a href="#{ids[id(part)]}">{esc(name)}</a></dt><dd>{quantity(value)}</dd></div>'
        for name, value, part in top.facts
    )
    looks = "".join(_chosen(c, f"top-look-{n}") for n, c in enumerate(top.looks))
    curves = "".join(_chosen(c, f"top-curve-{n}") for n, c in enumerate(top.curves))
    films = "".join(_chosen(c, f"top-film-{n}") for n, c in enumerate(top.films))
    return (
        f'<section id="glance"><h2>At a glance</h2>{_simulated(run, ids)}'
        + (f'<dl class="facts figures">{figures}</dl>' if figures else "")
        + (f'<div class="pair looks">{looks}</div>' if looks else "")
        + (f'<div class="pair">{curves}</div>' if curves else "")
        + films
        + "</section>"
    )


def _simulated(run: Run, ids: dict[int, str]) -> str:
    marked = [part for part in run.parts if part.simulated]
    if not marked:
        return ""
    where = ", ".join(f'<a href="#{ids[id(part)]}">{esc(part.title)}</a>' for part in marked)
    texts = list(dict.fromkeys(text for part in marked for text in part.simulated))[:3]
    notes = "".join(f"<p>{esc(text)}</p>" for text in texts)
    return (
        f'<aside class="note simulated"><strong>Simulated</strong><p>Simulated content in: {where}.</p>{notes}</aside>'
    )


def _chosen(chosen: Chosen, element_id: str) -> str:
    badge = '<span class="badge">simulated</span>' if chosen.part.simulated else ""
    origin = f'<p class="origin">{esc(chosen.part.title)}{badge}</p>'
    item = chosen.item
    if item.get("kind") == "images" and isinstance(item.get("images"), list):
        item = {**item, "images": item["images"][:PICTURES_SHOWN], "left_out": 0}
    return f'<div class="panel">{origin}{render_item(item, element_id, _place(chosen.part))}</div>'


def _section(run: Run, part: Part, element_id: str, top: Top) -> str:
    stage = run.stage(part.stage)
    about = [
        part.stage,
        str(stage.get("status") or ""),
        duration(stage.get("seconds")),
        memory(stage.get("peak_memory_mb")),
    ]
    about_html = "".join(f"<li>{esc(text)}</li>" for text in about if text and text != "–")
    badge = '<span class="badge">simulated</span>' if part.simulated else ""
    summary = f'<p class="summary">{esc(part.summary)}</p>' if part.summary else ""
    items = "".join(_in_place(item, f"{element_id}-{number}", part, top) for number, item in enumerate(part.items))
    return (
        f'<section id="{element_id}"><h2>{esc(part.title)}{badge}</h2><ul class="meta">{about_html}</ul>{summary}'
        f'<div class="items">{items}</div></section>'
    )


def _in_place(item: dict[str, Any], element_id: str, part: Part, top: Top) -> str:
    if not top.holds(item):
        return render_item(item, element_id, _place(part))
    title = esc(item.get("title", ""))
    pictures = item.get("images")
    if item.get("kind") == "images" and isinstance(pictures, list) and len(pictures) > PICTURES_SHOWN:
        rest = {**item, "images": pictures[PICTURES_SHOWN:], "title": f"{item.get('title', '')}, continued"}
        return render_item(rest, element_id, _place(part))
    return f'<p class="small"><a href="#glance">{title}</a> is shown at the top.</p>'


def _place(part: Part) -> str:
    return f"{part.stage}/report/"


def _made_with(record: dict[str, Any]) -> str:
    if not record:
        return ""
    rows = [("seed", record.get("seed")), ("configuration", record.get("config_path"))]
    for group in ("machine", "versions"):
        values = record.get(group)
        rows += sorted(values.items()) if isinstance(values, dict) else []
    notes = record.get("notes")
    remarks = "".join(_aside("info", str(note)) for note in notes) if isinstance(notes, list) else ""
    pairs = [[name, value] for name, value in rows if value is not None]
    return f'<section id="made-with"><h2>Made with</h2>{remarks}{facts_html(pairs, "versions", esc)}</section>'


def _configuration(config: str) -> str:
    if not config:
        return ""
    summary = f"config.yaml, {count_of(len(config.splitlines()), 'line')}"
    details = f'<details><summary>{summary}</summary><pre tabindex="0">{esc(config)}</pre></details>'
    return f'<section id="configuration"><h2>Configuration</h2>{details}</section>'
