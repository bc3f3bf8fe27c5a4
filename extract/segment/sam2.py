"""Masks carried through a clip from one box: the video model SAM 2 (Ravi et al. 2024, arXiv 2408.00714)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
from pydantic import Field

from extract.models import ModelSettings, exact_inference, find_checkpoint, load_model
from extract.preprocess import pixel_values
from extract.steps import Detection, Shot

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the SAM 2 processors
EFFECTOR = 1  # the one object of a session


class Sam2Settings(ModelSettings):
    """Segmentation by a trained video model, also through frames without a detection."""

    name: Literal["sam2"] = "sam2"
    checkpoint: str = Field(
        default="facebook/sam2.1-hiera-small", description="Folder or hub id of a sam2_video checkpoint."
    )
    min_mask_px: int = Field(default=1, ge=1, description="Masks with fewer pixels count as not seen.")


class Sam2:
    """A Segmenter. The box of the best-scoring detection is the prompt; its mask is carried forward and backward."""

    def __init__(self, settings: Sam2Settings):
        self.settings = settings
        self._checkpoint = find_checkpoint(settings)

    @property
    def weights_sha256(self) -> dict[str, str]:
        """By model type and file name."""
        return self._checkpoint.sha256

    def __call__(self, shot: Shot, seen: Sequence[Detection | None]) -> list[np.ndarray | None]:
        """bool [H,W] for every frame, None where the effector is not to be seen, or everywhere without a detection."""
        masks: list[np.ndarray | None] = [None] * len(shot.frames)
        scores = [-1.0 if detection is None else detection.score for detection in seen]
        prompt = int(np.argmax(scores)) if scores else 0
        best = seen[prompt] if scores else None
        if best is None:
            return masks
        with exact_inference():
            for direction in (range(prompt, len(masks)), range(prompt, -1, -1)):
                if len(direction) > 1 or masks[prompt] is None:
                    for slot, mask in zip(direction, self._carried(shot, best.box_4, direction), strict=True):
                        masks[slot] = mask if mask.sum() >= self.settings.min_mask_px else None
        return masks

    @cached_property
    def _model(self) -> Any:
        from transformers import Sam2VideoModel

        return load_model(Sam2VideoModel, self._checkpoint, self.settings)

    def _carried(self, shot: Shot, box_4: np.ndarray, slots: Sequence[int]) -> Iterable[np.ndarray]:
        """Masks of the frames ``slots`` (consecutive, in either direction), the first of which has the box.

        Each direction is a session of its own, so that what one saw cannot tint the other. A session remembers as many
        frames as the network looks back on; pictures are prepared when their turn comes. Memory does not grow with T.
        """
        import torch
        from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

        model = self._model
        first = shot.frames[slots[0]].image
        height, width = first.shape[:2]
        session = Sam2VideoInferenceSession(
            video_height=height,
            video_width=width,
            inference_device=model.device,
            inference_state_device=model.device,
            video_storage_device=model.device,
            dtype=model.dtype,
        )
        scale = torch.tensor([model.image_size / width, model.image_size / height])
        corners = torch.from_numpy(box_4.reshape(1, 1, 2, 2)).float() * scale
        index = session.obj_id_to_idx(EFFECTOR)
        corner_labels = torch.tensor([[[2, 3]]], dtype=torch.int32)
        session.add_point_inputs(index, 0, {"point_coords": corners, "point_labels": corner_labels})
        session.obj_with_new_inputs = [EFFECTOR]
        remembered = max(model.num_maskmem, model.config.max_object_pointers_in_encoder)
        for step, slot in enumerate(slots):  # backward in time is just another order of pictures
            pixels = pixel_values(
                [shot.frames[slot].image],
                (model.image_size, model.image_size),
                self._checkpoint.image_processing(),
                IMAGENET_MEAN,
                IMAGENET_STD,
                next(model.parameters()),
                antialias=True,
            )
            output = model(inference_session=session, frame=pixels, frame_idx=step)
            logits = torch.nn.functional.interpolate(
                output.pred_masks.float(), size=(height, width), mode="bilinear", align_corners=False
            )
            yield (logits[0, 0] > 0).cpu().numpy()
            (session.processed_frames or {}).pop(step, None)
            kept = session.output_dict_per_obj[index]["non_cond_frame_outputs"]
            kept.pop(step - remembered, None)
            if step in kept:
                kept[step].pop("high_res_masks", None)
