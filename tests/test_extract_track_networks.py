"""Trackers that run networks or dense flow, through real runtimes: OpenCV's dense flow, ONNX Runtime, torchvision.

The networks are tiny. The ONNX tracker of these tests follows the brightest thing in the picture, so that every
coordinate, window and batch must be right for its tracks to be.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pytest

from data.episode import Frame
from extract.effector import Camera
from extract.steps import Shot, Tracks
from extract.track.dense import MARGIN, DenseChain
from extract.track.raft import RaftChain, RaftConfig, RaftFlow, read_weights
from extract.track.tapir import Tapir, TapirConfig
from pipeline.errors import UserError
from tests.beside_torchvision import run_beside_torchvision

CAMERA = Camera(np.array([[200.0, 0, 80], [0, 200, 60], [0, 0, 1]]), (160, 120), "given")
COUNT, FRAMES = 40, 21
# The middle of what is bright, m_t; a point asked for at (f, y, x) is at m_t + (x, y) - m_f in frame t.
TAPIR = """
<ir_version: 8, opset_import: ["" : 18]>
tiny (float[1,{T},{H},{W},3] video, float[1,{N},3] query_points)
    => (float[1,N,T,2] tracks, float[1,N,T] occlusion, float[1,N,T] expected_dist)
<float one = {{1}}, float half = {{0.5}}, int64 i0 = {{0}}, int64 i1 = {{1}}, float eight = {{8}}, float four = {{4}},
 int64[1] a0 = {{0}}, int64[1] a1 = {{1}}, int64[1] a2 = {{2}}, int64[1] a3 = {{3}}, int64[1] end = {{-1}},
 int64[2] plane = {{2, 3}}, int64 rows_at = {{2}}, int64 columns_at = {{3}}>
{{
    mean = ReduceMean <keepdims = 0> (video, end)
    positive = Add (mean, one)
    weight = Pow (positive, eight)
    total = ReduceSum <keepdims = 0> (weight, plane)
    shape = Shape (video)
    height = Gather (shape, rows_at)
    width = Gather (shape, columns_at)
    row_i = Range (i0, height, i1)
    column_i = Range (i0, width, i1)
    row = Cast <to = 1> (row_i)
    column = Cast <to = 1> (column_i)
    y = Add (row, half)
    x = Add (column, half)
    y_down = Unsqueeze (y, end)
    by_x = Mul (weight, x)
    by_y = Mul (weight, y_down)
    sum_x = ReduceSum <keepdims = 0> (by_x, plane)
    sum_y = ReduceSum <keepdims = 0> (by_y, plane)
    sums_x = Unsqueeze (sum_x, end)
    sums_y = Unsqueeze (sum_y, end)
    sums = Concat <axis = 2> (sums_x, sums_y)
    totals = Unsqueeze (total, end)
    middle = Div (sums, totals)
    when_f = Slice (query_points, a0, a1, a2)
    when_3 = Cast <to = 7> (when_f)
    when = Squeeze (when_3)
    middle_t = Squeeze (middle, a0)
    then = Gather <axis = 0> (middle_t, when)
    asked_y = Slice (query_points, a1, a2, a2)
    asked_x = Slice (query_points, a2, a3, a2)
    asked = Concat <axis = 2> (asked_x, asked_y)
    beside = Sub (asked, then)
    beside_t = Unsqueeze (beside, a2)
    middle_n = Unsqueeze (middle, a1)
    tracks = Add (beside_t, middle_n)
    dark = Less (total, four)
    dark_f = Cast <to = 1> (dark)
    twice = Mul (dark_f, eight)
    logit = Sub (twice, four)
    logit_n = Unsqueeze (logit, a1)
    like = ReduceMean <keepdims = 0> (tracks, end)
    zero = Sub (like, like)
    occlusion = Add (zero, logit_n)
    expected_dist = Sub (zero, four)
}}
"""


def tiny_tapir(path: Path, size: dict[str, str]) -> Path:
    """Follows the brightest thing; occluded where nothing is bright. size: T, N, H, W as numbers or names."""
    import onnx
    import onnx.parser

    model = onnx.parser.parse_model(TAPIR.format(**size))
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def blob(covered: range = range(0)) -> tuple[Shot, list[np.ndarray | None], np.ndarray]:
    """A bright textured disc on a dark table, wandering 3 pixels a frame and back; its middle f64 [T,2] pixels."""
    row, column = np.meshgrid(np.arange(120) + 0.5, np.arange(160) + 0.5, indexing="ij")
    turn = np.linspace(0, 1.5 * np.pi, FRAMES)
    middle = np.stack([80 + 40 * np.sin(turn), 60 + 20 * np.cos(turn)], -1)
    frames, masks = [], []
    for number, (x, y) in enumerate(middle):
        mask = (column - x) ** 2 + (row - y) ** 2 < (16 if number == FRAMES // 2 else 15) ** 2
        texture = 200 + 30 * np.sin(0.7 * (column - x)) * np.cos(0.5 * (row - y))
        image = np.where(mask & (number not in covered), texture, 10).astype(np.uint8)[..., None].repeat(3, -1)
        frames.append(Frame(number, number / 20, image))
        masks.append(None if number in covered else mask)
    return Shot(frames, CAMERA), masks, middle


def off(tracks: Tracks, middle_T2: np.ndarray) -> np.ndarray:
    """f64 [T,N] pixels."""
    relative = tracks.pixels_TN2[tracks.query] - middle_T2[tracks.query]
    return np.linalg.norm(tracks.pixels_TN2 - (middle_T2[:, None] + relative), axis=-1)


def inverse_search(first_BHW3: np.ndarray, second_BHW3: np.ndarray) -> np.ndarray:
    """OpenCV's dense inverse search as a dense flow."""
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    gray = [[cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in batch] for batch in (first_BHW3, second_BHW3)]
    return np.stack([flow.calc(a, b, np.zeros((*a.shape, 2), np.float32)) for a, b in zip(*gray, strict=True)])


