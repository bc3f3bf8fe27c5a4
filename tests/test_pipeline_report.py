"""The report opens in a real browser as it stands on disk: complete, silent, inert, and bounded."""

from __future__ import annotations

import html
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import UserError
from pipeline.report import page as report
from pipeline.report.items import render_item
from pipeline.report.page import write_report
from pipeline.section import Section
from tests.browser import Opened, browse

HOSTILE = "\"'><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">.mp4"
VOID = {"meta", "link", "img", "br", "input"}


def picture(level: int, kind: str = "JPEG", width: int = 160, height: int = 120) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), (level % 255, 120, 200)).save(stream, kind)
    return stream.getvalue()


def moving_cloud(frames: int = 12) -> np.ndarray:
    points = np.random.default_rng(0).normal([0.0, 0.0, 0.6], 0.05, (40, 3))
    return points + np.linspace(0, 0.2, frames)[:, None, None] * [1.0, 0.0, 0.5]


def made_up_run(run_dir: Path, name: str = "reach.mp4") -> Path:
    """A run folder with every kind of item, names as given, and the record that the runner writes."""
    extraction = Section(f"Extraction {name}", 30)
    extraction.summary(f"Twelve clips from 3 videos, {name} among them.")
    extraction.note(f"Rendered video: {name}.", "simulated")
    extraction.text(f"About {name}.\n\nAnd more.")
    extraction.facts([(f"clips of {name}", 12), ("frames with a hand", "99.4 %")], top=True)
    extraction.images(f"Overlays {name}", [(picture(40 + i), f"{name}, {i} s") for i in range(9)])
    visible = np.random.default_rng(1).random((12, 40)) < 0.8
    extraction.cloud(f"Cloud {name}", moving_cloud(), visible, 20.0, name, predicted_TM3=moving_cloud() + 0.01)
    extraction.table(f"Videos {name}", ["video", "frames"], [[name, 20], ["unbroken" * 20, 31]])
    extraction.sides(f"Both {name}", (f"kept {name}", [(picture(60), name)]), (f"dropped {name}", []))
    extraction.rejections(
        [(name, "no_hand", f"in {name}", picture(9, "PNG")), ("empty.mp4", "unreadable", "0 bytes", None)]
    )
    extraction.save(run_dir / "extract")
    training = Section("Predictor", 50)
    loss = np.exp(-np.arange(300) / 90)
    loss[100:104] = np.nan
    loss[200] = np.inf
    training.curves(f"Loss {name}", "step", "loss", {f"train {name}": (np.arange(300), loss)}, log_y=True, top=True)
    training.curves("Error", "s", "mm", {n: ([0.1, 0.3, 0.5], [1, 2, 3]) for n in ("model", "no motion")}, top=True)
    training.curves("Narrow", "step", "loss", {"train": ([0, 1, 2], [4.9, 3.4, 3.1])}, log_y=True)
    training.curves("Nothing finite", "step", "loss", {"train": ([0, 1], [np.nan, np.nan]), "none": ([], [])})
    training.save(run_dir / "pretrain")
    rollout = Section("Rollout", 70)
    rollout.film(f"Rollout {name}", [(picture(90 + i), f"{i / 5} s") for i in range(8)])
    rollout.save(run_dir / "rollout")
    (run_dir / "config.yaml").write_text(f"seed: 7\nvideos: {name}\n")
    stages = [
        {"name": stage, "status": "done", "seconds": 100.0, "peak_memory_mb": 1460, "started": "2026-01-02T03:04:05"}
        | {"command": ["python", "-m", stage, name]}
        for stage in ("extract", "pretrain", "rollout")
    ]
    record = {"stages": stages, "versions": {"torch": "2.13.0"}, "seed": 7, "config_path": name, "notes": [name]}
    (run_dir / "run.json").write_text(json.dumps(record))
    return run_dir


@pytest.fixture(scope="module")
def opened(tmp_path_factory) -> Opened:
    folder = tmp_path_factory.mktemp("report")
    return browse(write_report(made_up_run(folder / "quickstart")), folder / "browser")


def test_report_opens_without_console_message_and_without_request(opened):
    assert opened.console == []
    assert opened.requests == []


