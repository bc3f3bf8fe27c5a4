"""Arrays beside a video: whatever is damaged about them rejects the episode, by the name of the file."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from data.footage import Video
from data.video import Unreadable
from extract.gripper.labelled import has_array
from extract.gripper.registered.model import load_model
from pipeline.errors import UserError

FRAMES = 6


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


SOUND = npz(depth=np.ones((FRAMES, 4, 4), np.float32))
DAMAGED = [b"", b"no archive", b"PK\x03\x04", SOUND[:-30], SOUND[:200], npy(np.ones(3))]
CHANGED = [SOUND.replace(b"(6, 4, 4)", text) for text in (b"(((((((((", b"(6, 4, 4,", b"(9**9**9)")]


def video(path: Path, content: bytes) -> Any:
    path.write_bytes(content)
    sidecar = SimpleNamespace(effector="mask", labelled=False)
    return cast(Any, SimpleNamespace(arrays_path=path, path=path, frames=FRAMES, height=4, width=4, sidecar=sidecar))


@pytest.mark.parametrize("content", [*DAMAGED, *CHANGED, npz(depth=np.float32(1)), npz(depth=np.ones((2, 4, 4)))])
def test_damaged_arrays_reject_their_episode(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(Unreadable, match=r"clip\.npz") as error:
        _ = Video(video(tmp_path / "clip.npz", content)).arrays
    assert error.value.reason == "bad_arrays"


@pytest.mark.parametrize("content", DAMAGED)
def test_damaged_archives_hold_no_array_and_are_no_model(tmp_path: Path, content: bytes) -> None:
    assert has_array(video(tmp_path / "sound.npz", SOUND), "depth")
    assert not has_array(video(tmp_path / "clip.npz", content), "depth")
    with pytest.raises(UserError, match=r"clip\.npz cannot be read as a gripper model"):
        load_model(tmp_path / "clip.npz")