def test_dense_flow_is_chained_both_ways_from_the_query_frame() -> None:
    shot, masks, middle = blob()
    chained = DenseChain(inverse_search, 128, 1.0, 4)(shot, masks, COUNT)
    assert 0 < chained.query < FRAMES - 1 and chained.visible_TN.mean() > 0.8
    assert np.median(off(chained, middle)) < 0.5 and np.percentile(off(chained, middle)[chained.visible_TN], 90) < 1.5
    one = DenseChain(inverse_search, 128, 1.0, 1)(shot, masks, COUNT)
    assert one.pixels_TN2.tobytes() == chained.pixels_TN2.tobytes()


@pytest.mark.parametrize("size", [dict(T="T", N="N", H="H", W="W"), dict(T="8", N="16", H="64", W="96")])
def test_an_onnx_tracker_is_run_in_windows_and_batches_both_ways(tmp_path: Path, size: dict[str, str]) -> None:
    shot, masks, middle = blob()
    tracker = Tapir(TapirConfig(checkpoint=tiny_tapir(tmp_path / "tiny.onnx", size), window=6, batch=7, side_px=128))
    tracks = tracker(shot, masks, COUNT)
    assert 0 < tracks.query < FRAMES - 1 and tracks.visible_TN.mean() > 0.8
    assert off(tracks, middle).max() < 1.5 and np.median(off(tracks, middle)) < 0.5
    assert list(tracker.weights_sha256) == ["tiny.onnx"]
    again = tracker(shot, masks, COUNT)
    assert again.pixels_TN2.tobytes() == tracks.pixels_TN2.tobytes()


