"""Data sets by hf://, through huggingface_hub's own client, from a server that answers as the hub does."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub.constants
import pytest
from fsspec import config as fsspec_config

from data.config import IndexConfig
from data.reader import EpisodeReader
from pipeline import services
from pipeline.errors import UserError
from tests import source_files as made
from tests.hub_server import SET, Hub
from tests.indexed import indexed


def test_videos_whose_checksum_the_hub_tells_are_brought_when_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scanned(path: str) -> IndexConfig:
        return IndexConfig.model_validate({"sources": [{"name": "theirs", "kind": "data_set", "path": path}]})

    hub = Hub(made.lerobot_21(tmp_path / "set"))
    monkeypatch.setenv("KINECLOUD_CACHE", str(tmp_path))
    monkeypatch.setitem(fsspec_config.conf, "hf", {"endpoint": hub.url, "token": False})
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    services.service.cache_clear()
    services._file_system.cache_clear()
    try:
        expected, _ = indexed(scanned(str(tmp_path / "set")), tmp_path / "local")
        episodes, rejected = indexed(scanned(f"hf://datasets/{SET}"), tmp_path / "index")
        assert [one.episode_id for one in episodes] == [one.episode_id for one in expected] and not rejected
        assert hub.sent and not [name for name in hub.sent if name.endswith(".mp4")]
        for one, other in zip(episodes, expected, strict=True):
            ours, theirs = (list(EpisodeReader(episode).frames(None)) for episode in (one, other))
            assert [frame.image.tobytes() for frame in ours] == [frame.image.tobytes() for frame in theirs]
        assert sum(name.endswith(".mp4") for name in hub.sent) == 3, "each once"
        with pytest.raises(UserError, match="hf://datasets/team/none is not a folder"):
            indexed(scanned("hf://datasets/team/none"), tmp_path / "index")
    finally:
        hub.stop()
        services.service.cache_clear()
        services._file_system.cache_clear()
