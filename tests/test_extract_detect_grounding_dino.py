"""Grounding DINO: its own path from checkpoint folder to boxes, with a tiny network of the real architecture."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from extract.detect.grounding_dino import GroundingDino, GroundingDinoSettings, overlap, prompt_spans
from extract.steps import BoxDetection
from pipeline.errors import UserError
from tests.tiny_models import make_shot, tiny_grounding_dino


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_grounding_dino(tmp_path_factory.mktemp("dino") / "tiny")


def detect(checkpoint: Path, count: int = 5, **values: object) -> list[list[BoxDetection]]:
    """Boxes in ``count`` frames, in every one unless told otherwise."""
    defaults = {"prompts": ("robot gripper", "hand"), "box_threshold": 0.1, "text_threshold": 0.05, "device": "cpu"}
    settings = GroundingDinoSettings.model_validate({"checkpoint": str(checkpoint)} | defaults | values)
    detector = GroundingDino(settings)
    shot = make_shot(count, 48, 64)
    pairs = list(detector(iter(shot.frames), shot.camera))
    assert [frame for frame, _ in pairs] == list(shot.frames)
    return [list(found) for _, found in pairs]  # pyright: ignore


def test_boxes_lie_in_the_picture_best_first_and_at_most_so_many_per_prompt(checkpoint: Path) -> None:
    for limit in (1, 3):
        found = detect(checkpoint, max_boxes=limit)
        assert any(found)
        for boxes in found:
            scores = [box.score for box in boxes]
            assert scores == sorted(scores, reverse=True) and all(0.1 <= score <= 1 for score in scores)
            for label in ("robot gripper", "hand"):
                assert sum(box.label == label for box in boxes) <= limit
            for box in boxes:
                assert (box.box_4[:2] < box.box_4[2:]).all()
                assert (box.box_4 >= 0).all() and (box.box_4 <= [64, 48, 64, 48]).all()
            pairs = [(a, b) for a in boxes for b in boxes if a is not b]
            assert all(overlap(a.box_4, b.box_4) < 0.7 for a, b in pairs)


def test_best_box_and_score_are_those_of_the_models_own_processing(checkpoint: Path) -> None:
    import torch
    from transformers import AutoTokenizer, GroundingDinoForObjectDetection, GroundingDinoImageProcessorPil
    from transformers.models.grounding_dino.processing_grounding_dino import GroundingDinoProcessor

    image = make_shot(1, 48, 64).frames[0].image
    model = GroundingDinoForObjectDetection.from_pretrained(checkpoint).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    processor = GroundingDinoProcessor(GroundingDinoImageProcessorPil.from_pretrained(checkpoint), tokenizer)
    with torch.inference_mode():
        inputs = processor(images=image, text="robot gripper.", return_tensors="pt")  # pyright: ignore
        output = model(**inputs)
    theirs = processor.post_process_grounded_object_detection(output, inputs["input_ids"], 0.0, 0.0, [(48, 64)])[0]
    best = int(theirs["scores"].argmax())
    ours = detect(checkpoint, 1, prompts=("robot gripper",))[0][0]
    assert ours.score == pytest.approx(float(theirs["scores"][best]), abs=1e-5)
    np.testing.assert_allclose(ours.box_4, np.clip(theirs["boxes"][best].numpy(), 0, [64, 48, 64, 48]), atol=1e-3)


def test_frames_between_are_passed_on_without_boxes_and_few_are_held_back(checkpoint: Path) -> None:
    settings = GroundingDinoSettings(
        checkpoint=str(checkpoint), prompts=("hand",), box_threshold=0.01, text_threshold=0, every=3, batch=2
    )
    taken = 0
    shot = make_shot(8, 48, 64)

    def frames():
        nonlocal taken
        for frame in shot.frames:
            taken += 1
            yield frame

    found = []
    for position, (_, boxes) in enumerate(GroundingDino(settings)(frames(), shot.camera)):
        assert taken - position <= 6
        found.append(bool(boxes))
    assert found == [position % 3 == 0 for position in range(8)]


def test_batches_change_nothing_but_rounding(checkpoint: Path) -> None:
    alone, together = (detect(checkpoint, batch=batch, max_boxes=2) for batch in (1, 5))
    for ones, others in zip(alone, together, strict=True):
        assert [box.label for box in ones] == [box.label for box in others]
        for one, other in zip(ones, others, strict=True):
            np.testing.assert_allclose(one.box_4, other.box_4, atol=1e-2)


def test_same_bytes_with_any_number_of_threads(checkpoint: Path) -> None:
    import torch

    threads = torch.get_num_threads()
    bytes_of = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            bytes_of.append([(box.score, box.box_4.tobytes()) for boxes in detect(checkpoint) for box in boxes])
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert bytes_of[0] == bytes_of[1] and bytes_of[0]


def test_a_box_must_answer_to_the_whole_prompt(checkpoint: Path) -> None:
    detector = GroundingDino(GroundingDinoSettings(checkpoint=str(checkpoint), prompts=("robot gripper", "hand")))
    spans = prompt_spans([101, 1030, 1031, 1032, 1012, 1033, 1012, 102], 1012)
    assert spans == [slice(1, 4), slice(5, 6)]
    boxes = np.array([[0.25, 0.5, 0.2, 0.4], [0.75, 0.5, 0.2, 0.4], [0.5, 0.5, 0.2, 0.4]])
    probability_QL = np.zeros((3, 8))
    probability_QL[0, 1] = 0.6  # only "robot": mean 0.2 over its three tokens
    probability_QL[1, 1:4] = 0.3, 0.5, 0.4
    probability_QL[2, 5] = 0.45
    found = detector._chosen(probability_QL, boxes, spans, (100, 200))
    assert [(box.label, box.score) for box in found] == [("robot gripper", 0.5), ("hand", 0.45)]
    np.testing.assert_allclose(found[0].box_4, [130, 30, 170, 70])


@pytest.mark.parametrize("prompts", [(), ("a. b",), ("",), ("hand", " Hand")])
def test_prompts_that_cannot_be_told_apart_are_refused(prompts: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError):
        GroundingDinoSettings(prompts=prompts)


def test_more_words_than_the_network_reads_are_refused(checkpoint: Path) -> None:
    prompts = tuple(f"hand {'a ' * 60}{'robot ' * i}" for i in range(5))
    with pytest.raises(UserError, match=r"prompts: 3[0-9]{2} tokens, the network reads 256"):
        detect(checkpoint, 1, prompts=prompts)


def test_importing_the_steps_loads_no_network_library() -> None:
    modules = "extract.models, extract.detect.grounding_dino, extract.segment.sam2, extract.segment.box, "
    modules += "extract.depth.learned, extract.depth.sensor"
    code = f"import sys, {modules}; assert not {{'torch', 'transformers'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
