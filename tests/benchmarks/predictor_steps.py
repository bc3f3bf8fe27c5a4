"""Training steps of a predictor on made-up windows: what they need by computation, and what they take by the clock.

Shapes: B batch, P past clouds, N points, H horizons, S image side.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import DeviceType  # pyright: ignore[reportPrivateImportUsage]
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from pretrain.build import freeze
from pretrain.config import ObjectiveSettings
from pretrain.loop import parameter_groups
from pretrain.model.configuration_kinecloud import KinecloudConfig
from pretrain.model.modeling_kinecloud import KinecloudPredictor
from pretrain.objectives import loss_of

POINTS = 64
INSTRUCTION = "put the red mug on the upper shelf of the rack"
# of the settings' `freeze`; the paper's first stage keeps the vision encoder still
TRAININGS: dict[str, Sequence[str]] = {
    "vision and words frozen": ("vision", "text"),
    "context frozen": ("context",),
    "all trained": (),
}


def made_up_window(config: KinecloudConfig, batch: int, device: str = "cpu", points: int = POINTS) -> dict[str, Any]:
    """A batch of windows of a cloud that drifts at 0.7 m from the camera."""
    random = torch.Generator().manual_seed(0)
    size, past, future = config.image_size, config.past_times, config.horizons

    def cloud(times: Sequence[float]) -> Tensor:
        moved = velocity * torch.tensor(times)[None, :, None, None]
        return body + moved

    velocity = 0.2 * torch.randn(batch, 1, 1, 3, generator=random)
    body = 0.03 * torch.randn(batch, 1, points, 3, generator=random) + torch.tensor([0.0, 0.0, 0.7])
    intrinsics = torch.tensor([[1.2 * size, 0, size / 2], [0, 1.2 * size, size / 2], [0, 0, 1]])
    window = {
        "image": torch.randint(0, 256, (batch, 3, size, size), generator=random, dtype=torch.uint8),
        "intrinsics": intrinsics.repeat(batch, 1, 1),
        "past": cloud(past),
        "past_visible": torch.ones(batch, len(past), points, dtype=torch.bool),
        "past_valid": torch.ones(batch, len(past), dtype=torch.bool),
        "past_opening": torch.full((batch, len(past)), 0.05),
        "future": cloud(future),
        "future_visible": torch.ones(batch, len(future), points, dtype=torch.bool),
        "future_valid": torch.ones(batch, len(future), dtype=torch.bool),
        "future_opening": torch.full((batch, len(future)), 0.05),
        "seed": torch.arange(batch),
    }
    words = {"text": [INSTRUCTION] * batch, "embodiment": ["human-hand"] * batch, "key": ["made-up"] * batch}
    return {name: value.to(device) for name, value in window.items()} | words


@dataclass(frozen=True)
class Needs:
    """What one step needs. parameters, learned: counts. forward_flop, step_flop: matrix products and convolutions,
    without and with the backward pass. weights, gradients, moments, activations: bytes; see ``needs``."""

    parameters: int
    learned: int
    forward_flop: int
    step_flop: int
    weights: int
    gradients: int
    moments: int
    activations: int

    @property
    def memory(self) -> int:
        """Bytes at the end of the forward pass, were all gradients there already: a bound from above on both ends of
        the backward pass, without the scratch memory of single operations."""
        return self.weights + self.gradients + self.moments + self.activations


def needs(config: KinecloudConfig, tokenizer: Any, frozen: Sequence[str], batch: int, bf16: bool = True) -> Needs:
    """Computed without any numbers: parameters and activations are tensors that have a shape and no storage.

    Weights, gradients and AdamW's two moments are 32-bit. Activations are the distinct storages that autograd keeps for
    the backward pass, weights cast for autocast among them, and parameters not. FLOP are torch's own count.
    """
    with torch.device("meta"):
        hollow = KinecloudPredictor(config)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    real = made_up_window(config, batch)
    with mode:
        model = hollow.to_empty(device="cpu")
        window = {name: mode.from_tensor(v) if isinstance(v, Tensor) else v for name, v in real.items()}
        return _counted(prepared(model, tokenizer, frozen), window, bf16)


def counted(model: KinecloudPredictor, window: dict[str, Any], bf16: bool) -> Needs:
    """The same of a real model on real windows, by doing it."""
    return _counted(model, window, bf16)


def prepared(model: KinecloudPredictor, tokenizer: Any, frozen: Sequence[str]) -> KinecloudPredictor:
    """The model in training mode with parts frozen."""
    model.read_with(tokenizer)
    freeze(model, frozen)
    return model.train()


def _counted(model: KinecloudPredictor, window: dict[str, Any], bf16: bool) -> Needs:
    own = {_storage(p) for p in model.parameters()}
    kept: dict[int, tuple[int, Any]] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if _storage(tensor) not in own:
            kept[_storage(tensor)] = (storage.nbytes(), storage)  # held, so that its name is not given again
        return tensor

    model.zero_grad(set_to_none=True)
    with FlopCounterMode(display=False) as counter, saved_tensors_hooks(keep, lambda tensor: tensor):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            prediction = model(**window)
        forward = counter.get_total_flops()
        activations = sum(size for size, _ in kept.values())
        (prediction.points.sum() + prediction.opening.sum()).backward()
    learned = sum(p.numel() for p in model.parameters() if p.requires_grad)
    parameters = sum(p.numel() for p in model.parameters())
    flop = counter.get_total_flops()
    return Needs(parameters, learned, forward, flop, 4 * parameters, 4 * learned, 8 * learned, activations)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


@dataclass(frozen=True)
class Taken:
    """What steps took. step_s: median. peak_bytes: of the device's memory, 0 on a CPU. idle: share of the time between
    the first and the last operation of some steps in which the device did nothing, or None where nothing was seen."""

    step_s: float
    peak_bytes: int
    idle: float | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def take(model: KinecloudPredictor, window: dict[str, Any], steps: int, bf16: bool = True) -> Taken:
    """Trains for some steps with the default objective and AdamW; the first two are not timed."""
    device = window["past"].device
    optimizer = torch.optim.AdamW(parameter_groups(model.parameters(), 0.05), lr=1e-5, fused=True)
    weights = ObjectiveSettings()  # pyright: ignore[reportCallIssue]

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            prediction = model(**window)
        loss_of(prediction, window, weights).total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    step()
    step()
    seconds = statistics.median(timed(step, steps, device.type))
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
    return Taken(seconds, peak, idle_share(step, 3, device.type))


def timed(call: Callable[[], Any], times: int, device: str) -> list[float]:
    """Seconds of each call, waiting for the device."""
    found = []
    for _ in range(times):
        _wait(device)
        began = time.perf_counter()
        call()
        _wait(device)
        found.append(time.perf_counter() - began)
    return found


def idle_share(call: Callable[[], Any], times: int, device: str) -> float | None:
    """Over some calls in a row, by torch's profiler, which records the device's operations (on a CPU: torch's)."""
    activity = ProfilerActivity.CUDA if device == "cuda" else ProfilerActivity.CPU
    _wait(device)
    with profile(activities=[activity]) as recorded:
        for _ in range(times):
            call()
        _wait(device)
    wanted = DeviceType.CUDA if device == "cuda" else DeviceType.CPU
    return gaps((e.time_range.start, e.time_range.end) for e in recorded.events() or () if e.device_type == wanted)


def gaps(spans: Iterable[tuple[float, float]]) -> float | None:
    """Share of the time from the first start to the last end in which no span runs."""
    ordered = sorted(spans)
    if not ordered:
        return None
    busy, reached = 0.0, ordered[0][0]
    for start, end in ordered:
        busy += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return 1 - busy / max(reached - ordered[0][0], 1e-9)


def product_rate(device: str, side: int, dtype: torch.dtype = torch.bfloat16, times: int = 20) -> float:
    """FLOP per second of plain matrix products, the best of some."""
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / min(timed(lambda: torch.mm(a, b), times, device))


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
