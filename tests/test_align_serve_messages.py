"""Messages: numbers come through as they are, and nothing else comes through, however little or much it claims."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgpack
import numpy as np
import pytest

from align.serve.codec import pack, unpack
from align.serve.fields import checked
from align.serve.rejected import Rejected
from tests.serve_client import packed, unpacked

ARRAYS = [
    np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    np.asfortranarray(np.arange(6, dtype=">i4").reshape(2, 3)),
    np.array([[True, False]]),
    np.array([np.nan, np.inf], np.float16),
    np.array(2.5),
    np.arange(10, dtype=np.uint8)[::3],
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: array.dtype.str)
def test_arrays_come_through_as_they_are(array: np.ndarray) -> None:
    for got in (unpack(packed({"x": array}))["x"], unpacked(pack({"x": array}))["x"]):
        np.testing.assert_array_equal(got, array)
        assert got.dtype.name == array.dtype.name and got.shape == array.shape
    mine = unpack(packed({"x": array}))["x"]
    assert mine.flags.writeable and mine.flags.owndata and mine.dtype.isnative


def test_single_values_come_through() -> None:
    document = {"a": 1, "b": True, "c": 0.25, "d": "grün", "e": np.float32(0.5), "f": np.bool_(True), "g": np.int64(3)}
    assert unpack(packed(document)) == {**document, "e": 0.5, "f": True, "g": 3}


def claiming(**changes: Any) -> bytes:
    """A message with one array whose description is changed."""
    array = {"__ndarray__": True, "data": bytes(12), "dtype": "<f4", "shape": [3]} | changes
    return msgpack.packb({"x": {name.encode(): value for name, value in array.items()}}) or b""


BAD = {
    "an object array": claiming(dtype="|O"),
    "a structured array": claiming(dtype="|V12"),
    "complex numbers": claiming(dtype="<c8"),
    "text in an array": claiming(dtype="<U3"),
    "a dtype of several": claiming(dtype="f4,f4"),
    "a dtype that is no text": claiming(dtype=["<f4"]),
    "fewer bytes than the shape": claiming(shape=[4]),
    "more bytes than the shape": claiming(shape=[2]),
    "a shape beyond all memory": claiming(shape=[2**40, 2**40]),
    "a negative shape": claiming(shape=[-3]),
    "an empty shape": claiming(data=b"", shape=[0, 2**62]),
    "a shape of fractions": claiming(shape=[3.0]),
    "a shape of flags": claiming(shape=[True, 3]),
    "no shape": claiming(shape=None),
    "too many dimensions": claiming(data=bytes(4), shape=[1] * 9),
    "data that is text": claiming(data="123456789012"),
    "a scalar of text": msgpack.packb({"x": {b"__npgeneric__": True, b"data": "1", b"dtype": "<f4"}}),
    "a nested map": msgpack.packb({"x": {"y": 1}}),
    "a list": msgpack.packb({"x": [1.0, 2.0]}),
    "nothing": msgpack.packb({"x": None}),
    "bare bytes": msgpack.packb({"x": b"123"}),
    "a time": msgpack.packb({"x": msgpack.Timestamp(1)}),
    "an extension": msgpack.packb({"x": msgpack.ExtType(5, b"")}),
    "a name that is a number": b"\x81\x01\x02",
    "a name of bytes": msgpack.packb({b"x": 1}),
    "two messages": msgpack.packb({"x": 1}) * 2,  # pyright: ignore[reportOptionalOperand]
    "text that is none": b"\x81\xa1x\xa1\xff",
    "no map": msgpack.packb("x"),
    "the beginning of a map": b"\x81",
    "depth without end": b"\x91" * 100_000,
}


@pytest.mark.parametrize("message", BAD.values(), ids=BAD)
def test_what_is_no_such_message_is_rejected(message: bytes) -> None:
    with pytest.raises(Rejected, match=r"^(x|message): found .*; expected .*\. \w"):
        unpack(message)


GREEDY = {
    "a list said to be long": b"\xdd\xff\xff\xff\xff" * 50,
    "a map said to be long": b"\xdf\xff\xff\xff\xff" * 50,
    "text said to be long": b"\x81\xa1x\xdb\xff\xff\xff\xff",
    "many empty maps": b"\x81\xa1x" + b"\x98" * 5 + b"\x80" * 8**5,
}


@pytest.mark.parametrize("message", GREEDY.values(), ids=GREEDY)
def test_little_that_claims_to_be_much_costs_little(message: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(Rejected) as rejected:
            unpack(message)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 500_000
    assert len(str(rejected.value)) < 500


def test_what_is_told_of_a_long_name_is_short() -> None:
    with pytest.raises(Rejected) as rejected:
        checked({"y" * 100_000: 1}, (), {})
    assert len(str(rejected.value)) < 500


def test_only_numbers_are_sent() -> None:
    for value in (np.array([None]), np.array([1j]), object()):
        with pytest.raises(TypeError, match="cannot be sent"):
            pack({"x": value})
