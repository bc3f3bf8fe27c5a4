"""Point tracks by a network of the TAPIR family (Doersch et al., 2023: TAPIR, BootsTAPIR; Apache-2.0), as an ONNX file.

No package of these networks is published on the package index; ONNX files are, and any lab can make one. They hold a
graph and numbers, no code, and ONNX Runtime (MIT) runs them on CPU and GPU. The file has to follow the calling
convention of TAPIR, inputs and outputs known by these names:

    video          f32 [1,T,H,W,3] in -1..1              tracks         f32 [1,N,T,2]  x, y pixels
    query_points   f32 [1,N,3]  frame, y, x pixels       occlusion      f32 [1,N,T]    logits
                                                         expected_dist  f32 [1,N,T]    logits: off by more than 6 px

A size that the file fixes (T, N, H, W) is kept to: points go in batches, frames in windows. How to make one, in an
environment with https://github.com/google-deepmind/tapnet (its PyTorch model; bootstapir_checkpoint_v2.pt):

    class Named(torch.nn.Module):
        def __init__(self, tapir): super().__init__(); self.tapir = tapir
        def forward(self, video, query_points):
            out = self.tapir(video, query_points)
            return out["tracks"], out["occlusion"], out["expected_dist"]
    torch.onnx.export(Named(tapir), (torch.zeros(1, 24, 256, 256, 3), torch.zeros(1, 64, 3)), "bootstapir.onnx",
        input_names=["video", "query_points"], output_names=["tracks", "occlusion", "expected_dist"])

Windows overlap by half. In the next window a point starts from the last frame of the overlap in which it was visible;
one that was visible in none is lost: carried, and not visible any more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from pydantic import Field

from extract.models import device_of
from extract.steps import Shot, Tracks
from extract.track.chaining import BESIDE_PX, inside, query_frame, query_points, shown
from pipeline.config import Settings
from pipeline.errors import UserError

INPUTS, OUTPUTS = ("video", "query_points"), ("tracks", "occlusion", "expected_dist")
MARGIN = 0.4  # around the effector: it is followed by its surroundings too
FAR_PX, NEAR_PX = 6.0, 1.0  # network pixels: sigma where expected_dist says far, and where it says near
CARRIED_PX = 12.0


class TapirConfig(Settings):
    """Point tracking with an ONNX file of the TAPIR family."""

    name: Literal["tapir"] = "tapir"
    checkpoint: Path = Field(description="ONNX file with TAPIR's inputs and outputs, see extract/track/tapir.py.")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto = cuda where there is one.")
    window: int = Field(default=48, ge=4, description="Frames at a time, where the file does not fix them.")
    batch: int = Field(default=64, ge=1, description="Points at a time, where the file does not fix them.")
    side_px: int = Field(default=256, ge=32, description="Side of the pictures, where the file does not fix it.")
    visible: float = Field(
        default=0.5, gt=0, lt=1, description="A point is visible where (1 - occluded) (1 - far off) is larger."
    )


class Tapir:
    """A ``Tracker``. Raises UserError for a file that cannot be loaded or has other inputs and outputs."""

    name = "tapir/1"

    def __init__(self, config: TapirConfig):
        self.config = config
        self._session = _session(config)
        video, queries = (_input(self._session, name, config.checkpoint) for name in INPUTS)
        self.window, self.batch = _fixed(video[1], config.window), _fixed(queries[1], config.batch)
        self.height, self.width = _fixed(video[2], config.side_px), _fixed(video[3], config.side_px)
        self.frames_fixed, self.points_fixed = isinstance(video[1], int), isinstance(queries[1], int)
        if self.window < 4:
            raise UserError(f"track: checkpoint: {config.checkpoint}: takes {self.window} frames; 4 are needed.")
        self.weights_sha256 = {config.checkpoint.name: hashlib.sha256(config.checkpoint.read_bytes()).hexdigest()}

    def __call__(self, shot: Shot, masks: Sequence[np.ndarray | None], count: int) -> Tracks:
        query = query_frame(masks)
        start_N2 = query_points(shown(masks, query), count)
        pixels_TN2 = np.tile(start_N2, (len(masks), 1, 1))
        visible_TN, error_TN = np.zeros((len(masks), count), bool), np.zeros((len(masks), count))
        visible_TN[query] = True
        for order in (np.arange(query, len(masks)), np.arange(query, -1, -1)):
            self._one_way(shot, masks, order, pixels_TN2, visible_TN, error_TN)
        for slot, mask in enumerate(masks):
            visible_TN[slot] &= inside(mask, pixels_TN2[slot], BESIDE_PX)
        pixels_TN2[query], visible_TN[query] = start_N2, True
        error_TN[query] = 0.5 / np.sqrt(12)
        return Tracks(pixels_TN2.astype(np.float32), visible_TN, error_TN.astype(np.float32), query)

    def _one_way(
        self,
        shot: Shot,
        masks: Sequence[np.ndarray | None],
        order: np.ndarray,
        pixels_TN2: np.ndarray,
        visible_TN: np.ndarray,
        error_TN: np.ndarray,
    ) -> None:
        """Fills in frames in the given order, window by window; the first frame of the order is known."""
        begin, count = 0, pixels_TN2.shape[1]
        known, alive_N = 1, np.ones(count, bool)  # known: so many frames of the order are done
        while known < len(order):
            window = order[begin : begin + self.window]
            done = known - begin
            # Each point starts from the last done frame in which it was visible.
            seen_DN = visible_TN[window[:done]]
            from_N = np.where(seen_DN.any(0), done - 1 - np.argmax(seen_DN[::-1], axis=0), done - 1)
            alive_N &= seen_DN.any(0)
            starts_N2 = pixels_TN2[window[from_N], np.arange(count)]
            found_TN2, visible, error = self._window(shot, masks, window, from_N, starts_N2)
            new = window[done:]
            pixels_TN2[new], error_TN[new] = found_TN2[done:], error[done:]
            visible_TN[new] = visible[done:] & alive_N
            known = begin + len(window)
            begin = max(known - self.window // 2, begin + 1)

    def _window(
        self,
        shot: Shot,
        masks: Sequence[np.ndarray | None],
        window: np.ndarray,
        from_N: np.ndarray,
        starts_N2: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pixels f64 [W,N,2], visible bool [W,N], error f64 [W,N] pixels."""
        corner_2, scale_2 = self._square([masks[slot] for slot in window], starts_N2)
        video = np.stack([self._cut(shot.frames[slot].image, corner_2, scale_2) for slot in window])
        if self.frames_fixed:  # the last frame again, until the window is full
            video = np.concatenate([video, video[-1:].repeat(self.window - len(window), 0)])
        asked_N3 = np.concatenate([from_N[:, None], ((starts_N2 - corner_2) * scale_2)[:, ::-1]], 1).astype(np.float32)
        parts = [self._run(video, asked_N3[i : i + self.batch]) for i in range(0, len(asked_N3), self.batch)]
        tracks, occlusion, far = (np.concatenate(part)[:, : len(window)] for part in zip(*parts, strict=True))
        hidden, far = _sigmoid(occlusion.T), _sigmoid(far.T)
        visible = (1 - hidden) * (1 - far) > self.config.visible
        error = np.where(visible, NEAR_PX + (FAR_PX - NEAR_PX) * far, CARRIED_PX) / scale_2.mean()
        return tracks.transpose(1, 0, 2).astype(np.float64) / scale_2 + corner_2, visible, error

    def _run(self, video_THW3: np.ndarray, asked_B3: np.ndarray) -> list[np.ndarray]:
        count = len(asked_B3)
        if self.points_fixed:
            asked_B3 = np.concatenate([asked_B3, asked_B3[-1:].repeat(self.batch - count, 0)])
        found = self._session.run(list(OUTPUTS), {"video": video_THW3[None], "query_points": asked_B3[None]})
        return [array[0, :count] for array in found]

    def _square(self, masks: Sequence[np.ndarray | None], starts_N2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The part of the picture that the window needs: its upper left corner, and scale to the network's size."""
        low, high = [starts_N2.min(0)], [starts_N2.max(0)]
        for mask in masks:
            if mask is not None and mask.any():
                rows, columns = np.nonzero(mask)
                low.append(np.array([columns.min(), rows.min()], float))
                high.append(np.array([columns.max() + 1, rows.max() + 1], float))
        first, last = np.min(low, axis=0), np.max(high, axis=0)
        extent = float((last - first).max()) * (1 + 2 * MARGIN) + 2
        scale_2 = np.array([self.width, self.height]) / extent
        return (first + last) / 2 - extent / 2, scale_2

    def _cut(self, image_HW3: np.ndarray, corner_2: np.ndarray, scale_2: np.ndarray) -> np.ndarray:
        """f32 [H,W,3] in -1..1."""
        shift = 0.5 * scale_2 - 0.5 - scale_2 * corner_2  # OpenCV puts the centre of the first pixel at 0
        matrix = np.array([[scale_2[0], 0, shift[0]], [0, scale_2[1], shift[1]]])
        smallest = float(scale_2.min())
        smooth = cv2.GaussianBlur(image_HW3, (0, 0), 0.4 / smallest) if smallest < 0.7 else image_HW3
        size = (self.width, self.height)
        cut = cv2.warpAffine(smooth, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return cut.astype(np.float32) / 127.5 - 1


def _session(config: TapirConfig) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise UserError(
            "track: tapir needs ONNX Runtime: pip install onnxruntime (or onnxruntime-gpu), or choose lucas-kanade."
        ) from None
    if not config.checkpoint.is_file():
        raise UserError(f"track: checkpoint: {config.checkpoint}: no such file. Name an ONNX file.")
    cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if config.device == "cuda" and not cuda:
        raise UserError("track: device: cuda was asked for, but ONNX Runtime finds no GPU. Install onnxruntime-gpu.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # the same bytes whatever the machine has
    options.log_severity_level = 3
    on_gpu = "CUDAExecutionProvider", {"device_id": device_of("auto").index or 0}
    providers = ["CPUExecutionProvider"] if config.device == "cpu" or not cuda else [on_gpu]
    try:
        return onnxruntime.InferenceSession(str(config.checkpoint), options, providers=providers)
    except Exception as error:  # ONNX Runtime's errors share no base class
        raise UserError(
            f"track: checkpoint: {config.checkpoint}: ONNX Runtime cannot load it: {str(error)[:300]}. Export it again."
        ) from None


def _input(session: Any, name: str, path: Path) -> list[int | str | None]:
    """The shape of an input; checks that all inputs and outputs are there."""
    shapes = {given.name: given.shape for given in session.get_inputs()}
    found = sorted(shapes), sorted(given.name for given in session.get_outputs())
    if found[0] != sorted(INPUTS) or not set(OUTPUTS) <= set(found[1]):
        raise UserError(
            f"track: checkpoint: {path}: takes {found[0]} and gives {found[1]}; a tracker of the TAPIR family takes "
            f"{sorted(INPUTS)} and gives {sorted(OUTPUTS)}. Export it as extract/track/tapir.py says."
        )
    return shapes[name]


def _fixed(size: int | str | None, otherwise: int) -> int:
    return size if isinstance(size, int) and size > 0 else otherwise


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits.astype(np.float64)))
