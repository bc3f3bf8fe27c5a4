"""What pipeline/quickstart.sh says of words that it cannot follow, before it makes or runs anything."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pipeline.config import load

SCRIPT = Path(__file__).resolve().parent.parent / "pipeline/quickstart.sh"


def said(folder: Path, *words: str) -> tuple[int, str]:
    """Exit status and everything that was said, called from a folder."""
    done = subprocess.run(
        ["bash", str(SCRIPT), *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=30,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("option", ["--videos", "--data-set"])
def test_a_folder_that_is_not_there_is_named(tmp_path: Path, option: str) -> None:
    (tmp_path / "file").write_text("no folder")
    for words in ("nothing", "file"):
        assert said(tmp_path, option, words) == (2, f"quickstart: {option} {words} is not a folder\n")


def test_folders_are_taken_from_where_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    code, words = said(tmp_path, "--videos", "videos", "--data-set", "nothing")
    assert (code, words) == (2, "quickstart: --data-set nothing is not a folder\n")
    code, words = said(tmp_path, "--data-set", "videos", "--videos", "nothing")
    assert code == 2 and "actions are taken for" in words and words.endswith("--videos nothing is not a folder\n")
    meant = "index.sources.0.actions={unit: rad, frame: joints, mode: absolute}"
    code, words = said(tmp_path, "--data-set", "videos", "--videos", "nothing", "--set", meant)
    assert (code, words) == (2, "quickstart: --videos nothing is not a folder\n")


def test_a_url_is_no_folder_here(tmp_path: Path) -> None:
    code, words = said(tmp_path, "--data-set", "hf://datasets/lab/demos", "--videos", "nothing")
    assert code == 2 and words.endswith("quickstart: --videos nothing is not a folder\n")
    assert "hf://" not in words


@pytest.mark.parametrize("name", ["Take #2", "Lab: one", "it's {here}", "50 %", "~", "-x", "a\\b"])
def test_folders_of_any_name_reach_the_configuration_as_they_are(tmp_path: Path, name: str) -> None:
    (function,) = (line for line in SCRIPT.read_text().splitlines() if line.startswith("quoted() {"))
    word = subprocess.run(
        ["bash", "-c", f'{function}\nquoted "$1"', "-", f"/data/{name}"], capture_output=True, text=True
    )
    config = tmp_path / "c.yaml"
    config.write_text("run: {}\n")
    assert load(config, [f"run.out={word.stdout}"]).run.out == Path(f"/data/{name}")


def test_unknown_words_and_words_without_value(tmp_path: Path) -> None:
    assert said(tmp_path, "--video", "x") == (2, "quickstart: unknown option --video (see --help)\n")
    code, words = said(tmp_path, "--out")
    assert code != 0 and "--out needs a folder" in words
    assert said(tmp_path, "--set", "run.out=x") == (2, "quickstart: --set run.out=x: say --out x\n")
    code, words = said(tmp_path, "--help")
    assert code == 0 and all(option in words for option in ("--data-set", "--videos", "--out", "--set"))
