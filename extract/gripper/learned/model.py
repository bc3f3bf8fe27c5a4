"""A taught gripper network as it is stored: weights, keypoints, the points of the cloud; plain arrays, no pickle."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from extract.gripper.learned.body import Body, far_apart
from extract.gripper.learned.settings import LearnedSettings
from pipeline.atomic import publishing
from pipeline.errors import UserError

if TYPE_CHECKING:
    from extract.gripper.learned.lessons import Book
    from extract.gripper.learned.network import GripperNet

WEIGHT = "weight."
REMEDY = "name the gripper-network.npz of an earlier run, or leave the setting out to have one taught"


@dataclass(frozen=True)
class LearnedGripperModel:
    """weights: f32 by parameter. keypoints_K3: f64 metres, effector frame; the first is the grasp point, the others lie

    about the anchor. anchor_3: f64, what is looked at. points_M3, slides_M3: see ``body.Body``. opening: f64 [],
    the widest, metres. width: f64 [], of a crop, metres. range_2: f64, distances of the anchor in the lessons, metres.
    """

    weights: dict[str, np.ndarray]
    keypoints_K3: np.ndarray
    anchor_3: np.ndarray
    points_M3: np.ndarray
    slides_M3: np.ndarray
    opening: np.ndarray
    width: np.ndarray
    range_2: np.ndarray

    @classmethod
    def of(cls, network: GripperNet, book: Book, body: Body) -> LearnedGripperModel:
        """What a taught network and the book of its lessons make."""
        weights = {name: value.detach().cpu().numpy() for name, value in network.state_dict().items()}
        return cls(
            weights={name: np.ascontiguousarray(value) for name, value in weights.items()},
            keypoints_K3=book.keypoints_K3,
            anchor_3=book.anchor_3,
            points_M3=body.points_M3,
            slides_M3=body.slides_M3,
            opening=np.array(book.opening),
            width=np.array(book.width),
            range_2=np.array(book.range_2),
        )

    @property
    def grasp_3(self) -> np.ndarray:
        """f64 [3] metres, effector frame."""
        return self.keypoints_K3[0]

    @cached_property
    def network(self) -> GripperNet:
        """In evaluation mode. Raises UserError for weights of another shape."""
        import torch

        from extract.gripper.learned.network import GripperNet

        network = GripperNet(len(self.keypoints_K3))
        try:
            network.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in self.weights.items()})
        except RuntimeError as error:
            raise UserError(
                f"extract.gripper.detect.model: weights do not fit the network ({error}); {REMEDY}"
            ) from None
        return network.to(memory_format=torch.channels_last).eval()  # pyright: ignore[reportCallIssue]

    def spread(self, count: int) -> Body:
        """``count`` points of the cloud far from each other; they repeat where there are fewer."""
        chosen = np.sort(np.resize(far_apart(self.points_M3, count), count))
        return Body(self.points_M3[chosen], self.slides_M3[chosen])

    def save(self, path: Path) -> None:
        """Writes an .npz without pickles; the same network gives the same bytes."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "weights"}
        arrays |= {WEIGHT + name: value for name, value in self.weights.items()}
        with publishing(path) as temporary, temporary.open("wb") as handle:
            np.savez(handle, **arrays)


def network_path(settings: LearnedSettings, folder: Path) -> Path:
    """Where the network is: as the settings say, else in the stage's folder."""
    return settings.model or folder / "gripper-network.npz"


def load_network(path: Path) -> LearnedGripperModel:
    """Raises UserError where there is no gripper network."""
    named = f"extract.gripper.detect.model: {path}"
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except Exception as error:  # of whatever kind: NumPy and zipfile have many for damage
        raise UserError(f"{named} cannot be read as a gripper network ({error}); {REMEDY}") from None
    weights = {name.removeprefix(WEIGHT): value for name, value in arrays.items() if name.startswith(WEIGHT)}
    names = [field.name for field in fields(LearnedGripperModel) if field.name != "weights"]
    missing = [name for name in names if name not in arrays] + ([] if weights else ["weights"])
    if missing:
        raise UserError(f"{named} has no {', '.join(missing)}: it is no gripper network; {REMEDY}")
    model = LearnedGripperModel(weights=weights, **{name: arrays[name] for name in names})
    _check(model, named)
    return model


def _check(model: LearnedGripperModel, named: str) -> None:
    """Shapes, and that all numbers are finite: a damaged network would see grippers where there are none."""
    wanted: dict[str, tuple[int | None, ...]] = {
        "keypoints_K3": (None, 3), "anchor_3": (3,), "points_M3": (None, 3), "slides_M3": (len(model.points_M3), 3),
        "opening": (), "width": (), "range_2": (2,),
    }  # fmt: skip
    for name, shape in wanted.items():
        found = getattr(model, name)
        if found.ndim != len(shape) or any(
            want not in (None, have) for want, have in zip(shape, found.shape, strict=True)
        ):
            raise UserError(f"{named}: {name} is {list(found.shape)}, {list(shape)} is wanted; {REMEDY}")
    arrays = {name: getattr(model, name) for name in wanted} | model.weights
    for name, value in arrays.items():
        if not value.size or not np.isfinite(value).all():
            raise UserError(f"{named}: {name} is empty or not finite; {REMEDY}")
    if min(model.opening, model.width, *model.range_2) <= 0:
        raise UserError(f"{named}: opening, width and range_2 must be positive; {REMEDY}")
