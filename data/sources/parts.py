"""Actions and states put together from the parts that a layout names, in its order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from data.sources.mapping import Part
from data.sources.recording import Series, f32, names_for
from data.video import Unreadable


def joined(parts: Sequence[Part], read: Callable[[str], np.ndarray], prefix: str) -> Series | None:
    """One series of all parts; None where there are none. Raises Unreadable (bad_shape) for columns that are not there.

    read: gives a part's numbers [T,D] by its path. prefix: of made-up names of a single part; those of several are
    named after their paths.
    """
    columns: list[np.ndarray] = []
    names: list[str] = []
    for part in parts:
        found = read(part.path)
        first, last = part.columns or (0, found.shape[1])
        if not 0 <= first < last <= found.shape[1]:
            detail = f"there are no columns {first}..{last} in {list(found.shape)}; correct the layout"
            raise Unreadable("bad_shape", f"{part.path}: {detail}")
        columns.append(found[:, first:last])
        names += names_for(last - first, part.names, prefix if len(parts) == 1 else part.path.rsplit("/", 1)[-1])
    return Series(f32(np.concatenate(columns, axis=1)), tuple(names)) if columns else None