def test_the_watch_for_messages_and_requests_sees_both(tmp_path):
    page = tmp_path / "page.html"
    page.write_text("<img src='http://kinecloud-report.invalid/x.png'><script>console.log('kinecloud')</script>")
    seen = browse(page, tmp_path / "browser")
    assert len(seen.console) == 1 and "kinecloud" in seen.console[0]
    assert seen.requests == ["http://kinecloud-report.invalid/x.png"]


def test_a_newcomer_sees_figures_overlays_cloud_curves_and_rollout_first(opened):
    glance = opened.dom.split('id="glance"')[1].split('id="stages"')[0]
    order = [
        glance.index(text) for text in ("Simulated", "frames with a hand", "Overlays", "Cloud", "Loss", "Rollout reach")
    ]
    assert order == sorted(order)
    assert glance.count("<canvas") == 1 and glance.count("<path") == 3
    assert glance.count("data:image/jpeg") == 6 + 8  # the first overlays, and the whole strip
    for text in ("1 min 40 s", "5 min 00 s", "1.46 GB", "2.13.0", "seed 7", "no_hand", "values not finite"):
        assert text in opened.dom, text


def test_picture_of_the_page_shows_the_cloud_in_its_colours(opened):
    pixels = np.asarray(opened.screenshot, int).reshape(-1, 3)
    for colour in ((11, 127, 121), (211, 84, 24)):  # --seen and --predicted of the light theme
        assert (np.abs(pixels - colour).max(-1) <= 4).sum() > 300, colour


def test_unmarked_extraction_is_at_the_top_beside_what_others_marked(tmp_path):
    extraction, training = Section("Extraction", 20), Section("Predictor", 50)
    for section, top in ((extraction, False), (training, True)):
        name = "marked" if top else "unmarked"
        section.facts([(f"{name} figure", 1)], top=top)
        section.images(f"{name} pictures", [(picture(1), "")], top=top)
        section.cloud(f"{name} cloud", moving_cloud(), top=top)
    extraction.save(tmp_path / "extract")
    training.save(tmp_path / "pretrain")
    stage = {"name": "extract", "status": "failed with exit code 3", "seconds": 1.0, "peak_memory_mb": 100}
    (tmp_path / "run.json").write_text(json.dumps({"stages": [stage], "machine": {"cpu_cores": 2}}))
    page = write_report(tmp_path).read_text()
    glance = page.split('id="glance"')[1].split("</section>")[0]
    titles = [f"{name} {what}" for what in ("pictures", "cloud", "figure") for name in ("unmarked", "marked")]
    assert all(title in glance for title in titles)
    assert glance.index("unmarked cloud") < glance.index(">marked pictures")
    assert '<tr class="failed">' in page and "cpu_cores" in page


def test_every_picture_has_a_text_alternative(opened):
    pictures = [tag for tag in re.findall(r"<img [^>]*>", opened.dom) if "src=" in tag]
    assert len(pictures) >= 18
    assert all(re.search(r'alt="[^"]+"', tag) and 'width="' in tag for tag in pictures)


class Nesting(HTMLParser):
    """Fails on an end tag that does not close what was opened last."""

    def __init__(self):
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> at {self.getpos()}"


def test_names_from_files_never_become_markup(tmp_path):
    run_dir = made_up_run(tmp_path / "run <b>1", HOSTILE)
    page = write_report(run_dir).read_text()
    parser = Nesting()
    parser.feed(page)
    assert parser.open == []
    assert "<script>document" not in page and "<img src=x" not in page
    assert page.count(html.escape(HOSTILE)) >= 12
    # Without the policy that would stop a script: escaping alone must do.
    bare = tmp_path / "bare.html"
    bare.write_text(re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page))
    seen = browse(bare, tmp_path / "browser")
    assert "<title>owned" not in seen.dom and "run &lt;b&gt;1" in seen.dom
    assert seen.console == [] and seen.requests == []


