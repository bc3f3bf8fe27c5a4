"""SAM 2: its own path from checkpoint folder to masks, with a tiny network of the real architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from extract.models import exact_inference
from extract.preprocess import pixel_values
from extract.segment.sam2 import IMAGENET_MEAN, IMAGENET_STD, Sam2, Sam2Settings
from extract.steps import BoxDetection
from pipeline.errors import UserError
from tests.tiny_models import make_shot, rewrite_json, tiny_sam2

BOX = np.array([8.0, 12.0, 30.0, 30.0])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sam2(tmp_path_factory.mktemp("sam2") / "tiny")


@pytest.fixture
def segment(checkpoint: Path) -> Sam2:
    return Sam2(Sam2Settings(checkpoint=str(checkpoint), device="cpu"))


def seen_at(count: int, **scores: float) -> list[BoxDetection | None]:
    """A box in some frames: ``f3=0.5`` is frame 3 with score 0.5."""
    return [BoxDetection("gripper", scores[f"f{i}"], BOX) if f"f{i}" in scores else None for i in range(count)]


def by_the_library(checkpoint: Path, count: int, prompt: int, reverse: bool) -> dict[int, np.ndarray]:
    """Masks of the library's own propagation through a video that it holds as a whole."""
    import torch
    from transformers import Sam2VideoModel
    from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

    model = Sam2VideoModel.from_pretrained(checkpoint).eval()
    images = [frame.image for frame in make_shot(count, 48, 64).frames]
    like = next(model.parameters())
    video = pixel_values(images, (64, 64), {}, IMAGENET_MEAN, IMAGENET_STD, like, antialias=True)
    session = Sam2VideoInferenceSession(video=video, video_height=48, video_width=64, dtype=torch.float32)
    session.add_point_inputs(
        session.obj_id_to_idx(1),
        prompt,
        {
            "point_coords": torch.tensor(BOX * [1, 64 / 48, 1, 64 / 48]).float().view(1, 1, 2, 2),
            "point_labels": torch.tensor([[[2, 3]]], dtype=torch.int32),
        },
    )
    session.obj_with_new_inputs = [1]
    masks = {}
    with exact_inference():
        for output in model.propagate_in_video_iterator(session, prompt, reverse=reverse):
            assert output.pred_masks is not None
            logits = torch.nn.functional.interpolate(output.pred_masks, (48, 64), mode="bilinear")
            masks[output.frame_idx] = (logits[0, 0] > 0).numpy()
    return masks


def test_masks_are_those_of_the_librarys_own_propagation_both_ways(checkpoint: Path, segment: Sam2) -> None:
    count, prompt = 24, 19  # more frames on one side than the network looks back on
    ours = segment(make_shot(count, 48, 64), seen_at(count, f3=0.4, f19=0.8))
    assert len({mask.tobytes() for mask in ours if mask is not None}) > 5
    for reverse in (False, True):
        for slot, theirs in by_the_library(checkpoint, count, prompt, reverse).items():
            mask = ours[slot]
            np.testing.assert_array_equal(theirs, np.zeros_like(theirs) if mask is None else mask)


def test_masks_have_the_frames_size_and_the_best_box_is_the_prompt(segment: Sam2) -> None:
    shot = make_shot(4, 48, 64)
    best = segment(shot, seen_at(4, f1=0.4, f2=0.9))
    only = segment(shot, seen_at(4, f2=0.3))
    for one, other in zip(best, only, strict=True):
        assert one is not None and one.dtype == bool and one.shape == (48, 64)
        np.testing.assert_array_equal(one, other)


def test_nothing_seen_gives_no_masks_and_small_ones_count_as_none(checkpoint: Path, segment: Sam2) -> None:
    assert segment(make_shot(3, 48, 64), [None, None, None]) == [None, None, None]
    assert segment(make_shot(0, 48, 64), []) == []
    strict = Sam2(Sam2Settings(checkpoint=str(checkpoint), device="cpu", min_mask_px=48 * 64 + 1))
    assert strict(make_shot(2, 48, 64), seen_at(2, f0=0.5)) == [None, None]


def test_memory_does_not_grow_with_the_clip(segment: Sam2, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.sam2_video import modeling_sam2_video

    sessions: list[Any] = []

    class Watched(modeling_sam2_video.Sam2VideoInferenceSession):
        def __init__(self, **values: Any):
            super().__init__(**values)
            sessions.append(self)

    monkeypatch.setattr(modeling_sam2_video, "Sam2VideoInferenceSession", Watched)
    segment(make_shot(40, 48, 64), seen_at(40, f0=0.5))
    (session,) = sessions
    remembered = session.output_dict_per_obj[0]["non_cond_frame_outputs"]
    assert not session.processed_frames and len(remembered) <= 16
    assert not any("high_res_masks" in output for output in remembered.values())


def test_pictures_are_normalised_as_the_checkpoint_says(checkpoint: Path, tmp_path: Path) -> None:
    import shutil

    shot, seen = make_shot(2, 48, 64), seen_at(2, f0=0.5)
    folder = Path(shutil.copytree(checkpoint, tmp_path / "other"))
    rewrite_json(folder / "preprocessor_config.json", image_mean=[0.0, 0.0, 0.0], image_std=[0.1, 0.1, 0.1])
    masks = [Sam2(Sam2Settings(checkpoint=str(path), device="cpu"))(shot, seen)[0] for path in (checkpoint, folder)]
    assert masks[0] is not None and masks[1] is not None and (masks[0] != masks[1]).any()


def test_half_precision_runs(checkpoint: Path) -> None:
    half = Sam2(Sam2Settings(checkpoint=str(checkpoint), device="cpu", dtype="bfloat16"))
    masks = half(make_shot(9, 48, 64), seen_at(9, f0=0.5))
    assert len(masks) == 9 and any(mask is not None for mask in masks)


def test_the_checkpoint_of_another_model_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(checkpoint, tmp_path / "other"))
    rewrite_json(folder / "config.json", model_type="sam2")
    with pytest.raises(UserError, match="this step needs 'sam2_video'"):
        Sam2(Sam2Settings(checkpoint=str(folder), device="cpu"))(make_shot(1, 48, 64), seen_at(1, f0=0.5))
