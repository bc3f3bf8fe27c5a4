"""The model file: pinned, cached, and asked for in words a user can act on."""

from __future__ import annotations

import zipfile

import pytest

from extract.hand import bundle
from pipeline.errors import UserError


@pytest.fixture(scope="module")
def networks() -> dict[str, bytes]:
    with zipfile.ZipFile(bundle.hand_bundle()) as archive:
        return {name: archive.read(name) for name in bundle.NETWORKS}


@pytest.fixture
def offline(monkeypatch, tmp_path):
    def refuse(*_: object) -> bytes:
        raise OSError("no route to host")

    monkeypatch.setenv("KINECLOUD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(bundle, "_downloaded", refuse)
    monkeypatch.setattr(bundle, "_made_from_wheel", refuse)
    return tmp_path


def test_a_made_bundle_has_the_same_bytes_every_time(networks):
    assert bundle.make_bundle(networks) == bundle.make_bundle(dict(reversed(networks.items())))


def test_without_any_source_the_remedy_is_named(offline):
    with pytest.raises(UserError, match=r"(?s)no route to host.*extract\.hand\.bundle") as error:
        bundle.hand_bundle()
    assert str(offline) in str(error.value)


def test_a_changed_network_is_refused(offline, networks):
    changed = dict(networks)
    changed["hand_detector.tflite"] = changed["hand_detector.tflite"][:-1] + b"x"
    path = offline / "changed.task"
    path.write_bytes(bundle.make_bundle(changed))
    with pytest.raises(UserError, match=r"changed\.task.*hand_detector\.tflite.*sha256"):
        bundle.hand_bundle(path)


def test_a_missing_configured_bundle_is_named(offline):
    with pytest.raises(UserError, match=r"extract\.hand\.bundle.*absent\.task"):
        bundle.hand_bundle(offline / "absent.task")


def test_the_cache_is_used_and_a_broken_cache_is_not(offline, networks, monkeypatch):
    monkeypatch.setattr(bundle, "_made_from_wheel", lambda: bundle.make_bundle(networks))
    cached = bundle.hand_bundle()
    assert cached.is_relative_to(offline)
    cached.write_bytes(b"half a file")
    assert bundle.hand_bundle().read_bytes() == bundle.make_bundle(networks)
    monkeypatch.setattr(bundle, "_made_from_wheel", lambda: pytest.fail("the cache was not used"))
    assert bundle.hand_bundle() == cached
