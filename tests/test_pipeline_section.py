"""A section on disk says what the stage said: same bytes every time, bounded, no value that cannot be drawn."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.report.cloud import cloud_bytes, pack_cloud
from pipeline.report.picture import picture_of
from pipeline.section import MAX_CURVE_POINTS, MAX_REJECTIONS, MAX_ROWS, Section, cell, plain


def encoded(kind: str, width: int = 32, height: int = 20, level: int = 90) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), (level, 120, 200)).save(
        stream, kind, **({"progressive": True} if level % 2 else {})
    )
    return stream.getvalue()


def saved(section: Section, folder: Path) -> dict:
    return json.loads(section.save(folder).read_text())


def all_kinds() -> Section:
    section = Section("Extraction", 30)
    section.summary("Two clips.")
    section.text("One.\n\nTwo.")
    section.note("rendered", "simulated")
    section.facts([("clips", np.int64(2)), ("error", 14.23456)], top=True)
    section.table("videos", ["name", "frames"], [["a.mp4", 20], ["b.mp4", None]])
    section.images("overlays", [(encoded("PNG"), "a"), (encoded("JPEG"), "b")])
    section.sides("good and bad", ("good", [(encoded("PNG"), "a")]), ("bad", [(encoded("JPEG"), "b")]))
    section.film("rollout", [(encoded("JPEG", level=i), f"{i} s") for i in range(3)], fps=5)
    section.curves("loss", "step", "loss", {"train": ([0, 1, 2], [3.0, float("nan"), 1.0])}, log_y=True)
    section.cloud("hand", np.random.default_rng(0).normal(size=(4, 20, 3)), np.ones((4, 20), bool), 20.0, "turning")
    section.rejections(
        [("c.mp4", "no_hand", "none in 40 frames", encoded("PNG")), ("d.mp4", "unreadable", "empty", None)]
    )
    return section


def test_same_calls_give_the_same_bytes(tmp_path):
    for name in "ab":
        all_kinds().save(tmp_path / name)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert len(files) >= 6
    assert files == sorted(p.relative_to(tmp_path / "b") for p in (tmp_path / "b").rglob("*") if p.is_file())
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)


def test_saving_again_leaves_only_the_files_that_the_section_names(tmp_path):
    all_kinds().save(tmp_path)
    last = Section("Extraction", 30)
    last.images("one", [(encoded("PNG", 8, 8), "")])
    content = saved(last, tmp_path)
    names = {picture["file"] for picture in content["items"][0]["images"]}
    assert {p.name for p in (tmp_path / "report").iterdir()} == names | {"section.json"}


@pytest.mark.parametrize(("kind", "level"), [("PNG", 90), ("JPEG", 90), ("JPEG", 91)])
def test_picture_size_agrees_with_the_imaging_library(kind, level):
    picture = picture_of(encoded(kind, 321, 43, level))
    assert (picture.kind, picture.width, picture.height) == (kind.lower(), 321, 43)


@pytest.mark.parametrize(
    "data", [b"", b"<svg onload=alert(1)>", encoded("PNG")[:12], encoded("JPEG")[:30], b"\xff\xd8" * 40]
)
def test_what_is_no_picture_is_refused_by_name(data):
    with pytest.raises(ValueError, match=r"overlays.*not a PNG or JPEG"):
        Section("s", 1).images("overlays", [(data, "")])


def test_thinned_curve_keeps_ends_peaks_and_gaps(tmp_path):
    y = np.sin(np.arange(100_000) / 300)
    y[70_001], y[12_345], y[50_000] = 50.0, -50.0, np.nan
    section = Section("s", 1)
    section.curves("c", "x", "y", {"y": (np.arange(len(y)), y)})
    line = saved(section, tmp_path)["items"][0]["series"][0]
    assert len(line["x"]) <= MAX_CURVE_POINTS and line["of"] == len(y)
    drawn = dict(zip(line["x"], line["y"], strict=True))
    assert (drawn[70_001], drawn[12_345], drawn[50_000]) == (50.0, -50.0, None)
    assert line["x"] == sorted(line["x"]) and line["x"][0] == 0 and line["x"][-1] == len(y) - 1
    assert line["not_finite"] == 1


def test_curve_of_nothing_but_nan_is_kept_as_gaps(tmp_path):
    section = Section("s", 1)
    section.curves("c", "x", "y", {"a": ([0, 1], [np.nan, np.inf]), "b": ([], [])})
    lines = saved(section, tmp_path)["items"][0]["series"]
    assert lines[0]["y"] == [None, None] and lines[0]["not_finite"] == 2 and lines[1]["x"] == []


def unpacked(spec: dict, data: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the viewer does: bytes to metres, missing points to NaN."""
    frames, points, predicted = spec["frames"], spec["points"], spec["predicted"]
    levels = np.frombuffer(data, "<i2", frames * (points + predicted) * 3).astype(float)
    levels[levels == -32768] = np.nan
    ends = frames * points * 3
    clouds = [part.reshape(frames, -1, 3) if part.size else None for part in (levels[:ends], levels[ends:])]
    first, second = (
        np.zeros((frames, 0, 3)) if c is None else (c + 32500) * spec["step_m"] + np.asarray(spec["low"])
        for c in clouds
    )
    return first, second, np.frombuffer(data[-frames * points :], np.uint8).reshape(frames, points)


