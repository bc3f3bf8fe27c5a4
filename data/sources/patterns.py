"""Patterns of paths in layouts: ``*`` is anything in one step, ``{name}`` the same with a name, ``**/`` any folders."""

from __future__ import annotations

import re
from functools import lru_cache

_PATTERN = re.compile(r"(\*\*/)?[A-Za-z0-9_.\- {}*]+(/[A-Za-z0-9_.\- {}*]+)*")
_NAME = re.compile(r"\{([a-z][a-z0-9_]*)\}")
ANYWHERE = "**/"


def sound(pattern: str) -> str:
    """The pattern as it is. Raises ValueError where it is none, or leads out of its folder."""
    if not _PATTERN.fullmatch(pattern) or ".." in pattern.split("/"):
        raise ValueError("must be a path below a folder, with * and {name} for what differs")
    given = names(pattern)
    if len(set(given)) != len(given) or re.search(r"[{}]", _NAME.sub("", pattern)):
        raise ValueError("every {name} must be of a-z, 0-9 and _, and be there once")
    return pattern


def names(pattern: str) -> tuple[str, ...]:
    """The names in a pattern, from left to right."""
    return tuple(_NAME.findall(pattern))


def matched(pattern: str, path: str) -> dict[str, str] | None:
    """What the names stand for in a path with ``/`` between its steps; None where it does not fit the pattern.

    A pattern that is a name alone stands for the whole path.
    """
    found = _compiled(pattern).fullmatch(path)
    return found.groupdict() if found else None


def filled(pattern: str, values: dict[str, str]) -> str:
    """The pattern with these names replaced by what they stand for."""
    return _NAME.sub(lambda name: values.get(name[1], name[0]), pattern)


def as_glob(pattern: str) -> str:
    """For ``Path.glob``; what it finds still has to be matched."""
    return _NAME.sub("*", pattern)


@lru_cache(256)
def _compiled(pattern: str) -> re.Pattern[str]:
    alone = _NAME.fullmatch(pattern)
    if alone:
        return re.compile(f"(?P<{alone[1]}>.+)", re.DOTALL)
    body = pattern.removeprefix(ANYWHERE)
    parts = re.split(r"(\{[a-z0-9_]+\}|\*)", body)
    steps = ["[^/]*" if part == "*" else _named(part) or re.escape(part) for part in parts]
    return re.compile(("(?:.*/)?" if body != pattern else "") + "".join(steps), re.DOTALL)


def _named(part: str) -> str:
    name = _NAME.fullmatch(part)
    return f"(?P<{name[1]}>[^/]+)" if name else ""
