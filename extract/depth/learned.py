"""Depth by trained networks, made consistent over the clip and fitted to what is known of it.

Depth Anything V2 (Yang et al. 2024, arXiv 2406.09414): disparity up to scale and shift, or metres in its metric
versions. Depth Pro (Bochkovskii et al. 2024, arXiv 2410.02073): metres, with the focal length as an input.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Literal, overload

import cv2
import numpy as np
from pydantic import Field

from data.episode import Frame
from extract.depth.consistency import Corrections, Fit, Kind, consistent_frames, fit_anchors, to_values
from extract.models import ModelSettings, exact_inference, find_checkpoint, load_model
from extract.preprocess import pixel_values
from extract.steps import DepthAnchor, DepthMaps, Shot

HELD_PX = 640  # longest side at which a clip's values are held; they are smooth, and frames may be large


class LearnedDepthSettings(ModelSettings):
    """What all networks for depth share."""

    batch: int = Field(default=4, ge=1, description="Frames per pass through the network.")
    untied_sigma: float = Field(
        default=0.15, gt=0, description="Relative error that is assumed where nothing of known distance was seen."
    )


class DepthAnythingSettings(LearnedDepthSettings):
    """Depth Anything, either version of either kind; config.json says whether it speaks of disparity or of metres."""

    name: Literal["depth-anything"] = "depth-anything"
    checkpoint: str = Field(
        default="depth-anything/Depth-Anything-V2-Small-hf",
        description="Folder or hub id of a depth_anything checkpoint, relative or metric.",
    )


class DepthProSettings(LearnedDepthSettings):
    """Depth Pro. Its published weights are for research only, so it is never chosen by default."""

    name: Literal["depth-pro"] = "depth-pro"
    checkpoint: str = Field(default="apple/DepthPro-hf", description="Folder or hub id of a depth_pro checkpoint.")
    batch: int = Field(default=1, ge=1, description="Frames per pass through the network.")


class LearnedDepth(ABC):
    """A DepthSource around a network that sees one frame at a time."""

    def __init__(self, settings: LearnedDepthSettings, name: str):
        self.settings = settings
        self._name = name
        self._checkpoint = find_checkpoint(settings)

    @property
    def weights_sha256(self) -> dict[str, str]:
        """By model type and file name."""
        return self._checkpoint.sha256

    @property
    @abstractmethod
    def kind(self) -> Kind:
        """What the network speaks of."""

    @abstractmethod
    def outputs(self, shot: Shot) -> Iterator[np.ndarray]:
        """f32 [h,w] for each frame: depth or disparity, h x w covering the whole picture."""

    def __call__(self, shot: Shot, anchors: Sequence[DepthAnchor]) -> DepthMaps:
        """Maps of every frame, worked out when they are asked for; anchors fix the scale."""
        kind = self.kind
        values = [to_values(_held(output), kind) for output in self.outputs(shot)]
        corrections = consistent_frames(values, shot.frames, kind, effector_boxes(anchors, len(shot.frames)))
        size = shot.camera.image_size
        fit = fit_anchors(values, corrections, anchors, size, kind, self.settings.untied_sigma)
        scale = fit.anchored or ("assumed" if kind == "metric" else "relative")
        return DepthMaps(LearnedMaps(values, corrections, fit, shot.frames), scale, fit.sigma, self._name)


class DepthAnything(LearnedDepth):
    """Depth Anything (V2 Small unless told otherwise)."""

    def __init__(self, settings: DepthAnythingSettings):
        super().__init__(settings, settings.name)

    @property
    def kind(self) -> Kind:
        """``depth_estimation_type`` of the checkpoint."""
        return "metric" if self._network[0].config.depth_estimation_type == "metric" else "disparity"

    @cached_property
    def _network(self) -> tuple[Any, Any]:
        from transformers import DepthAnythingForDepthEstimation, DPTImageProcessorPil

        model = load_model(DepthAnythingForDepthEstimation, self._checkpoint, self.settings)
        # The PIL one by name: the automatic choice depends on whether torchvision is installed.
        return model, DPTImageProcessorPil.from_pretrained(self._checkpoint.folder, local_files_only=True)

    def outputs(self, shot: Shot) -> Iterator[np.ndarray]:
        model, processor = self._network
        for frames in _batches(shot.frames, self.settings.batch):
            with exact_inference():
                inputs = processor(images=[frame.image for frame in frames], return_tensors="pt")
                output = model(pixel_values=inputs["pixel_values"].to(model.device, model.dtype))
                found = output.predicted_depth.float().cpu().numpy()
            yield from found


class DepthPro(LearnedDepth):
    """Depth Pro: its output is divided by the focal length, so that a known camera gives metres of its own scale."""

    def __init__(self, settings: DepthProSettings):
        super().__init__(settings, settings.name)

    @property
    def kind(self) -> Kind:
        """Always metres."""
        return "metric"

    @cached_property
    def _model(self) -> Any:
        from transformers import DepthProForDepthEstimation

        return load_model(DepthProForDepthEstimation, self._checkpoint, self.settings)

    def outputs(self, shot: Shot) -> Iterator[np.ndarray]:
        """Depth for the camera's focal length; where that was only assumed, for the clip's middle field of view.

        The field of view is the network's own guess. One for the clip, because a guess per frame would make depth jump.
        """
        width = shot.camera.image_size[0]
        inverse, degrees = [], []
        for frames in _batches(shot.frames, self.settings.batch):
            batch, fields = self._inferred([frame.image for frame in frames])
            inverse.extend(_held(value) for value in batch)
            degrees.extend(fields)
        focal = float(shot.camera.intrinsics_33[0, 0])
        degrees = [value for value in degrees if 5 < value < 170]
        if shot.camera.origin == "assumed" and degrees:
            focal = 0.5 * width / np.tan(np.deg2rad(float(np.median(degrees))) / 2)
        for value in inverse:
            yield (focal / width / np.clip(value, 1e-4, 1e4)).astype(np.float32)

    def _inferred(self, images: Sequence[np.ndarray]) -> tuple[np.ndarray, list[float]]:
        """f32 [B,h,w] inverse depth for a focal length of one image width; fields of view in degrees, if known."""
        model = self._model
        values = self._checkpoint.image_processing()
        side = model.config.patch_size * 4  # the pyramid's finest level is four patches wide
        size = values.get("size") or {"height": side, "width": side}
        with exact_inference():
            like = next(model.parameters())
            half = (0.5, 0.5, 0.5)
            pixels = pixel_values(images, (size["height"], size["width"]), values, half, half, like, antialias=False)
            output = model(pixel_values=pixels)
            fields = [] if output.field_of_view is None else output.field_of_view.float().cpu().reshape(-1).tolist()
            return output.predicted_depth.float().cpu().numpy(), fields


class LearnedMaps(Sequence[np.ndarray | None]):
    """f32 [H,W] metres for every frame, made from the held values on access: a clip of full maps would fill memory."""

    def __init__(self, values: Sequence[np.ndarray], corrections: Corrections, fit: Fit, frames: Sequence[Frame]):
        self._values, self._corrections, self._fit, self._frames = values, corrections, fit, frames

    def __len__(self) -> int:
        return len(self._values)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...

    @overload
    def __getitem__(self, index: slice) -> list[np.ndarray]: ...

    def __getitem__(self, index: int | slice) -> np.ndarray | list[np.ndarray]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        height, width = self._frames[index].image.shape[:2]
        value = (self._values[index] - self._corrections.shift_T[index]) / self._corrections.scale_T[index]
        return self._fit.depth(cv2.resize(value.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR))


def effector_boxes(anchors: Sequence[DepthAnchor], count: int) -> list[np.ndarray | None]:
    """Per frame the box x0 y0 x1 y1 of the body that anchors of an assumed size lie on: it moves by itself."""
    boxes: list[np.ndarray | None] = [None] * count
    for anchor in anchors:
        if anchor.scale == "assumed" and len(anchor.pixels_K2):
            box = np.concatenate([anchor.pixels_K2.min(0), anchor.pixels_K2.max(0)])
            other = boxes[anchor.slot]
            if other is not None:
                box = np.concatenate([np.minimum(box[:2], other[:2]), np.maximum(box[2:], other[2:])])
            boxes[anchor.slot] = box
    return boxes


def _batches(frames: Sequence[Frame], size: int) -> Iterator[Sequence[Frame]]:
    for start in range(0, len(frames), size):
        yield frames[start : start + size]


def _held(output_HW: np.ndarray) -> np.ndarray:
    """At most HELD_PX on the longest side."""
    shrink = HELD_PX / max(output_HW.shape)
    if shrink >= 1:
        return output_HW
    size = round(output_HW.shape[1] * shrink), round(output_HW.shape[0] * shrink)
    return cv2.resize(output_HW, size, interpolation=cv2.INTER_AREA)