def test_policy_stops_an_inline_script_that_is_not_ours(tmp_path):
    page = write_report(made_up_run(tmp_path / "run"))
    page.write_text(page.read_text().replace("</main>", "</main><script>document.title='owned'</script>"))
    seen = browse(page, tmp_path / "browser")
    assert "<title>owned" not in seen.dom
    assert any("Content Security Policy" in line for line in seen.console)


USE = """
const out = [], check = (name, value) => out.push(name + ':' + value);
const fire = (node, type, more) => node.dispatchEvent(new (type.startsWith('key') ? KeyboardEvent : type === 'wheel'
  ? WheelEvent : PointerEvent)(type, {bubbles: true, cancelable: true, pointerId: 1, ...more}));
const paths = () => document.querySelectorAll('#glance .area path').length;
const legend = document.querySelector('#glance .legend button'), before = paths();
legend.click(); check('legend hides a curve', before - paths()); legend.click();
const scale = document.querySelector('#glance .scale'), area = document.querySelector('#glance .area');
const tall = () => area.querySelector('path').getAttribute('d');
const log = tall(); scale.click(); check('log scale redraws', log !== tall());
check('gaps', (tall().match(/M/g) || []).length);
fire(area, 'keydown', {key: 'ArrowRight'});
check('tip', !document.querySelector('#glance .tip').hidden);
const canvas = document.querySelector('canvas'), look = () => canvas.toDataURL();
document.querySelector('.cloud .controls button').click();
canvas.setPointerCapture = () => {};
fire(canvas, 'pointerdown', {clientX: 50, clientY: 50}); fire(canvas, 'pointerup', {});
const still = look();
fire(canvas, 'wheel', {deltaY: 120}); check('wheel waits for a click', look() === still);
fire(canvas, 'pointerdown', {clientX: 50, clientY: 50}); fire(canvas, 'pointermove', {clientX: 90, clientY: 60});
fire(canvas, 'pointerup', {}); const turned = look(); check('drag turns', turned !== still);
canvas.focus(); fire(canvas, 'wheel', {deltaY: -200}); const near = look(); check('wheel zooms', near !== turned);
const slider = document.querySelector('.cloud input'); slider.value = 0; fire(slider, 'input', {});
check('slider moves time', look() !== near);
document.querySelector('.film .play').click();
const box = document.getElementById('lightbox'); check('film opens', box.open);
const first = box.querySelector('img').src; box.querySelector('[data-do=next]').click();
check('next picture', box.querySelector('img').src !== first);
box.querySelector('[data-do=close]').click(); check('closes', !box.open);
const charts = [...document.querySelectorAll('.area')].filter((chart) => chart.querySelector('path'));
check('every scale has marks', charts.every((chart) => chart.querySelectorAll('line.grid').length > 1));
check('no sideways scroll', document.documentElement.scrollWidth <= innerWidth);
document.body.dataset.result = out.join(';');
"""


def test_charts_cloud_and_film_answer_to_a_user_on_a_narrow_screen(tmp_path):
    page = write_report(made_up_run(tmp_path / "run"))
    source = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text())
    page.write_text(source.replace("</body>", f"<script>{USE}</script></body>"))
    seen = browse(page, tmp_path / "browser", width=500, height=900)
    assert seen.console == []
    found = re.search(r'data-result="([^"]*)"', seen.dom)
    assert found, "the page's scripts stopped"
    answers = dict(pair.split(":") for pair in found[1].split(";"))
    assert answers.pop("legend hides a curve") == "1"
    assert answers.pop("gaps") == "3"  # one start, one after the run of NaN, one after the infinite value
    assert len(answers) == 11 and set(answers.values()) == {"true"}, answers


def test_same_run_gives_the_same_page(tmp_path):
    made_up_run(tmp_path / "run")
    first = write_report(tmp_path / "run").read_bytes()
    assert write_report(tmp_path / "run").read_bytes() == first


