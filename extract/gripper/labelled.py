"""Which labelled episodes a gripper can be learnt from: those of one embodiment that have what it takes."""

from __future__ import annotations

from collections.abc import Sequence

from data.arrays import held
from data.index import Episode
from data.video import Unreadable
from pipeline.errors import UserError


def usable_episodes(
    episodes: Sequence[Episode],
    embodiment: str | None,
    needed: Sequence[str],
    field: str,
    intrinsics: bool = True,
) -> list[Episode]:
    """Labelled episodes of one embodiment with the arrays ``needed``, and with intrinsics where these are, too.

    embodiment: the one wanted; None where the index has but one. field: the setting that asks, for messages.
    Raises UserError for none, or several kinds.
    """
    wanted = [e for e in episodes if e.sidecar.labelled and embodiment in (None, e.embodiment)]
    usable = [e for e in wanted if (not intrinsics or e.sidecar.intrinsics is not None) and _has_all(e, needed)]
    if not usable:
        of = f" of embodiment '{embodiment}'" if embodiment else ""
        raise UserError(
            f"{field}: none of {len(wanted)} labelled episodes{of} in the index has "
            f"{'intrinsics and ' if intrinsics else ''}the arrays {', '.join(needed)}; add such episodes, or name a "
            "model (extract.gripper.detect.model)"
        )
    kinds = sorted({episode.embodiment for episode in usable})
    if len(kinds) > 1:
        raise UserError(
            f"{field}: labelled episodes show {', '.join(kinds)}; choose one with extract.gripper.detect.embodiment"
        )
    return sorted(usable, key=lambda episode: episode.episode_id)


def has_array(episode: Episode, name: str) -> bool:
    """Its companion file is there and holds the array."""
    return _has_all(episode, (name,))


def _has_all(episode: Episode, needed: Sequence[str]) -> bool:
    path = episode.arrays_path
    if path is None or not path.exists():
        return False
    try:
        return set(needed) <= held(path)
    except Unreadable:  # extraction will say so
        return False
