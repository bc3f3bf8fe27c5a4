"""Tables of words beside videos: every row is an episode or a rejection with a reason, whatever the table's format."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from data.config import IndexConfig
from data.index import Episode, Rejection
from data.reader import EpisodeReader
from data.scan.build import build_index
from data.scan.moments import around, seconds
from data.sources.mapping import read_layout, shipped
from data.sources.patterns import matched, sound
from data.sources.tables import rows
from data.sources.videos_layout import VideosLayout
from data.video import Unreadable
from pipeline.errors import UserError
from tests.indexed import indexed

MakeVideo = Callable[..., Path]
Found = tuple[list[Episode], list[Rejection]]


def scanned(folder: Path, out: Path, **source: Any) -> Found:
    return indexed(IndexConfig.model_validate({"sources": [{"name": "mine", "path": folder, **source}]}), out)


def told(found: Found) -> list[tuple[str, str, tuple[int, int]]]:
    """File, words and frames of each episode."""
    return sorted((episode.path.name, episode.instruction, episode.span) for episode in found[0])


def reasons(found: Found) -> list[tuple[str, str]]:
    """Last part of the item, and the reason, of each rejection."""
    return sorted((Path(one.item).name, one.reason) for one in found[1])


def below(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture
def videos(tmp_path: Path, make_video: MakeVideo) -> Path:
    """Two videos of one second, 20 frames each; the second is longer by a frame so that it is another."""
    (tmp_path / "set").mkdir()
    make_video(tmp_path / "set/a.mp4", frames=20, fps=20)
    make_video(tmp_path / "set/b.mp4", frames=21, fps=20)
    return tmp_path / "set"


def test_words_csv_is_taken_without_a_layout(videos: Path, tmp_path: Path, make_video: MakeVideo) -> None:
    (videos / "deep").mkdir()
    make_video(videos / "deep/c.mp4", frames=22, fps=20)
    (videos / "words.csv").write_text(
        "file,instruction,start_s,stop_s,group,success\n"
        "a.mp4,open it,0,0.5,kitchen,true\n"
        'a.mp4,"close it, slowly",0:00:00.25,0:00:01,kitchen,false\n'
        "deep/c.mp4,pour,,,,\n"
    )
    found = scanned(videos, tmp_path / "index", instruction="anything")
    assert told(found) == [
        ("a.mp4", "close it, slowly", (5, 20)),
        ("a.mp4", "open it", (0, 10)),
        ("b.mp4", "anything", (0, 21)),
        ("c.mp4", "pour", (0, 22)),
    ]
    assert not found[1], "overlapping stretches are an episode each, and the table is no stray file"
    first = next(episode for episode in found[0] if episode.instruction == "open it")
    assert first.group == "kitchen" and first.sidecar.success is True
    assert [frame.index for frame in EpisodeReader(first).frames(None)] == list(range(10))
    config = IndexConfig.model_validate({"sources": [{"name": "mine", "path": videos}]})
    assert build_index(config, tmp_path / "other", tmp_path).wordless == 1


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("file;instruction\na.mp4;öffnen, bitte\n", "utf-8-sig"),
        ("file\tinstruction\na.mp4\töffnen, bitte\n", "utf-8"),
        ('file,instruction\n./a.mp4 ,"öffnen, bitte"\n', "utf-8"),
    ],
)
def test_what_spreadsheets_save_is_read(videos: Path, tmp_path: Path, text: str, encoding: str) -> None:
    (videos / "words.csv").write_text(text, encoding=encoding)
    assert told(scanned(videos, tmp_path / "index"))[0] == ("a.mp4", "öffnen, bitte", (0, 20))


def test_a_sidecar_wins_over_the_table(videos: Path, tmp_path: Path) -> None:
    (videos / "a.json").write_text('{"instruction": "as the sidecar says"}')
    (videos / "words.csv").write_text("file,instruction\na.mp4,as the table says\nb.mp4,go\n")
    found = scanned(videos, tmp_path / "index")
    assert [words for _, words, _ in told(found)] == ["as the sidecar says", "go"]
    assert reasons(found) == [("words.csv: line 2", "overruled")]


@pytest.mark.parametrize(
    ("row", "reason", "says"),
    [
        ("gone.mp4,go,,", "missing_video", "there is no video gone.mp4; rows that speak of it: 1"),
        ("a.mp4,go,0.5,9", "outside_video", "ends at 1.00 s"),
        ("a.mp4,go,7,8", "outside_video", "7 to 8 s"),
        ("a.mp4,go,soon,0.5", "bad_time", "'soon' is not a time"),
        ("a.mp4,go,-1,0.5", "bad_time", "'-1'"),
        ("a.mp4,go,nan,0.5", "bad_time", "'nan'"),
        ("a.mp4,go,0.1,", "bad_time", "None is not a time"),
        ("a.mp4,go,0.5,0.5", "bad_time", "not before"),
        ("a.mp4,go,0.5,0.501", "bad_time", "shorter than a frame"),
        ("a.mp4,,0,0.5", "no_words", "instruction"),
        ("a.mp4,take it, then put it down,0,1", "bad_row", "5 cells for 4 columns"),
        (",go,0,1", "bad_row", "does not name a video"),
        (f"a.mp4,{'x' * 3000},0,1", "bad_row", "3000 characters"),
        ("a.mp4,go,0.2,0.4,", "bad_row", "5 cells"),
    ],
)
def test_a_row_that_cannot_be_used_is_counted(videos: Path, tmp_path: Path, row: str, reason: str, says: str) -> None:
    (videos / "words.csv").write_text(f"file,instruction,start_s,stop_s\nb.mp4,go on,0,0.5\n{row}\n")
    found = scanned(videos, tmp_path / "index")
    assert ("b.mp4", "go on", (0, 10)) in told(found)
    assert [(one.reason, Path(one.item).name) for one in found[1]] == [(reason, "words.csv: line 3")]
    assert says in found[1][0].detail
    about_a = row.startswith("a.mp4")
    assert ("a.mp4" in [name for name, _, _ in told(found)]) != about_a, "nothing is made up for a video with a bad row"


@pytest.mark.parametrize(
    ("row", "reason", "says"),
    [
        ("top,,,,,,", "bad_row", "side"),
        (",50,,,,,", "bad_row", "intrinsics need all of"),
        (",,,,,5,900", "outside_video", "the video has 21"),
        (",,,,,5,", "bad_row", "both of start_frame, end_frame"),
        (",,,,,nan,5", "bad_row", "not a finite number"),
        (",,,,,9,5", "bad_row", "start < end"),
    ],
)
def test_fields_of_a_sidecar_are_checked_as_there(
    videos: Path, tmp_path: Path, row: str, reason: str, says: str
) -> None:
    (videos / "words.csv").write_text(
        f"file,instruction,side,fx,fy,cx,cy,start_frame,end_frame\na.mp4,go,left,50,50,32,24,3,7\nb.mp4,go,{row}\n"
    )
    found = scanned(videos, tmp_path / "index")
    (episode,) = found[0]
    assert episode.sidecar.side == "left" and episode.sidecar.intrinsics is not None and episode.span == (3, 7)
    assert reasons(found) == [("words.csv: line 3", reason)] and says in found[1][0].detail


def test_rows_that_contradict_each_other_are_all_refused(videos: Path, tmp_path: Path) -> None:
    (videos / "words.csv").write_text(
        "file,instruction,start_s,stop_s\na.mp4,open,0,1\na.mp4,close,0,1\na.mp4,wait,0.5,1\nb.mp4,go,,\nb.mp4,go,,\n"
    )
    found = scanned(videos, tmp_path / "index")
    assert [words for _, words, _ in told(found)] == ["wait", "go"]
    assert reasons(found) == [
        ("b.mp4", "duplicate"),
        ("words.csv: line 2", "contradiction"),
        ("words.csv: line 3", "contradiction"),
    ]
    assert "'open'" in found[1][0].detail and "'close'" in found[1][0].detail


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"file,instrction\na.mp4,go\n", "no column instruction"),
        (b"file,instruction,gruop\na.mp4,go,x\n", "unknown column 'gruop', did you mean 'group'?"),
        (b"video,instruction\na.mp4,go\n", "no column names the video"),
        (b"file,instruction,instruction\na.mp4,go,go\n", "columns with one name"),
        (b"file,instruction\n", "no rows"),
        (b"", "no header"),
        (b"file,instruction\na.mp4,\xff\xfe\n", "not UTF-8"),
        (b"file,instruction\na.mp4," + b"x" * (1 << 20), "a line of more than"),
        (b'file,instruction\na.mp4,"' + b"x\n" * 200_000, "field larger than field limit"),
    ],
)
def test_a_table_that_is_not_what_its_name_says_is_one_rejection(
    videos: Path, tmp_path: Path, content: bytes, says: str
) -> None:
    (videos / "words.csv").write_bytes(content)
    found = scanned(videos, tmp_path / "index")
    assert len(found[0]) == 2 and reasons(found) == [("words.csv", "bad_table")]
    assert says in found[1][0].detail
    with pytest.raises(UserError, match="holds no table of layout words"):
        scanned(videos, tmp_path / "named", layout="words")


def test_epic_kitchens(tmp_path: Path, make_video: MakeVideo) -> None:
    """Rows of the published table, one of them overlapping, one of a video that is not there."""
    root = tmp_path / "epic"
    (root / "epic-kitchens-100-annotations").mkdir(parents=True)
    make_video(below(root / "EPIC-KITCHENS/P01/videos/P01_01.MP4"), frames=200, fps=20)
    columns = (
        "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,"
        "stop_frame,narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes\n"
    )
    line = "P01_01_{0},P01,{1},00:00:01.089,{2},{3},8,202,{4},open,3,door,3,\"['door', 'light']\",\"[3, 114]\"\n"
    (root / "epic-kitchens-100-annotations/EPIC_100_train.csv").write_text(
        columns
        + line.format(0, "P01_01", "00:00:00.14", "00:00:03.37", "open door")
        + line.format(1, "P01_01", "00:00:03.00", "00:00:06.17", "turn on light")
        + line.format(2, "P01_02", "00:00:04.37", "00:00:06.17", "close door")
    )
    found = scanned(root, tmp_path / "index", embodiment="other")
    assert told(found) == [("P01_01.MP4", "open door", (3, 67)), ("P01_01.MP4", "turn on light", (60, 123))]
    assert {(one.embodiment, one.license) for one in found[0]} == {("human-hand", "CC-BY-NC-4.0")}
    assert len({one.group for one in found[0]}) == 1
    assert reasons(found) == [("EPIC_100_train.csv: line 4", "missing_video")]
    assert scanned(root, tmp_path / "named", layout="epic-kitchens", embodiment="other") == found


def narration(time: Any, text: str) -> dict[str, Any]:
    return {"timestamp_sec": time, "timestamp_frame": 1, "narration_text": text, "annotation_uid": "x"}


def test_ego4d_moments_become_stretches_up_to_their_neighbours(tmp_path: Path, make_video: MakeVideo) -> None:
    root, uid = tmp_path / "ego", "001e3e4e-2743-47fc-8564-d5efd11f9e90"
    make_video(below(root / f"v2/full_scale/{uid}.mp4"), frames=200, fps=20)
    first = [
        narration(1.0, "#C C picks up a  cup"),
        narration(2.0, "#O A man X walks"),
        narration(7.5, "#c c puts #unsure down"),
        narration(30, "#C C is gone"),
        narration("late", "#C C comes"),
    ]
    passes = {
        "narration_pass_1": {"narrations": first, "summaries": [{"summary_text": "#Summary C cooks"}]},
        "narration_pass_2": {"narrations": [narration(1.5, "#C C lifts the cup")]},
        "status": "complete",
    }
    (root / "narration.json").write_text(json.dumps({uid: passes, "gone": passes}))
    found = scanned(root, tmp_path / "index")
    assert [(words, span) for _, words, span in told(found)] == [
        ("lifts the cup", (0, 70)),  # 2 s around 1.5 s: the other annotator's words are no neighbours
        ("picks up a cup", (0, 30)),  # from 2 s before, that is the beginning, to half way to 2 s
        ("puts something down", (110, 190)),
    ]
    assert sorted(one.reason for one in found[1]) == ["bad_time", "left_out", "missing_video", "outside_video"]
    assert "1 of 6 rows" in next(one.detail for one in found[1] if one.reason == "left_out")


def test_ego4d_as_redacted_goes_by_name(tmp_path: Path, make_video: MakeVideo) -> None:
    make_video(below(tmp_path / "ego/u1.mp4"), frames=100, fps=20)
    content = {"videos": {"u1": {"narrations": [{"time": 2.5, "text": "#C C stirs", "_clip_time_start": 0.0}]}}}
    (tmp_path / "ego/all_narrations_redacted.json").write_text(json.dumps(content))
    assert told(scanned(tmp_path / "ego", tmp_path / "index"))[0][1] == ""
    assert told(scanned(tmp_path / "ego", tmp_path / "named", layout="ego4d-redacted"))[0][1:] == ("stirs", (10, 90))


def test_something_something(tmp_path: Path) -> None:
    root = tmp_path / "ssv2"
    (root / "labels").mkdir(parents=True)
    rows = [{"id": "78687", "label": "holding potato", "template": "Holding [something]", "placeholders": ["potato"]}]
    (root / "labels/train.json").write_text(json.dumps([*rows, {"id": 9, "label": "x"}, {"id": "78687"}]))
    film(root / "20bn-something-something-v2/78687.webm", [k / 12 for k in range(12)], "libvpx")
    found = scanned(root, tmp_path / "index")
    assert [words for _, words, _ in told(found)] == ["holding potato"]
    assert [one.reason for one in found[1]] == ["no_words", "missing_video"]


def test_rh20t_cameras_of_a_scene_are_one_group_and_people_are_told_from_robots(
    tmp_path: Path, make_video: MakeVideo
) -> None:
    root, scene = tmp_path / "RH20T", "RH20T_cfg3/task_0001_user_0016_scene_0001_cfg_0003"
    for number, name in enumerate((f"{scene}/cam_1", f"{scene}/cam_2", f"{scene}_human/cam_1")):
        for kind in ("color", "depth"):
            make_video(below(root / name / f"{kind}.mp4"), frames=10 + number, fps=10)
    (root / scene / "metadata.json").write_text('{"rating": 9}')
    said = {"task_0001": {"task_description_english": "press the button"}, "task_0002": {}}
    (root / "task_description.json").write_text(json.dumps(said))
    found = scanned(root, tmp_path / "index")
    assert {words for _, words, _ in told(found)} == {"press the button"} and len(found[0]) == 3
    assert sorted((one.embodiment, one.sidecar.effector) for one in found[0]) == [
        ("human-hand", "hand"),
        ("ur5", "gripper"),
        ("ur5", "gripper"),
    ]
    assert {one.group for one in found[0]} == {"task_0001-0016-0001"}
    assert sorted(one.reason for one in found[1]) == ["left_out"] * 3 + ["missing_video", "not_a_video"]


def test_a_mapping_of_ones_own(videos: Path, tmp_path: Path) -> None:
    layout = tmp_path / "mine.yaml"
    layout.write_text(
        "{format: video, name: mine, tables: [notes.tsv], videos: [{path: '**/{clip}.*', robot: UR 5e}],"
        " instruction: [better, text], start: [from_ms], stop: [to_ms], unit_s: 0.001, group: [kitchen],"
        " sidecar: {task: kind}}"
    )
    (videos / "notes.tsv").write_text(
        "clip\ttext\tbetter\tfrom_ms\tto_ms\tkitchen\tkind\na\tgo\trun\t100\t900\t7\tmove\n"
    )
    found = scanned(videos, tmp_path / "index", layout=layout)
    episode = next(one for one in found[0] if one.path.name == "a.mp4")
    assert (episode.instruction, episode.span, episode.group) == ("run", (2, 18), "7")
    assert (episode.embodiment, episode.sidecar.task) == ("ur-5e", "move")
    (videos / "notes.tsv").write_text("clip\ttext\nb\tgo\n")
    with pytest.raises(UserError, match="no column from_ms, to_ms, kind"):
        scanned(videos, tmp_path / "other", layout=layout)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{format: video, name: x, tables: ['../*.csv'], videos: [{path: '{a}'}], instruction: [b]}", "below a folder"),
        ("{format: video, name: x, tables: [a.csv], videos: [{path: '{a}{a}'}], instruction: [b]}", "be there once"),
        ("{format: video, name: x, tables: [a.csv], videos: [{path: '{a}'}], instruction: [b], start: [c]}", "stop"),
        ("{format: video, name: x, tables: [a.csv], videos: [{path: '{a}'}], instruction: [b], run: ls}", "run"),
    ],
)
def test_a_layout_that_is_wrong_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=says):
        read_layout(tmp_path / "mine.yaml")


def test_layouts_are_known_by_name(videos: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Did you mean 'epic-kitchens'"):
        scanned(videos, tmp_path / "index", layout="epic-kitchen")
    with pytest.raises(UserError, match="is for kind: data_set"):
        scanned(videos, tmp_path / "index", layout="robomimic")
    with pytest.raises(UserError, match=r"holds no table.*EPIC_100_train\.csv"):
        scanned(videos, tmp_path / "index", layout="epic-kitchens")
    assert {one.name for one in shipped() if isinstance(one, VideosLayout)} >= {"words", "ego4d", "rh20t"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"a.mp4": "go"',
        b"\xff\xfe",
        b"[" * 5000,
        b'{"a.mp4": ' + b'{"b":' * 200,
        b'{} {"a.mp4": "go"}',
        b"[1]",
    ],
)
def test_damaged_json_is_one_rejection(videos: Path, tmp_path: Path, content: bytes) -> None:
    (videos / "lang_annotations.json").write_bytes(content)
    found = scanned(videos, tmp_path / "index")
    assert {words for _, words, _ in told(found)} == {""} and len(found[0]) == 2
    assert reasons(found) == [("lang_annotations.json", "bad_table")]


def test_random_damage_to_tables_is_never_more_than_a_rejection(videos: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    whole = {
        "words.csv": b'file,instruction,start_s,stop_s\na.mp4,go,0,0.5\nb.mp4,"stop, now",0,1\n',
        "lang_annotations.json": json.dumps({"a.mp4": "go", "b.mp4": "stop"}).encode(),
    }
    for number in range(12):
        for name, content in whole.items():
            data, at = bytearray(content), int(rng.integers(len(content)))
            data[at : at + int(rng.choice([1, 8, 100]))] = rng.bytes(int(rng.choice([0, 1, 8])))
            (videos / name).write_bytes(data)
        scanned(videos, tmp_path / "index" / str(number % 2))


def test_large_json_passes_through_without_being_held(tmp_path: Path) -> None:
    """Rows come one by one while the file is read, and what is not at their place is never built."""
    import tracemalloc

    path = tmp_path / "narration.json"
    texts = [narration(k, f"#C C moves {'x' * 1000}") for k in range(2000)]
    path.write_text(json.dumps({"u": {"other": texts, "narration_pass_1": {"narrations": texts}}}))
    layout = read_layout(Path("ego4d"))
    assert isinstance(layout, VideosLayout)
    tracemalloc.start()
    assert sum(1 for _ in rows(path, layout.rows)) == 2000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < path.stat().st_size / 8


def film(path: Path, times: list[float], codec: str = "libx264") -> None:
    """A video whose frames are shown at these times; each is brighter than the one before."""
    with av.open(str(below(path)), "w") as container:
        stream: Any = container.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt, stream.time_base = 64, 48, "yuv420p", Fraction(1, 1000)
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 5 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(1000 * time), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_seconds_of_a_video_of_variable_rate_are_its_own(tmp_path: Path) -> None:
    """20 frames in the first second, 5 in the second: a mean rate would be off by 7 frames."""
    times = [*np.arange(20) / 20, *(1 + np.arange(6) / 5)]
    film(tmp_path / "set/a.mp4", times)
    (tmp_path / "set/words.csv").write_text("file,instruction,start_s,stop_s\na.mp4,go,0.5,1.4\na.mp4,end,1.0,2.0\n")
    found = scanned(tmp_path / "set", tmp_path / "index")
    assert not found[1]
    shown = {one.instruction: [frame.time for frame in EpisodeReader(one).frames(None)] for one in found[0]}
    assert shown["go"] == pytest.approx([*np.arange(10, 20) / 20, 1.0, 1.2], abs=2e-3)
    assert shown["end"] == pytest.approx([1.0, 1.2, 1.4, 1.6, 1.8], abs=2e-3)


def test_real_annotations_are_taken_as_they_lie(footage: Path, tmp_path: Path) -> None:
    """RT-1 clips with lang_annotations.json: 10 rows, 6 videos."""
    found = scanned(footage / "robot/rt1", tmp_path / "index", effector="gripper", embodiment="google-robot")
    said = json.loads((footage / "robot/rt1/lang_annotations.json").read_text())
    assert len(found[0]) == 6 and all(one.instruction == said[one.path.name] for one in found[0])
    assert sorted(one.reason for one in found[1]) == ["missing_video"] * 4 + ["not_a_video"]
    assert all(len(list(EpisodeReader(one).frames(None))) == one.frames for one in found[0])


@pytest.mark.parametrize(
    ("value", "expected"),
    [("12.5", 12.5), ("0:00:12.5", 12.5), ("1:02:03", 3723), ("02:03.25", 123.25), (7, 7), (0.5, 0.5), (".5", 0.5)],
)
def test_times_are_seconds(value: Any, expected: float) -> None:
    assert seconds(value, 1.0) == expected


@pytest.mark.parametrize("value", ["", "1,5", "12:3:4:5", "٣", "inf", None, True, [1], "1e999", -0.1, float("nan")])
def test_what_is_no_time_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="is not a time"):
        seconds(value, 1.0)


def test_stretches_around_moments_meet_and_reach_no_further() -> None:
    found = around([5.0, 1.0, 1.5, 5.0, 20.0], 2.0)
    assert found == {1.0: (0.0, 1.25), 1.5: (1.25, 3.25), 5.0: (3.25, 7.0), 20.0: (18.0, 22.0)}


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("**/{v}.*", "P01/videos/P01_01.MP4", {"v": "P01_01"}),
        ("**/{v}.*", "a.b.mp4", {"v": "a.b"}),
        ("{f}", "deep/a.mp4", {"f": "deep/a.mp4"}),
        ("x/{v}.mp4", "x/y/z.mp4", None),
        ("**/{s}/cam_*/color.mp4", "p/q/r/cam_1/color.mp4", {"s": "r"}),
        ("a+b/{v}", "a+b/c", {"v": "c"}),
    ],
)
def test_patterns(pattern: str, path: str, expected: dict[str, str] | None) -> None:
    assert matched(pattern, path) == expected


@pytest.mark.parametrize("pattern", ["/abs", "a/../b", "..", "", "a//b", "{A}", "{a", "[ab]", "a/**/b/{x}{x}"])
def test_patterns_stay_inside(pattern: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        sound(pattern)


def test_an_unreadable_table_is_told(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="bad_table"):
        list(rows(tmp_path / "none.json", ["*"]))
