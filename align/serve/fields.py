"""What a field of an observation must be, as one table that clients are told and messages are held against."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from align.serve.rejected import Rejected, problem, shown

Kind = Literal["array", "number", "flag", "text"]
MOST_CHARACTERS = 2000  # of a text
MOST_NAME = 100  # characters of a field's name that is compared with those known


@dataclass(frozen=True)
class Field:
    """One field. kind: an array, or a single number, flag or text.

    dtypes: of an array. shape: of an array; a name stands for any size, the same wherever it comes again.
    meaning: unit and frame. wrong: what is wrong with a value, or None; rule: what it goes by, in words. remedy: for
    values against the rule.
    """

    name: str
    kind: Kind
    dtypes: tuple[str, ...] = ()
    shape: tuple[str | int, ...] = ()
    meaning: str = ""
    rule: str = ""
    wrong: Callable[[Any], str | None] = lambda value: None
    remedy: str = ""
    required: bool = True

    def told(self) -> dict[str, Any]:
        """This field as clients are told of it."""
        array = {"dtypes": list(self.dtypes), "shape": list(self.shape)} if self.kind == "array" else {}
        words = {"meaning": self.meaning, "rule": self.rule}
        return {"name": self.name, "kind": self.kind, **array, "required": self.required, **words}


def checked(observation: Mapping[str, Any], fields: Sequence[Field], largest: Mapping[str, int]) -> dict[str, Any]:
    """The observation's values, single numbers and flags as Python's own.

    largest: how large the named sizes may be. Raises Rejected naming everything that does not fit.
    """
    names = [field.name for field in fields]
    problems = [_extra(name, names) for name in observation if name not in names]
    sizes: dict[str, int] = {}
    values: dict[str, Any] = {}
    for field in fields:
        if field.name in observation:
            value = _plain(observation[field.name], field)
            wrong = _unlike(value, field, sizes, largest) or _against_rule(value, field)
            problems += [wrong] if wrong else []
            values[field.name] = value
        elif field.required:
            problems.append(problem(field.name, "nothing", _wanted(field, sizes), "Send it with every observation."))
    if problems:
        raise Rejected("\n".join(problems))
    return values


def _extra(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name[:MOST_NAME], known, n=1)
    remedy = f"Did you mean {near[0]}?" if near else "Leave it out."
    return problem(name, "an unknown field", f"one of {', '.join(known)}", remedy)


def _plain(value: Any, field: Field) -> Any:
    """An array without dimensions is a number where one is wanted."""
    single = field.kind in ("number", "flag") and isinstance(value, np.ndarray) and value.ndim == 0
    return value.item() if single else value


def _unlike(value: Any, field: Field, sizes: dict[str, int], largest: Mapping[str, int]) -> str | None:
    """What is wrong with the type or shape of a value; sizes that are new are noted."""
    wanted = _wanted(field, sizes)
    if field.kind != "array":
        right = {
            "number": isinstance(value, (int, float)) and not isinstance(value, bool),
            "flag": isinstance(value, bool),
            "text": isinstance(value, str) and len(value) <= MOST_CHARACTERS,
        }
        return None if right[field.kind] else problem(field.name, _kind_of(value), wanted, "Send such a value.")
    if not isinstance(value, np.ndarray):
        return problem(field.name, _kind_of(value), wanted, "Send a numpy array.")
    if value.dtype.name not in field.dtypes:
        remedy = f"Send values of that meaning ({field.meaning}), cast with astype('{field.dtypes[0]}')."
        return problem(field.name, _kind_of(value), wanted, remedy)
    expected = [sizes.get(size) if isinstance(size, str) else size for size in field.shape]
    if value.ndim != len(expected) or any(e not in (None, s) for e, s in zip(expected, value.shape, strict=True)):
        return problem(field.name, _kind_of(value), wanted, f"Its meaning: {field.meaning}.")
    for size, length in zip(field.shape, value.shape, strict=True):
        if isinstance(size, str):
            if length > largest.get(size, length):
                limit = f"at most {largest[size]} for {size}"
                return problem(field.name, _kind_of(value), limit, "Send less; intrinsics go with a scaled picture.")
            sizes[size] = length
    return None


def _against_rule(value: Any, field: Field) -> str | None:
    wrong = field.wrong(value)
    return problem(field.name, wrong, field.rule, field.remedy) if wrong else None


def _wanted(field: Field, sizes: Mapping[str, int]) -> str:
    if field.kind == "array":
        shape = ", ".join(str(sizes.get(size, size) if isinstance(size, str) else size) for size in field.shape)
        return f"{' or '.join(field.dtypes)} [{shape}]"
    return {"number": "a number", "flag": "true or false", "text": f"text of up to {MOST_CHARACTERS} characters"}[
        field.kind
    ]


def _kind_of(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype.name} {list(value.shape)}"
    return f"a text of {len(value)} characters" if isinstance(value, str) else shown(value)