def test_points_that_the_network_calls_hidden_are_not_visible_and_found_again(tmp_path: Path) -> None:
    shot, masks, middle = blob(range(13, 16))
    path = tiny_tapir(tmp_path / "tiny.onnx", dict(T="T", N="N", H="H", W="W"))
    tracks = Tapir(TapirConfig(checkpoint=path, window=10, side_px=128))(shot, masks, COUNT)
    assert tracks.query < 13 and not tracks.visible_TN[13:16].any()
    assert tracks.visible_TN[17:].mean() > 0.8 and np.median(off(tracks, middle)[17:]) < 1
    assert tracks.error_TN[14].min() > tracks.error_TN[[11, 18]].max()
    # A window that ends in the gap hands nothing on: what comes later is not the same points for sure.
    lost = Tapir(TapirConfig(checkpoint=path, window=4, side_px=128))(shot, masks, COUNT)
    assert not lost.visible_TN[13:].any()


def test_a_file_that_is_no_tracker_is_refused_by_name(tmp_path: Path) -> None:
    import onnx
    import onnx.parser

    with pytest.raises(UserError, match=r"missing.onnx: no such file"):
        Tapir(TapirConfig(checkpoint=tmp_path / "missing.onnx"))
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    with pytest.raises(UserError, match=r"broken.onnx: ONNX Runtime cannot load it"):
        Tapir(TapirConfig(checkpoint=tmp_path / "broken.onnx"))
    other = '<ir_version: 8, opset_import: ["" : 17]> other (float[1] a) => (float[1] b) { b = Neg (a) }'
    onnx.save(onnx.parser.parse_model(other), tmp_path / "other.onnx")
    with pytest.raises(UserError, match=r"takes \['a'\] and gives \['b'\]"):
        Tapir(TapirConfig(checkpoint=tmp_path / "other.onnx"))


def test_weights_are_read_as_tensors_only(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    weights = {"a": torch.arange(3.0)}
    save_file(weights, tmp_path / "a.safetensors")
    torch.save(weights, tmp_path / "a.pth")
    for name in ("a.safetensors", "a.pth"):
        assert torch.equal(read_weights(tmp_path / name)["a"], weights["a"])
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Path("/"), 2))
    torch.save({"a": Path("/")}, tmp_path / "object.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    for name, said in (
        ("evil.pth", "more than tensors"),
        ("object.pth", "more than tensors"),
        ("list.pth", "state dict"),
    ):
        with pytest.raises(UserError, match=said):
            read_weights(tmp_path / name)
    with pytest.raises(UserError, match="cannot be read"):
        RaftChain(RaftConfig(checkpoint=tmp_path / "none.pth"))


def test_without_torchvision_raft_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    torch.save({"a": torch.zeros(1)}, tmp_path / "raft.pth")
    monkeypatch.setitem(sys.modules, "torchvision", None)  # wherever the tests run, it cannot be imported
    with pytest.raises(UserError, match=r"pip install torchvision==0\.28\.0"):
        RaftChain(RaftConfig(checkpoint=tmp_path / "raft.pth"))


# What the networks of these files say: each update moves the flow by so many cells of 8 pixels, along columns and rows.
STEPS = {"once": (0.015, -0.01), "twice": (0.03, -0.02)}
UPDATES = 2