def test_cloud_round_trip_within_half_a_step():
    rng = np.random.default_rng(1)
    points, predicted = rng.normal([0.1, 0, 0.6], 0.1, (7, 30, 3)), rng.normal([0.1, 0, 0.6], 0.1, (7, 11, 3))
    visible = rng.random((7, 30)) < 0.5
    points[3, 4, 1] = np.nan
    spec, data = pack_cloud(points, visible, 20.0, predicted)
    assert len(data) == cloud_bytes(spec)
    first, second, seen = unpacked(spec, data)
    assert np.isnan(first[3, 4]).all() and np.isnan(first).sum() == 3
    points[3, 4] = np.nan
    np.testing.assert_allclose(first, points, atol=spec["step_m"] * 0.51)
    np.testing.assert_allclose(second, predicted, atol=spec["step_m"] * 0.51)
    np.testing.assert_array_equal(seen, visible)
    assert spec["step_m"] < 1e-4


def test_large_cloud_is_bounded_says_so_and_keeps_its_speed():
    spec, data = pack_cloud(np.random.default_rng(2).random((2000, 400, 3)), None, 20.0, None)
    assert len(data) < 500_000 and "2000 frames" in spec["thinned"] and "400 points" in spec["thinned"]
    assert spec["frames"] / spec["fps"] == pytest.approx(2000 / 20.0, rel=0.02)


def test_one_stray_point_does_not_shrink_the_view():
    points = np.random.default_rng(3).normal(0, 0.05, (10, 200, 3))
    points[5, 7] = 100.0
    (low, high), _ = pack_cloud(points, None, 20.0, None)[0]["box"], None
    assert max(np.subtract(high, low)) < 1.0


def test_cloud_without_a_finite_point_is_still_a_cloud():
    spec, data = pack_cloud(np.full((2, 3, 3), np.nan), None, 20.0, None)
    assert len(data) == cloud_bytes(spec) and np.isnan(unpacked(spec, data)[0]).all()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((np.zeros((2, 3)), None, 20.0, "", None), r"points_TN3 has shape \[2, 3\]"),
        ((np.zeros((0, 3, 3)), None, 20.0, "", None), "points_TN3"),
        ((np.zeros((2, 3, 3)), np.ones((2, 4), bool), 20.0, "", None), "visible_TN"),
        ((np.zeros((2, 3, 3)), None, 20.0, "", np.zeros((3, 3, 3))), "predicted_TM3"),
        ((np.zeros((2, 3, 3)), None, 0.0, "", None), "fps"),
    ],
)
def test_shapes_that_do_not_fit_name_the_cloud(arguments, match):
    with pytest.raises(ValueError, match=f"cloud 'hand'.*{match}"):
        Section("s", 1).cloud("hand", *arguments)


def test_rows_and_curves_that_do_not_fit_and_unknown_notes_are_refused():
    with pytest.raises(ValueError, match="row 1 has 1 cells for 2 columns"):
        Section("s", 1).table("t", ["a", "b"], [[1, 2], [3]])
    with pytest.raises(ValueError, match="'train' has xs"):
        Section("s", 1).curves("c", "x", "y", {"train": ([1, 2], [1])})
    with pytest.raises(ValueError, match="known: info, warning, simulated"):
        Section("s", 1).note("x", "simulation")


def test_long_lists_are_cut_and_counted(tmp_path):
    section = Section("s", 1)
    section.table("t", ["a"], [[i] for i in range(MAX_ROWS + 7)])
    section.rejections(
        [(f"{i}.mp4", "no_hand" if i % 3 else "unreadable", "", None) for i in range(MAX_REJECTIONS + 30)]
    )
    table, rejected = saved(section, tmp_path)["items"]
    assert len(table["rows"]) == MAX_ROWS and table["left_out"] == 7
    assert rejected["total"] == sum(count for _, count in rejected["counts"]) == MAX_REJECTIONS + 30
    assert rejected["counts"] == [["no_hand", 220], ["unreadable", 110]]


def test_values_as_the_page_shows_them():
    shown = [
        cell(v) for v in (None, True, 3, 14.23456, 12.0, 123456.7, 1.5e-7, float("nan"), np.float32(0.5), Path("a/b"))
    ]
    assert shown == ["–", "yes", "3", "14.23", "12", "123457", "1.5e-07", "not a number", "0.5", "a/b"]


def test_text_cannot_carry_control_characters_or_turn_direction():
    assert plain("a\x00b\x1b[31m\u202ecod.exe") == "a\ufffdb\ufffd[31m\ufffdcod.exe"
    assert plain("bad \udcff name").encode() and len(plain("x" * 5000)) == 600
    assert plain("naïve 手 🤚\u200d, 5\u202fmm\n") == "naïve 手 🤚\u200d, 5\u202fmm\n"
