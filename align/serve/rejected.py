"""What a client is told about a message that cannot be answered. It costs the message, not the connection."""

from __future__ import annotations

_SHOWN = 100  # characters of a value


class Rejected(Exception):
    """One line for each problem: field, what was found, what was expected, what to do."""


def problem(field: str, found: str, expected: str, remedy: str) -> str:
    """One line of a Rejected."""
    return f"{shown(field)}: found {found}; expected {expected}. {remedy}"


def shown(value: object) -> str:
    """A value, cut short: what a client sent goes back to it and into the log."""
    text = value if isinstance(value, str) and value.isidentifier() else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
