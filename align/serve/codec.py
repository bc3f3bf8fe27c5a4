"""Messages of openpi's protocol: msgpack in which an array is a map of its bytes, dtype and shape.

    array:   {b"__ndarray__": True, b"data": bytes, b"dtype": "<f4", b"shape": [2, 3]}
    scalar:  {b"__npgeneric__": True, b"data": 1.5, b"dtype": "<f4"}

What is received is one flat map of text, numbers and arrays of numbers. Nothing in it is ever unpickled or executed,
and nothing is allocated for what a message says of itself before that is held against the bytes that came.
"""

from __future__ import annotations

import math
from typing import Any

import msgpack
import numpy as np

from align.serve.rejected import Rejected, problem, shown

KINDS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
DTYPES = frozenset(order + kind for order in "<>|=" for kind in KINDS)
MOST_DIMENSIONS = 8
MOST_FIELDS = 64
_MOST_CONTAINERS = 4 * MOST_FIELDS  # a few bytes of nested empty lists would else become gigabytes of objects
_ARRAY, _SCALAR = b"__ndarray__", b"__npgeneric__"


def pack(document: dict[str, Any]) -> bytes:
    """A message of text, numbers, lists, maps and numeric arrays."""
    return msgpack.Packer(default=_packed).pack(document)


def _packed(value: Any) -> dict[bytes, Any]:
    if not isinstance(value, np.ndarray) or value.dtype.str not in DTYPES:
        raise TypeError(f"{type(value).__name__} cannot be sent")
    return {_ARRAY: True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}


def unpack(message: bytes) -> dict[str, Any]:
    """Fields by name: str, bool, int, float, or an array in this machine's byte order that is the caller's own.

    Raises Rejected for what is not such a message.
    """
    left = _MOST_CONTAINERS

    def counted(container: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError(f"more than {_MOST_CONTAINERS} maps and lists")
        return container

    try:
        document = msgpack.unpackb(
            message,
            object_hook=counted,
            list_hook=counted,
            max_array_len=MOST_DIMENSIONS,
            max_map_len=MOST_FIELDS,
            max_ext_len=0,
        )
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise Rejected(problem("message", f"no msgpack ({error})", _EXPECTED, _REMEDY)) from None
    if not isinstance(document, dict) or not all(isinstance(name, str) for name in document):
        raise Rejected(problem("message", shown(type(document).__name__), _EXPECTED, _REMEDY))
    return {name: _value(name, value) for name, value in document.items()}


_EXPECTED = "one msgpack map of field names to text, numbers and numeric arrays"
_REMEDY = "Pack a flat dict as openpi-client's msgpack_numpy does."
_DATA = "Send text, numbers or numpy arrays of numbers."


def _value(name: str, value: Any) -> Any:
    if isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, dict) and _ARRAY in value:
        return _array(name, value)
    if isinstance(value, dict) and _SCALAR in value:
        return _scalar(name, value)
    raise Rejected(problem(name, f"a value of type {type(value).__name__}", "text, a number or an array", _DATA))


def _array(name: str, value: dict[Any, Any]) -> np.ndarray:
    data, shape = value.get(b"data"), value.get(b"shape")
    dtype = _dtype(name, value)
    if not isinstance(shape, list) or not all(type(size) is int and size > 0 for size in shape):
        raise Rejected(problem(name, f"shape {shown(shape)}", "positive whole numbers", "Send no empty arrays."))
    if not isinstance(data, bytes):
        raise Rejected(problem(name, f"data of type {type(data).__name__}", "bytes", "Pack array.tobytes()."))
    wanted = math.prod(shape) * dtype.itemsize
    if len(data) != wanted:
        raise Rejected(
            problem(name, f"{len(data)} bytes", f"{wanted} for {dtype.name} {shape}", "Pack array.tobytes().")
        )
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def _scalar(name: str, value: dict[Any, Any]) -> bool | int | float:
    number = value.get(b"data")
    _dtype(name, value)
    if not isinstance(number, (bool, int, float)):
        raise Rejected(problem(name, f"a scalar of type {type(number).__name__}", "a number", _DATA))
    return number


def _dtype(name: str, value: dict[Any, Any]) -> np.dtype[Any]:
    text = value.get(b"dtype")
    if not isinstance(text, str) or text not in DTYPES:
        raise Rejected(problem(name, f"dtype {shown(text)}", f"one of {', '.join(KINDS)}", _DATA))
    return np.dtype(text)