def raft_runs(folder: Path) -> None:
    """torchvision's networks of random weights, saved to files and run by ``RaftChain``; tracks and flow as .npy."""
    import torch
    from safetensors.torch import save_file
    from torchvision.models import optical_flow  # pyright: ignore[reportMissingImports]

    shot, masks, _ = blob()
    still = Shot([Frame(number, number / 20, shot.frames[FRAMES // 2].image) for number in range(5)], CAMERA)
    moving, masks_moving = Shot(shot.frames[8:13], CAMERA), masks[8:13]

    def chained(path: Path, shot: Shot, masks: list[np.ndarray | None], size: Literal["small", "large"]) -> np.ndarray:
        wild = 50.0  # random weights agree with themselves no better
        config = RaftConfig(
            checkpoint=path, size=size, side_px=128, updates=UPDATES, batch=3, max_error_px=wild, device="cpu"
        )
        chain = RaftChain(config)
        assert list(chain.weights_sha256) == [path.name]
        return chain(shot, masks, COUNT).pixels_TN2

    for size in ("small", "large"):
        for name, step in STEPS.items():
            torch.manual_seed(0)
            network = getattr(optical_flow, f"raft_{size}")()
            last = network.update_block.flow_head.conv2
            last.weight.data.zero_()
            last.bias.data = torch.tensor(step)
            save_file(network.state_dict(), folder / f"{size}_{name}.safetensors")
            tracks = chained(folder / f"{size}_{name}.safetensors", still, [masks[FRAMES // 2]] * 5, size)
            np.save(folder / f"{size}_{name}.npy", tracks)

    for seed in (0, 1):
        torch.manual_seed(seed)
        network = optical_flow.raft_small().eval()
        save_file(network.state_dict(), folder / f"random_{seed}.safetensors")
        torch.save(network.state_dict(), folder / f"random_{seed}.pth")
        for kind in ("safetensors", "pth"):
            tracks = chained(folder / f"random_{seed}.{kind}", moving, masks_moving, "small")
            np.save(folder / f"random_{seed}_{kind}.npy", tracks)

    pictures = np.stack([frame.image for frame in moving.frames])
    torchvisions_own = optical_flow.Raft_Small_Weights.C_T_V2.transforms()
    tensors = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    padded = torch.nn.functional.pad(tensors, (0, 0, 4, 4))  # RAFT takes no side below 128
    with torch.inference_mode():
        expected = network(*torchvisions_own(padded[:2], padded[2:4]), num_flow_updates=UPDATES)[-1]
    first, second = (padded[part].permute(0, 2, 3, 1).numpy() for part in (slice(0, 2), slice(2, 4)))
    np.save(folder / "flow_expected.npy", expected.permute(0, 2, 3, 1).numpy())
    np.save(folder / "flow.npy", RaftFlow(network, "cpu", UPDATES)(first, second))

    with pytest.raises(UserError, match="no weights of torchvision's raft_large"):
        RaftChain(RaftConfig(checkpoint=folder / "random_0.pth"))


@pytest.fixture(scope="module")
def raft(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """What ``raft_runs`` left, by name."""
    folder = tmp_path_factory.mktemp("raft")
    run_beside_torchvision(raft_runs, folder)
    return {path.stem: np.load(path) for path in folder.glob("*.npy")}


@pytest.mark.parametrize("size", ["small", "large"])
def test_raft_moves_points_as_the_weights_in_the_file_say(raft: dict[str, np.ndarray], size: str) -> None:
    side = 2 * 16 * (1 + 2 * MARGIN)  # of the square around the disc, which has a radius of 16 pixels
    for name, step in STEPS.items():
        moved = raft[f"{size}_{name}"] - raft[f"{size}_{name}"][2]
        away_T = np.abs(np.arange(5) - 2)  # links from the query frame, in the middle; flow is the same both ways
        expected = away_T[:, None, None] * np.array(step) * 8 * UPDATES * side / 128
        assert np.abs(moved - expected).max() < 1e-3 * np.abs(expected).max()


def test_raft_with_random_weights_is_finite_and_deterministic(raft: dict[str, np.ndarray]) -> None:
    for seed in (0, 1):
        tracks = raft[f"random_{seed}_safetensors"]
        assert tracks.shape == (5, COUNT, 2) and np.isfinite(tracks).all()
        assert np.array_equal(tracks, raft[f"random_{seed}_pth"])
    assert np.abs(raft["random_0_pth"] - raft["random_1_pth"]).max() > 0.01


def test_raft_prepares_pictures_as_torchvision_does(raft: dict[str, np.ndarray]) -> None:
    assert raft["flow"].shape == (2, 128, 160, 2) and np.ptp(raft["flow"]) > 0.01
    assert np.allclose(raft["flow"], raft["flow_expected"], rtol=0, atol=1e-4)
