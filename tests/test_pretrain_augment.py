"""Changed windows stay true: pictures, intrinsics, clouds and words agree, and what is withheld leaves no trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pretrain.augment import augment
from pretrain.config import AppearanceSettings, AugmentSettings
from pretrain.randomness import WindowRandom
from pretrain.viewpoint import change_camera, cropped, mirror, mirrored, zoomed

B, P, H, N, S = 6, 4, 5, 20, 64
SEEDS = torch.arange(B) + 2**40
STILL = AugmentSettings.only()


def changed(window: dict[str, Any], seeds: Tensor = SEEDS, progress: float = 1.0, **settings: Any) -> dict[str, Any]:
    """The window after nothing but the augmentations that are named."""
    return augment(window, STILL.model_copy(update=settings), WindowRandom(seeds), progress)


def made_window(batch: int = B, points: int = N) -> dict[str, Any]:
    """Moving clouds about 0.7 m away, each with a soft bright dot in the image where its present centroid is."""
    random = torch.Generator().manual_seed(0)
    centre = torch.rand(batch, 1, 1, 3, generator=random) * 0.3 + torch.tensor([-0.15, -0.15, 0.6])
    velocity = 0.2 * torch.randn(batch, 1, 1, 3, generator=random)
    body = 0.03 * torch.randn(batch, 1, points, 3, generator=random)
    body = body - body.mean(2, keepdim=True) + centre
    times = torch.tensor([-0.15, -0.1, -0.05, 0.0]), torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])
    window = {
        "intrinsics": torch.tensor([[80.0, 0, 30.0], [0, 78.0, 34.0], [0, 0, 1]]).repeat(batch, 1, 1),
        "past": body + velocity * times[0][:, None, None],
        "past_visible": torch.rand(batch, P, points, generator=random) < 0.8,
        "past_valid": torch.ones(batch, P, dtype=torch.bool),
        "past_opening": torch.rand(batch, P, generator=random) * 0.1,
        "future": body + velocity * times[1][:, None, None],
        "future_visible": torch.ones(batch, H, points, dtype=torch.bool),
        "future_valid": torch.ones(batch, H, dtype=torch.bool),
        "future_opening": torch.rand(batch, H, generator=random) * 0.1,
        "text": ["move left", "Turn the RIGHT knob", "push", "", "open it", "lift"][:batch],
        "embodiment": ["human-hand", "sawyer-gripper"] * (batch // 2),
        "key": [f"clip-{number}" for number in range(batch)],
        "seed": SEEDS[:batch],
    }
    rows, columns = torch.meshgrid(torch.arange(S) + 0.5, torch.arange(S) + 0.5, indexing="ij")
    u_B, v_B = where_the_cloud_is(window).T
    distance = torch.hypot(columns - u_B[:, None, None], rows - v_B[:, None, None])
    window["image"] = (255 * torch.exp(-(distance**2) / 8)).to(torch.uint8)[:, None].repeat(1, 3, 1, 1)
    return window


def where_the_cloud_is(window: dict[str, Any]) -> Tensor:
    """Pixel [B,2] onto which the camera projects the centroid of the present cloud."""
    uvw = torch.einsum("bij,bj->bi", window["intrinsics"], window["past"][:, -1].mean(1))
    return uvw[:, :2] / uvw[:, 2:]


def where_the_dot_is(window: dict[str, Any]) -> Tensor:
    """Pixel [B,2] of the centre of the brightness."""
    weight = window["image"].double().sum(1)
    rows, columns = torch.meshgrid(torch.arange(S) + 0.5, torch.arange(S) + 0.5, indexing="ij")
    sums = torch.stack([(weight * columns).sum((1, 2)), (weight * rows).sum((1, 2))], -1)
    return (sums / weight.sum((1, 2))[:, None]).float()


def distances(cloud: Tensor) -> Tensor:
    return torch.cdist(cloud, cloud, compute_mode="donot_use_mm_for_euclid_dist")


@pytest.mark.parametrize(
    "settings",
    [
        {"roll_deg": 30},
        {"zoom": 0.3},
        {"shift": 0.1},
        {"crop": 0.5},
        {"flip": 1},
        {"flip": 0.5},
        {"scale": 1},
        {"roll_deg": 15, "zoom": 0.1, "shift": 0.05, "crop": 0.6, "flip": 0.5, "scale": 0.3},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_the_picture_shows_the_cloud_where_the_camera_projects_it(settings: dict[str, Any]) -> None:
    window = made_window()
    after = changed(window, **settings)
    assert not torch.equal(after["past"], window["past"]) or not torch.equal(after["intrinsics"], window["intrinsics"])
    pixel = where_the_cloud_is(after)
    whole = ((pixel > 12) & (pixel < S - 12)).all(1)  # a dot that is cut off at the edge has its centre elsewhere
    assert whole.sum() >= 3
    torch.testing.assert_close(where_the_dot_is(after)[whole], pixel[whole], rtol=0, atol=0.4)
    if "scale" not in settings:
        for field in ("past", "future"):
            torch.testing.assert_close(distances(after[field]), distances(window[field]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("settings", [
    {"roll_deg": 15, "zoom": 0.1, "shift": 0.05}, {"crop": 0.6}, {"flip": 0.5}, {"scale": 0.5}, {"past_offset_m": 0.02},
    {"past_slow": 1.0},
], ids=lambda settings: "-".join(settings))  # fmt: skip
def test_grasp_points_waypoints_and_depth_go_along(settings: dict[str, Any]) -> None:
    """Grasp points are centroids, the first waypoint is the last of them, and depth shows a tilted plane."""
    window = made_window()
    window |= {"past_grasp": window["past"].mean(2), "future_grasp": window["future"].mean(2)}
    window["waypoints"] = torch.cat([window["future_grasp"][:, -1:], torch.full((B, 1, 1), 0.03)], -1)
    normal_3, at = torch.tensor([0.2, -0.3, 1.0]), torch.tensor([0.0, 0.0, 0.8])
    grid = torch.cartesian_prod(torch.arange(S) + 0.5, torch.arange(S) + 0.5).flip(-1)
    rays = torch.cat([grid, torch.ones(S * S, 1)], 1) @ torch.linalg.inv(window["intrinsics"]).transpose(1, 2)
    window["depth"] = ((normal_3 @ at) / (rays @ normal_3)).reshape(B, S, S)
    after = changed(window, **settings)
    for cloud in ("past", "future"):
        torch.testing.assert_close(after[f"{cloud}_grasp"], after[cloud].mean(2), rtol=0, atol=1e-5)
    torch.testing.assert_close(after["waypoints"][:, 0, :3], after["future_grasp"][:, -1], rtol=0, atol=1e-5)
    larger = after["past_opening"] / window["past_opening"]
    torch.testing.assert_close(after["waypoints"][..., 3], 0.03 * larger[:, :1])
    rays = torch.cat([grid, torch.ones(S * S, 1)], 1) @ torch.linalg.inv(after["intrinsics"]).transpose(1, 2)
    seen = (rays * after["depth"].reshape(B, S * S, 1)).double()
    for points_N3, depth in zip(seen, after["depth"].flatten(1), strict=True):
        points_N3 = points_N3[depth > 0]
        assert len(points_N3) > S * S // 2
        centred = points_N3 - points_N3.mean(0)
        thickness, *_, width = torch.linalg.eigvalsh(centred.T @ centred / len(centred)).sqrt()
        assert thickness < 0.02 * width  # still a plane, where the new camera sees it


def test_a_crop_shows_a_part_with_the_effector_in_full_size() -> None:
    side = torch.full((B,), 0.5)
    for place in torch.rand(20, B, 2, generator=torch.Generator().manual_seed(1)):
        window = made_window()
        centre = window["past"][:, -1].mean(1)
        camera = cropped(window["intrinsics"], S, centre, side, place)
        corners = torch.linalg.inv(camera) @ torch.tensor([[0.0, S, 0, S], [0, 0, S, S], [1, 1, 1, 1]])
        old = window["intrinsics"] @ corners
        old = (old[:, :2] / old[:, 2:]).transpose(1, 2)
        assert (old > -1e-3).all() and (old < S + 1e-3).all(), "the part lies inside the image"
        torch.testing.assert_close(old[:, 3] - old[:, 0], torch.full((B, 2), S / 2.0), rtol=0, atol=1e-3)
        change_camera(window, torch.zeros(B), camera)
        pixel = where_the_cloud_is(window)
        assert (pixel > -1e-3).all() and (pixel < S + 1e-3).all(), "the effector is in view"


def test_the_changed_camera_of_turned_and_zoomed_images_is_the_composed_one() -> None:
    """Turning and zooming in two steps, or in one, gives the same clouds, camera and, but for resampling, pictures."""
    angle, zoom, shift = torch.full((B,), 0.2), torch.full((B,), 1.1), torch.full((B, 2), 2.0)
    one, two = made_window(), made_window()
    change_camera(one, angle, zoomed(one["intrinsics"], zoom, shift))
    change_camera(two, angle, two["intrinsics"])
    change_camera(two, torch.zeros(B), zoomed(two["intrinsics"], zoom, shift))
    torch.testing.assert_close(one["past"], two["past"])
    torch.testing.assert_close(one["intrinsics"], two["intrinsics"])
    torch.testing.assert_close(where_the_dot_is(one), where_the_dot_is(two), rtol=0, atol=0.2)


def test_a_mirrored_mirror_image_is_what_it_was() -> None:
    window = made_window()
    window["intrinsics"][:, 0, 1] = 0.3
    window["image"] = torch.randint(0, 256, (B, 3, S, S), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    once = dict(window)
    flip = torch.tensor([True, True, False, True, False, True])
    mirror(once, flip)
    for field in ("image", "past", "future", "intrinsics"):
        differs = (once[field] != window[field]).flatten(1).any(1)
        assert torch.equal(differs, flip), field
    assert once["text"] == ["move right", "Turn the LEFT knob", *window["text"][2:]]
    twice = dict(once)
    mirror(twice, flip)
    for field in ("image", "past", "future", "intrinsics"):
        torch.testing.assert_close(twice[field], window[field], rtol=0, atol=1e-5)
    assert twice["text"] == window["text"]


@pytest.mark.parametrize(
    "text, other",
    [
        ("Left hand, then the right one", "Right hand, then the left one"),
        ("the LEFTMOST cup, leftwards", "the RIGHTMOST cup, rightwards"),
        ("turn it clockwise", "turn it counterclockwise"),
        ("turn it Counter-clockwise", "turn it Clockwise"),
        ("turn it anticlockwise", "turn it clockwise"),
        ("what is brightest is leftover", "what is brightest is leftover"),
    ],
)
def test_words_change_sides(text: str, other: str) -> None:
    assert mirrored(text) == other


def test_a_scaled_world_looks_the_same() -> None:
    window = made_window()
    after = changed(window, scale=1)
    factor = after["past"][:, 0, 0, 2] / window["past"][:, 0, 0, 2]
    assert factor.max() > 1.2 and factor.min() < 0.8
    for field in ("past", "future", "past_opening", "future_opening"):
        shaped = factor.reshape(-1, *[1] * (window[field].ndim - 1))
        torch.testing.assert_close(after[field], window[field] * shaped)
    torch.testing.assert_close(where_the_cloud_is(after), where_the_cloud_is(window))
    assert torch.equal(after["image"], window["image"]) and torch.equal(after["intrinsics"], window["intrinsics"])


def test_actions_are_never_mirrored_or_scaled() -> None:
    window = made_window() | {"actions": torch.zeros(B, 3, 4)}
    for setting in ("flip", "scale"):
        with pytest.raises(ValueError, match="labelled"):
            changed(window, SEEDS, 1.0, **{setting: 0.5})


def test_noise_on_the_past_has_its_size_and_leaves_the_future() -> None:
    window, seeds = made_window(batch=6, points=200), SEEDS
    offset, jitter = changed(window, seeds, past_offset_m=0.02), changed(window, seeds, past_jitter_m=0.005)
    moved = offset["past"] - window["past"]
    torch.testing.assert_close(moved, moved[:, :1, :1].expand_as(moved), rtol=0, atol=1e-6)  # the cloud as a whole
    assert 0.01 < moved[:, 0, 0].std() < 0.04
    moved = jitter["past"] - window["past"]
    assert float(moved.std()) == pytest.approx(0.005, rel=0.02) and moved.mean().abs() < 1e-4
    assert torch.equal(offset["future"], window["future"]) and torch.equal(jitter["future"], window["future"])


def test_the_past_is_displaced_across_its_motion_and_at_rest_anywhere() -> None:
    velocity = torch.tensor([0.6, 0.0, 0.0]) * torch.tensor([1.0, 0.0])[:, None]  # one that moves, one at rest
    window, moved = made_window(batch=2), []
    now_B1N3 = window["past"][:, -1:]
    for name, times in (("past", [-0.15, -0.1, -0.05, 0.0]), ("future", [0.1, 0.2, 0.3, 0.4, 0.5])):
        window[name] = now_B1N3 + (velocity[:, None] * torch.tensor(times)[:, None])[:, :, None]
    for seed in range(0, 400, 2):
        after = changed(window, torch.tensor([seed, seed + 1]), past_offset_m=0.01)
        moved.append((after["past"] - window["past"])[:, -1, 0])
    along, across = torch.stack(moved).std(0)[:, 0], torch.stack(moved).std(0)[:, 1:]
    assert across.sub(0.01).abs().max() < 0.0015
    assert along[0] < 0.001 and abs(float(along[1]) - 0.01) < 0.0015  # 0.6 m/s is much beside 10 mm


def test_a_slower_past_leads_to_the_same_present_and_future() -> None:
    window, paces = made_window(points=4), []
    for first in range(100, 160, B):
        after = changed(window, torch.arange(first, first + B), past_slow=0.5)
        for name in ("future", "past_opening"):
            assert torch.equal(after[name], window[name])
        torch.testing.assert_close(after["past"][:, -1], window["past"][:, -1])
        moved, had = (x["past"] - x["past"][:, -1:] for x in (after, window))
        pace_B = (moved * had).sum((1, 2, 3)) / had.square().sum((1, 2, 3))
        torch.testing.assert_close(moved, pace_B[:, None, None, None] * had, rtol=0, atol=1e-6)
        paces.append(pace_B)
    pace = torch.cat(paces)
    as_it_was = (pace - 1).abs() < 1e-5
    assert 0.3 < float(as_it_was.float().mean()) < 0.7
    assert pace.min() >= 0 and pace[~as_it_was].max() < 1 and 0.15 < float(pace[~as_it_was].std()) < 0.45


def test_noise_on_the_image_is_strong_at_first_and_gone_at_the_end() -> None:
    window = made_window()
    window["image"] = window["image"] // 2 + 60
    appearance = AppearanceSettings(until=0.5)

    def difference(progress: float, **more: Any) -> float:
        settings = appearance.model_copy(update=more)
        after = changed(window, appearance=settings, progress=progress)
        assert all(torch.equal(after[field], window[field]) for field in ("past", "future", "intrinsics"))
        return float((after["image"].float() - window["image"]).abs().mean())

    at = [difference(progress) for progress in (0.0, 0.2, 0.4, 0.5, 0.9)]
    assert at[0] > 10 and at[0] > at[1] > at[2] > at[3] == at[4] == 0
    assert difference(0.9, final=0.2) > 1


@pytest.mark.parametrize("kind", ["color", "brightness", "contrast", "noise", "blur", "patches"])
def test_each_noise_on_the_image_does_its_part(kind: str) -> None:
    window = made_window()
    random = torch.Generator().manual_seed(0)
    window["image"] = torch.randint(60, 120, (B, 3, S, S), generator=random, dtype=torch.uint8)
    off = {"color": 0, "brightness": 0, "contrast": 0, "noise": 0, "blur": 0, "patches": 0, "patch_size": 0.5}
    full = {"color": 0.5, "brightness": 0.2, "contrast": 0.5, "noise": 0.1, "blur": 1.0, "patches": 2}
    settings = AppearanceSettings.model_validate({**off, kind: full[kind]})
    before, after = window["image"].double(), changed(window, appearance=settings, progress=0.0)["image"].double()
    mean_shift, spread = (after - before).mean((2, 3)), after.std((2, 3)) / before.std((2, 3))
    expectation: dict[str, Callable[[], bool]] = {
        "color": lambda: bool(mean_shift.std(1).min() > 2 and (after > 0).all()),
        "brightness": lambda: bool(mean_shift.std(1).max() < 0.5 and mean_shift.abs().max() > 10),
        "contrast": lambda: bool(mean_shift.abs().max() < 0.5 and spread.min() < 0.8 and spread.max() > 1.2),
        "noise": lambda: bool(mean_shift.abs().max() < 1 and spread.min() > 1.0 and spread.max() > 1.2),
        "blur": lambda: bool(mean_shift.abs().max() < 1 and spread.min() < 0.5 and spread.max() < 1),
        "patches": lambda: bool((after != before).float().mean() < 0.5 and (after != before).any()),
    }
    assert expectation[kind]()


def test_what_a_window_gets_depends_on_its_seed_alone() -> None:
    window = made_window()
    before = {name: value.clone() for name, value in window.items() if isinstance(value, Tensor)}
    settings: dict[str, Any] = dict.fromkeys(("drop_image", "drop_text", "drop_history", "drop_opening", "flip"), 0.5)
    settings |= {"roll_deg": 10, "crop": 0.7, "color": 0.2, "past_jitter_m": 0.003, "past_offset_m": 0.01}
    settings |= {"appearance": AppearanceSettings(), "progress": 0.1}
    whole = changed(window, **settings)
    order = torch.tensor([4, 1])
    part = {name: value[order] if isinstance(value, Tensor) else [value[4], value[1]] for name, value in window.items()}
    part = changed(part, SEEDS[order], **settings)
    for name, value in whole.items():
        if isinstance(value, Tensor):
            torch.testing.assert_close(part[name], value[order], rtol=0, atol=1e-6, equal_nan=True)
        else:
            assert part[name] == [value[4], value[1]]
    other = changed(window, SEEDS + 1, **settings)
    assert not torch.equal(other["past"], whole["past"]) and not torch.equal(other["image"], whole["image"])
    assert all(torch.equal(window[name], value) for name, value in before.items()), "the batch itself is left alone"


def test_shares_of_what_is_withheld_are_kept() -> None:
    window = {name: value[:1] for name, value in made_window().items()}
    many = 4000
    window = {n: v.expand(many, *v.shape[1:]) if isinstance(v, Tensor) else v * many for n, v in window.items()}
    window["image"] = window["image"][..., :2, :2]
    shares = {"drop_image": 0.1, "drop_text": 0.2, "drop_embodiment": 0.3, "drop_history": 0.4, "drop_opening": 0.5}
    after = changed(window, torch.arange(many), **shares)
    dropped = {
        "drop_image": ~after["image_present"],
        "drop_text": torch.tensor([text == "" for text in after["text"]]),
        "drop_embodiment": torch.tensor([name == "unknown" for name in after["embodiment"]]),
        "drop_history": ~after["past_valid"][:, 0],
        "drop_opening": after["past_opening"].isnan().all(1),
    }
    for name, share in shares.items():
        assert float(dropped[name].float().mean()) == pytest.approx(share, abs=0.03), name
    both = (dropped["drop_history"] & dropped["drop_opening"]).float().mean()
    assert float(both) == pytest.approx(0.2, abs=0.03), "drawn independently"


def test_what_is_withheld_leaves_no_trace() -> None:
    """Windows that differ only in what is withheld become the same window."""
    settings: dict[str, Any] = dict.fromkeys(("drop_image", "drop_text", "drop_embodiment", "drop_history"), 1.0)
    window, other = made_window(), made_window()
    other["image"] = 255 - other["image"]
    other["text"], other["embodiment"] = ["something else"] * B, ["another"] * B
    other["past"][:, :-1] += 0.1
    other["past_visible"][:, :-1] ^= True
    other["past_opening"][:, :-1] = float("nan")
    one, two = changed(window, **settings), changed(other, **settings)
    for name, value in one.items():
        assert torch.equal(value, two[name]) if isinstance(value, Tensor) else value == two[name] or name == "key", name
    assert torch.equal(one["past"][:, -1], window["past"][:, -1])
    assert one["past_valid"].tolist() == [[False] * (P - 1) + [True]] * B
    assert changed(window, drop_opening=1.0)["past_opening"].isnan().all()
    assert torch.equal(changed(window, drop_opening=1.0)["future_opening"], window["future_opening"])


def test_random_numbers_of_a_window_do_not_depend_on_its_batch() -> None:
    alone, together = WindowRandom(torch.tensor([7])), WindowRandom(torch.tensor([3, 7, 2**62]))
    for draw in (
        lambda r: r.uniform(-2, 5, 3),
        lambda r: r.normal(2, 2),
        lambda r: r.beta(1.5, 1.0),
        lambda r: r.uniform(0, 1),
    ):
        one, three = draw(alone), draw(together)
        assert one.dtype == torch.float32 and torch.equal(one[0], three[1]) and not torch.equal(three[0], three[1])
    assert not torch.equal(
        WindowRandom(torch.tensor([7]), "noise").normal(4), WindowRandom(torch.tensor([7])).normal(4)
    )


def test_random_numbers_have_their_distributions() -> None:
    random = WindowRandom(torch.arange(4000))
    uniform, normal, beta = random.uniform(-1, 3), random.normal(), random.beta(1.5, 1.0)
    assert (
        -1 <= uniform.min() < -0.99 and 2.99 < uniform.max() <= 3 and float(uniform.mean()) == pytest.approx(1, abs=0.1)
    )
    assert float(normal.mean()) == pytest.approx(0, abs=0.06) and float(normal.std()) == pytest.approx(1, abs=0.04)
    assert float(beta.mean()) == pytest.approx(0.6, abs=0.02) and beta.min() > 0 and beta.max() < 1
    neighbours = torch.stack([normal[:-1], normal[1:]])
    assert torch.corrcoef(neighbours)[0, 1].abs() < 0.06, "seeds in a row give unrelated numbers"
