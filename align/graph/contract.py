"""What a policy as a graph takes and gives, and everything needed to use it: the document that travels in the file.

Needs numpy only, like all that is needed to run a graph (feeds.py, noise.py, words.py, runtime.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FORMAT = "kinecloud-policy-graph/1"
CAMERA = "OpenCV axes (x right, y down, z forward), metres; the middle of pixel (row r, column c) is (c + 0.5, r + 0.5)"
PICTURE = (
    "longer side scaled to `size` by Pillow's antialiased bilinear filter, sides rounded half to even and at least 1, "
    "padded with 0, the smaller half left and top; depth likewise by nearest neighbour, 0 = unknown; intrinsics follow"
)
BYTES = "UTF-8 of the instruction, stripped, in lower case, cut to max_bytes, after id 256; ids of 257 are padding"
TOKENS = "encoded with special tokens by the tokenizer in the file, cut to max_tokens"
PROMPT = (
    "words joined by single blanks, _ as a blank, encoded without special tokens by the tokenizer in the file; before "
    "them bos_id, after them end_ids, cut between these to max_tokens in all"
)
NOISE = "standard normal; by default what torch.randn draws on a CPU after manual_seed(seed), in this shape"
START_BYTE, PAD_BYTE = 256, 257
TEXT_RULES = {"bytes": BYTES, "tokens": TOKENS, "prompt": PROMPT}
KNOWN = {"format": FORMAT, "camera.convention": CAMERA, "picture.rule": PICTURE}


class ContractError(ValueError):
    """A graph that is not what its metadata, this code or its user takes it for; tells both sides."""


def inputs_of(
    *, past: int, size: int, proprio: int, depth: bool, horizons: int, chunk: tuple[int, int],
    generative: bool, flow_head: bool,
) -> list[dict[str, Any]]:  # fmt: skip
    """The inputs of a graph, in order: name, dtype, shape (N points, L text tokens) and meaning."""
    rows: list[tuple[bool, str, str, list[int | str], str]] = [
        (True, "image", "uint8", [1, 3, size, size], "RGB square, see picture"),
        (True, "intrinsics", "float32", [1, 3, 3], "pixels of the square"),
        (True, "past", "float32", [1, past, "N", 3], "metres, camera frame of the image, at past_times_s"),
        (True, "past_visible", "bool", [1, past, "N"], "the point was measured"),
        (True, "past_valid", "bool", [1, past], "there is a cloud for this time"),
        (True, "past_opening", "float32", [1, past], "metres, NaN = unknown"),
        (True, "past_grasp", "float32", [1, past, 3], "metres; any NaN: all unknown, the centroid is taken"),
        (True, "proprio", "float32", [1, proprio], "physical units, as proprio.names"),
        (True, "embodiment", "int64", [1], "index, see embodiments"),
        (True, "text_ids", "int64", [1, "L"], "see text; at least 2"),
        (depth, "depth", "float32", [1, size, size], "metres, 0 = unknown, of what the image shows"),
        (generative, "noise", "float32", [1, horizons, "N", 3], NOISE),
        (flow_head, "action_noise", "float32", [1, *chunk], NOISE),
    ]
    return [{"name": n, "dtype": t, "shape": s, "meaning": m} for used, n, t, s, m in rows if used]


def outputs_of(
    names: tuple[str, ...], *, chunk: tuple[int, int], horizons: int, waypoints: int
) -> list[dict[str, Any]]:
    """The outputs of a graph, in order."""
    rows: dict[str, tuple[list[int | str], str]] = {
        "actions": ([1, *chunk], "physical units, see action"),
        "points": ([1, horizons, "N", 3], "metres, camera frame of the image, at horizons_s"),
        "opening": ([1, horizons], "metres"),
        "grasp": ([1, horizons, 3], "metres, the grasp point"),
        "waypoints": ([1, waypoints, 4], "metres: next places of the grasp point, and the opening there"),
    }
    return [{"name": n, "dtype": "float32", "shape": rows[n][0], "meaning": rows[n][1]} for n in names]


def at(document: Mapping[str, Any], path: str) -> Any:
    """The value under a dotted name; raises ContractError where there is none."""
    value: Any = document
    for name in path.split("."):
        if not isinstance(value, Mapping) or name not in value:
            raise ContractError(f"the graph's metadata holds no {path}; it was made by another program or version")
        value = value[name]
    return value


def check(document: Mapping[str, Any], expected: Mapping[str, Any], whose: str) -> None:
    """Raises ContractError naming every value, by its dotted name, that is not as expected; whose: who expects it."""
    wrong = [
        f"{path}: the graph says {found!r}; {whose} {value!r}"
        for path, value in expected.items()
        if (found := at(document, path)) != (list(value) if isinstance(value, tuple) else value)
    ]
    if wrong:
        raise ContractError("\n".join(wrong))


def check_tensors(document: Mapping[str, Any], kind: str, found: Mapping[str, tuple[str, list[Any]]]) -> None:
    """Holds ``inputs`` or ``outputs`` of the metadata against the graph's own: dtype and shape by name, sizes that are
    not fixed as anything but a number. Raises ContractError."""
    told = {row["name"]: (row["dtype"], row["shape"]) for row in at(document, kind)}
    wrong = [
        f"{kind} {name}: the metadata says {_words(told.get(name))}; the graph has {_words(found.get(name))}"
        for name in {**told, **found}
        if name not in told or name not in found or not _same(told[name], found[name])
    ]
    if wrong:
        raise ContractError("\n".join(wrong))


def _same(told: tuple[str, list[Any]], found: tuple[str, list[Any]]) -> bool:
    sizes = ([size if isinstance(size, int) else "any" for size in shape] for shape in (told[1], found[1]))
    return told[0] == found[0] and next(sizes) == next(sizes)


def _words(tensor: tuple[str, list[Any]] | None) -> str:
    return "nothing of that name" if tensor is None else f"{tensor[0]} [{', '.join(map(str, tensor[1]))}]"
