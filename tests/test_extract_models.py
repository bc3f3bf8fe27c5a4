"""Checkpoints: what cannot be used is refused with a remedy, and what is used is known by its checksum."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from extract.detect.grounding_dino import GroundingDino, GroundingDinoSettings
from extract.models import device_of, exact_inference, find_checkpoint
from extract.preprocess import pixel_values
from extract.segment.sam2 import IMAGENET_MEAN, IMAGENET_STD
from pipeline.errors import UserError
from pipeline.weights import INDEX, WEIGHTS
from tests.beside_torchvision import run_beside_torchvision
from tests.tiny_models import make_shot, rewrite_json, tiny_grounding_dino


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_grounding_dino(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def checkpoint(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def settings(checkpoint: Path | str, **values: Any) -> GroundingDinoSettings:
    return GroundingDinoSettings.model_validate({"checkpoint": str(checkpoint), "device": "cpu"} | values)


def run(checkpoint: Path, **values: Any) -> None:
    shot = make_shot(1, 48, 64)
    list(GroundingDino(settings(checkpoint, **values))(shot.frames, shot.camera))


def test_weights_are_known_by_their_checksum_wherever_they_lie(whole: Path, checkpoint: Path) -> None:
    expected = {f"grounding-dino/{WEIGHTS}": hashlib.sha256((whole / WEIGHTS).read_bytes()).hexdigest()}
    for folder in (whole, checkpoint):
        assert GroundingDino(settings(folder)).weights_sha256 == expected


def test_weights_in_several_files_are_all_counted(whole: Path, tmp_path: Path) -> None:
    from transformers import GroundingDinoForObjectDetection

    shutil.copytree(whole, tmp_path / "sharded", ignore=shutil.ignore_patterns("*.safetensors"))
    model = GroundingDinoForObjectDetection.from_pretrained(whole)
    model.save_pretrained(tmp_path / "sharded", max_shard_size="200KB")
    detector = GroundingDino(settings(tmp_path / "sharded"))
    assert len(detector.weights_sha256) == len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    run(tmp_path / "sharded")
    next((tmp_path / "sharded").glob("*.safetensors")).unlink()
    with pytest.raises(UserError, match=INDEX):
        find_checkpoint(settings(tmp_path / "sharded"))


def test_a_checkpoint_on_the_hub_that_cannot_be_had_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        UserError, match=r"(?s)nobody/nothing-of-this-name \(revision v2\).*hf download .*--revision v2"
    ):
        find_checkpoint(settings("nobody/nothing-of-this-name", revision="v2"))


@pytest.mark.parametrize("source", ["/no/such/folder", "./nowhere", "justaname"])
def test_a_path_that_is_not_there_is_never_looked_for_on_the_hub(source: str) -> None:
    with pytest.raises(UserError, match="neither a folder nor an id"):
        find_checkpoint(settings(source))


def test_pickled_weights_are_never_read(checkpoint: Path) -> None:
    (checkpoint / WEIGHTS).rename(checkpoint / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"only pytorch_model\.bin\. Pickled weights can run code"):
        find_checkpoint(settings(checkpoint))


def test_a_network_with_missing_parameters_is_refused(checkpoint: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(checkpoint / WEIGHTS)
    del tensors[next(name for name in tensors if "fusion_layer" in name)]
    save_file(tensors, checkpoint / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(UserError, match="1 parameters of GroundingDinoForObjectDetection are not in its weights"):
        run(checkpoint)


def test_weights_of_another_shape_are_refused(checkpoint: Path) -> None:
    rewrite_json(checkpoint / "config.json", decoder_ffn_dim=24)
    with pytest.raises(UserError, match=str(checkpoint)):
        run(checkpoint)


def test_another_kind_of_model_is_refused_by_name(checkpoint: Path) -> None:
    rewrite_json(checkpoint / "config.json", model_type="depth_anything")
    with pytest.raises(UserError, match="model_type is 'depth_anything', this step needs 'grounding-dino'"):
        run(checkpoint)


def test_broken_files_are_named(checkpoint: Path) -> None:
    (checkpoint / WEIGHTS).write_bytes(b"\0" * 100)
    with pytest.raises(UserError, match="cannot be loaded as GroundingDinoForObjectDetection"):
        run(checkpoint)
    (checkpoint / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json cannot be read as JSON"):
        run(checkpoint)
    (checkpoint / "config.json").unlink()
    with pytest.raises(UserError, match=r"has no config\.json"):
        run(checkpoint)


def test_processes_are_dealt_out_to_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    found = []
    for process in range(100, 108):
        monkeypatch.setattr("os.getpid", lambda process=process: process)
        found.append(str(device_of("auto")))
    assert sorted(found) == sorted([f"cuda:{index}" for index in range(4)] * 2)
    assert str(device_of("cpu")) == "cpu"


def test_a_device_that_is_not_there_is_an_error_and_auto_is_not(checkpoint: Path) -> None:
    run(checkpoint, device="auto")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="cuda was asked for"):
            run(checkpoint, device="cuda")


def test_networks_run_on_one_thread_without_gradients_and_leave_the_setting_as_it_was() -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with exact_inference():
            assert torch.get_num_threads() == 1 and torch.is_inference_mode_enabled()
        assert torch.get_num_threads() == 2 and not torch.is_inference_mode_enabled()
    finally:
        torch.set_num_threads(threads)


def noise_picture() -> np.ndarray:
    """u8 [900,2000,3]: made smaller along one side and larger along the other."""
    return cv2.resize(np.random.default_rng(0).integers(0, 256, (300, 1000, 3), dtype=np.uint8), (2000, 900))


def prepared_by_processors(folder: Path) -> None:
    """``noise_picture`` by the image processors of transformers, as .npy [1,3,h,w]."""
    from transformers import DepthProImageProcessor, Sam2ImageProcessor

    for name, processor in (("sam2", Sam2ImageProcessor()), ("depth_pro", DepthProImageProcessor())):
        prepared = processor(images=noise_picture(), return_tensors="pt")["pixel_values"]
        np.save(folder / f"{name}.npy", prepared.numpy())


def test_pictures_are_prepared_as_by_the_networks_own_processors(tmp_path: Path) -> None:
    run_beside_torchvision(prepared_by_processors, tmp_path)
    half, one_grey_level = (0.5, 0.5, 0.5), 1.02 / 255 / min(IMAGENET_STD)
    cases = (
        ("sam2", IMAGENET_MEAN, IMAGENET_STD, 1024, True, one_grey_level),
        ("depth_pro", half, half, 1536, False, 1e-5),
    )
    for name, mean, std, side, antialias, tolerance in cases:
        ours = pixel_values([noise_picture()], (side, side), {}, mean, std, torch.zeros(1), antialias).numpy()
        assert np.abs(np.load(tmp_path / f"{name}.npy") - ours).max() < tolerance


def test_half_precision_runs(checkpoint: Path) -> None:
    run(checkpoint, dtype="bfloat16")
