"""The folder of real footage: told when it is not what is needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import UserError
from tests.footage import FOOTAGE, footage_folder


def test_no_folder_is_no_error_but_a_wrong_one_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(FOOTAGE, raising=False)
    assert footage_folder("human/**/*.mp4") is None
    monkeypatch.setenv(FOOTAGE, str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="no such folder"):
        footage_folder()


def test_a_folder_without_what_is_needed_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(FOOTAGE, str(tmp_path))
    assert footage_folder() == tmp_path
    with pytest.raises(UserError, match="holds no human/"):
        footage_folder("human/**/*.mp4")
    (tmp_path / "human" / "cups").mkdir(parents=True)
    (tmp_path / "human" / "cups" / "cups.mp4").touch()
    assert footage_folder("human/**/*.mp4") == tmp_path