def test_missing_and_damaged_parts_are_named_and_the_rest_is_shown(tmp_path):
    run_dir = made_up_run(tmp_path / "run")
    (run_dir / "pretrain/report/section.json").write_text("{")
    (run_dir / "run.json").write_text("[]")
    next((run_dir / "extract/report").glob("cloud-*")).write_bytes(b"short")
    next((run_dir / "rollout/report").glob("image-*")).unlink()
    align = run_dir / "align/report"
    align.mkdir(parents=True)
    outside = [{"file": "../../config.yaml", "width": 1, "height": 1, "caption": ""}]
    items = [{"kind": "hologram"}, {"kind": "table", "title": "t"}, {"kind": "images", "title": "i", "images": outside}]
    (align / "section.json").write_text(json.dumps({"title": "Policy", "items": [*items, "text"]}))
    page = write_report(run_dir).read_text()
    for text in (
        "pretrain/report/section.json is not JSON",
        "run.json holds a list",
        "is missing or damaged",
        "1 picture missing from rollout/report/",
        "1 picture missing from align/report/",
        "kind &#x27;hologram&#x27;",
        "KeyError",
        "2 rejected, and why",
    ):
        assert text in page, text


def test_what_no_stage_of_ours_writes_neither_acts_nor_stops_the_report(tmp_path: Path) -> None:
    run_dir = made_up_run(tmp_path / "run")
    other = run_dir / "align/report"
    other.mkdir(parents=True)
    acts = {"uri": 'x"><meta http-equiv=refresh content="0;url=https://example.org">', "width": 1, "height": 1}
    long = {"file": "a" * 300, "caption": "", "width": 1, "height": 1}
    items = [
        {"kind": "images", "title": "pictures", "images": [acts, long]},
        {"kind": "rejections", "rejections": 5},
        {"kind": "rejections", "counts": {"no_hand": 0}, "rejections": [{"image": acts}]},
        {"kind": "cloud", "title": "cloud", "cloud": acts | {"data": "x"}},
    ]
    text = json.dumps({"title": "Other", "items": items, "order": 1})
    text = text.replace('"order": 1', '"order": 1e999').replace(
        '"title": "pictures"', f'"title": "p", "left_out": {"9" * 400}'
    )
    (other / "section.json").write_text(text)
    record = (run_dir / "run.json").read_text().replace("100.0", "1e999").replace("1460", "9" * 400)
    (run_dir / "run.json").write_text(record.replace("2.13.0", "253cd81a1b2c-dirty"))
    page = write_report(run_dir).read_text()
    assert "http-equiv=refresh" not in page and "Other" in page and "2 pictures missing from align/report/" in page
    assert ">253cd81a1b2c-dirty<" in page


def test_empty_run_and_no_run(tmp_path):
    assert "No stage of this run" in write_report(tmp_path).read_text()
    with pytest.raises(UserError, match="no such run folder"):
        write_report(tmp_path / "absent")


def test_large_run_stays_bounded_and_says_what_was_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "MAX_BYTES", 5_000_000)
    rng = np.random.default_rng(4)
    for number in range(3):
        section = Section(f"Stage {number}", number)
        heavy = [(picture(i, "PNG") + rng.bytes(120_000), f"picture {i}") for i in range(20)]
        section.images("heavy", heavy)
        section.film("strip", heavy)
        section.images("light", [(picture(number), "light")])
        section.save(run_dir := tmp_path / "run" / f"stage{number}")
    path = write_report(run_dir.parent)
    page = path.read_text()
    assert 1_500_000 < path.stat().st_size < 5_000_000
    assert page.count("pictures left out to keep this page small") == 6
    assert page.count('alt="light"') == 3
    # A shortened film still shows its beginning and its end.
    strip = page.split('class="strip"')[1].split("</figure></div>")[0]
    assert 'alt="picture 0"' in strip and 'alt="picture 19"' in strip


def test_a_folded_table_shows_its_title_until_it_is_opened(tmp_path: Path) -> None:
    section = Section("Details", 10)
    for folded in (False, True):
        section.table("Errors by task", ["task", "mm"], [["reach", 12.5]], folded=folded)
    items = json.loads(section.save(tmp_path).read_text())["items"]
    open_table, folded_table = (render_item(item, "x", "folder") for item in items)
    assert "<details" not in open_table and folded_table.startswith("<details>")
    for shown in ("Errors by task", "reach", "12.5"):
        assert shown in open_table and shown in folded_table
    assert folded_table.index("Errors by task") < folded_table.index("</summary>") < folded_table.index("reach")
