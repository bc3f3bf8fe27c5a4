"""Boxes of effectors by a text prompt: Grounding DINO (Liu et al. 2023, arXiv 2303.05499) through transformers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator

from data.episode import Frame
from extract.effector import Camera
from extract.models import ModelSettings, exact_inference, find_checkpoint, load_model
from extract.steps import BoxDetection, Detection
from pipeline.errors import UserError

SAME_OBJECT_IOU = 0.7  # the network has no suppression of its own: two queries may find one thing


class GroundingDinoSettings(ModelSettings):
    """Open-vocabulary detection: any effector that can be named."""

    name: Literal["grounding-dino"] = "grounding-dino"
    checkpoint: str = Field(
        default="IDEA-Research/grounding-dino-tiny", description="Folder or hub id of a grounding-dino checkpoint."
    )
    prompts: tuple[str, ...] = Field(
        default=("robot gripper",), min_length=1, description="What to look for; each is a label of its own."
    )
    box_threshold: float = Field(default=0.35, gt=0, lt=1, description="Lowest score: best word of the prompt.")
    text_threshold: float = Field(
        default=0.25, ge=0, lt=1, description="Lowest mean over the prompt's words: a box must answer to all of it."
    )
    max_boxes: int = Field(default=1, ge=1, description="Boxes per prompt and frame, best first.")
    every: int = Field(default=1, ge=1, description="Look at every n-th frame; masks are carried through the others.")
    batch: int = Field(default=4, ge=1, description="Frames per pass through the network.")

    @field_validator("prompts")
    @classmethod
    def _plain_words(cls, prompts: tuple[str, ...]) -> tuple[str, ...]:
        cleaned = tuple(" ".join(prompt.lower().split()) for prompt in prompts)
        for prompt in cleaned:
            if not prompt or "." in prompt or "?" in prompt:
                raise ValueError(f"a prompt is one or a few words without '.' or '?', found {prompt!r}")
        if len(set(cleaned)) < len(cleaned):
            raise ValueError("a prompt is named twice")
        return cleaned


class GroundingDino:
    """A Detector. Holds at most ``every * batch`` frames back."""

    def __init__(self, settings: GroundingDinoSettings):
        self.settings = settings
        self._checkpoint = find_checkpoint(settings)

    @property
    def weights_sha256(self) -> dict[str, str]:
        """By model type and file name."""
        return self._checkpoint.sha256

    def __call__(self, frames: Iterable[Frame], camera: Camera) -> Iterator[tuple[Frame, list[Detection]]]:
        """Frames in order, each with its boxes, best score first; none in the frames between every n-th."""
        held: list[tuple[Frame, bool]] = []
        for position, frame in enumerate(frames):
            held.append((frame, position % self.settings.every == 0))
            if len(held) == self.settings.every * self.settings.batch:
                yield from self._flushed(held)
                held = []
        yield from self._flushed(held)

    def _flushed(self, held: Sequence[tuple[Frame, bool]]) -> Iterator[tuple[Frame, list[Detection]]]:
        images = [frame.image for frame, looked_at in held if looked_at]
        found = iter(self._detect(images) if images else [])
        for frame, looked_at in held:
            yield frame, list(next(found)) if looked_at else []

    @cached_property
    def _network(self) -> tuple[Any, Any, dict[str, Any], list[slice]]:
        """Model, image processor, tokenised prompts, and where each prompt's tokens lie."""
        from transformers import AutoTokenizer, GroundingDinoForObjectDetection, GroundingDinoImageProcessorPil

        model = load_model(GroundingDinoForObjectDetection, self._checkpoint, self.settings)
        # The PIL one by name: the automatic choice depends on whether torchvision is installed, and so would the boxes.
        processor = GroundingDinoImageProcessorPil.from_pretrained(self._checkpoint.folder, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(self._checkpoint.folder, local_files_only=True)
        text = ". ".join(self.settings.prompts) + "."  # the form that the network was trained with
        tokens = dict(tokenizer(text, return_tensors="pt", return_token_type_ids=True))
        if tokens["input_ids"].shape[1] > model.config.max_text_len:
            raise UserError(
                f"grounding-dino: prompts: {tokens['input_ids'].shape[1]} tokens, the network reads "
                f"{model.config.max_text_len}. Name fewer or shorter prompts."
            )
        spans = prompt_spans(tokens["input_ids"][0].tolist(), tokenizer.convert_tokens_to_ids("."))
        return model, processor, tokens, spans

    def _detect(self, images: Sequence[np.ndarray]) -> list[list[BoxDetection]]:
        """Boxes in each RGB image."""
        model, processor, tokens, spans = self._network
        count = len(images)
        with exact_inference():
            inputs = processor(images=list(images), return_tensors="pt").to(model.device)
            text = {name: value.expand(count, -1).to(model.device) for name, value in tokens.items()}
            output = model(pixel_values=inputs["pixel_values"].to(model.dtype), pixel_mask=inputs["pixel_mask"], **text)
            probability_BQL = output.logits.float().sigmoid().cpu().numpy()
            centre_size_BQ4 = output.pred_boxes.float().cpu().numpy().astype(np.float64)
        return [self._chosen(probability_BQL[i], centre_size_BQ4[i], spans, images[i].shape[:2]) for i in range(count)]

    def _chosen(
        self, probability_QL: np.ndarray, centre_size_Q4: np.ndarray, spans: Sequence[slice], size: tuple[int, int]
    ) -> list[BoxDetection]:
        """Each query goes to the prompt that it answers best as a whole; per prompt the best boxes are kept."""
        height, width = size
        mean_QK = np.stack([probability_QL[:, span].mean(1) for span in spans], 1)
        peak_QK = np.stack([probability_QL[:, span].max(1) for span in spans], 1)
        label_Q = mean_QK.argmax(1)
        queries = np.arange(len(label_Q))
        score_Q, mean_Q = peak_QK[queries, label_Q], mean_QK[queries, label_Q]
        half_Q2 = centre_size_Q4[:, 2:] / 2
        box_Q4 = np.concatenate([centre_size_Q4[:, :2] - half_Q2, centre_size_Q4[:, :2] + half_Q2], 1)
        box_Q4 = np.clip(box_Q4, 0, 1) * [width, height, width, height]
        chosen: list[BoxDetection] = []
        left = {prompt: self.settings.max_boxes for prompt in self.settings.prompts}
        for query in np.argsort(-score_Q, kind="stable"):
            label, box = self.settings.prompts[label_Q[query]], box_Q4[query]
            strong = score_Q[query] >= self.settings.box_threshold and mean_Q[query] >= self.settings.text_threshold
            if not strong or not left[label] or (box[2:] - box[:2] < 1).any():
                continue
            if all(overlap(box, other.box_4) < SAME_OBJECT_IOU for other in chosen):
                chosen.append(BoxDetection(label, float(score_Q[query]), box))
                left[label] -= 1
        return chosen


def prompt_spans(token_ids: Sequence[int], stop: int) -> list[slice]:
    """Where each prompt lies in ``[CLS] words . words . [SEP]``: the tokens between the full stops."""
    spans, start = [], 1
    for position, token in enumerate(token_ids):
        if token == stop:
            spans.append(slice(start, position))
            start = position + 1
    return spans


def overlap(a_4: np.ndarray, b_4: np.ndarray) -> float:
    """Intersection over union of two boxes, x0 y0 x1 y1."""
    sides = np.clip(np.minimum(a_4[2:], b_4[2:]) - np.maximum(a_4[:2], b_4[:2]), 0, None)
    both = float(sides.prod())
    return both / (float((a_4[2:] - a_4[:2]).prod() + (b_4[2:] - b_4[:2]).prod()) - both)
