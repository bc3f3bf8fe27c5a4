"""Gates name score, value and limit; defaults can be replaced or switched off one by one."""

from __future__ import annotations

import pytest

from extract.gates import Gate, faults, merged


def test_a_fault_names_score_value_and_limit() -> None:
    gates = {"visible": Gate(at_least=0.2), "speed": Gate(at_most=4)}
    assert faults({"visible": 0.3, "speed": 1}, gates) == []
    assert faults({"visible": 0.123456, "speed": 5.5}, gates) == [
        ("gate_visible", "visible 0.1235 is below 0.2"),
        ("gate_speed", "speed 5.5 is above 4"),
    ]


def test_a_score_that_is_not_a_number_does_not_pass() -> None:
    assert faults({"visible": float("nan")}, {"visible": Gate(at_least=0.2)}) != []


def test_a_score_that_was_not_measured_passes() -> None:
    assert faults({}, {"visible": Gate(at_least=0.2)}) == []


def test_defaults_are_replaced_or_switched_off_by_name() -> None:
    gates = merged({"visible": Gate(at_least=0.2), "speed": Gate(at_most=4)}, {"speed": None})
    assert faults({"visible": 0.1, "speed": 99}, gates) == [("gate_visible", "visible 0.1 is below 0.2")]


def test_a_gate_without_a_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="needs at_least or at_most"):
        Gate()
