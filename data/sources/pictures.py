"""Encoded pictures: sizes are read and limited before anything is decoded."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

from data.video import Unreadable

MAX_PIXELS = 50_000_000  # 8K is 33 million; a small file may declare billions
_COLOUR = ("JPEG", "PNG")
_DEPTH = ("TIFF", "PNG")
_WRONG = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)  # what Pillow raises on damage


def picture_size(encoded: bytes, where: str) -> tuple[int, int]:
    """Width and height by the header alone. Raises Unreadable (not_an_image, too_large)."""
    return _open(encoded, where, _COLOUR).size


def decode_picture(encoded: bytes, where: str) -> np.ndarray:
    """u8 [H,W,3] RGB of a JPEG or PNG; where names it in errors. Raises Unreadable (not_an_image, too_large)."""
    try:
        return np.asarray(_open(encoded, where, _COLOUR).convert("RGB"))
    except _WRONG as error:
        raise Unreadable("not_an_image", f"{where}: cannot be decoded ({error})") from None


def depth_size(encoded: bytes, where: str) -> tuple[int, int]:
    """Width and height of a depth picture by the header alone. Raises Unreadable (not_an_image, too_large)."""
    return _open(encoded, where, _DEPTH).size


def decode_depth(encoded: bytes, unit_m: float | None, where: str) -> np.ndarray:
    """f32 [H,W] metres of a TIFF or PNG with one channel; unit_m None: floats are metres, integers millimetres.

    Values that are no distance (negative, not finite) become 0, not measured. Raises Unreadable.
    """
    return metres(_one_channel(encoded, where), unit_m)


def decode_sensor_depth(encoded: bytes, unit_m: float, where: str) -> np.ndarray:
    """f32 [H,W] metres of a TIFF or PNG of 16 bits, or a TIFF of floats; of what else it is, Unreadable (bad_dtype)."""
    values = _one_channel(encoded, where)
    if values.dtype.kind + str(values.dtype.itemsize) not in ("u2", "f4"):
        raise Unreadable("bad_dtype", f"{where}: depth is {values.dtype}, expected 16 bits (uint16), or float32")
    return metres(values, unit_m)


def _one_channel(encoded: bytes, where: str) -> np.ndarray:
    try:
        values = np.asarray(_open(encoded, where, _DEPTH))
    except _WRONG as error:
        raise Unreadable("not_an_image", f"{where}: cannot be decoded ({error})") from None
    if values.ndim != 2:
        raise Unreadable("bad_shape", f"{where}: depth has shape {list(values.shape)}, expected one channel")
    return values


def metres(values: np.ndarray, unit_m: float | None) -> np.ndarray:
    """Depth of any number type as f32 metres, 0 = not measured; unit_m as in ``decode_depth``."""
    unit = (1.0 if values.dtype.kind == "f" else 0.001) if unit_m is None else unit_m
    depth = values.astype(np.float32) * np.float32(unit)
    depth[~np.isfinite(depth) | (depth < 0)] = 0
    return depth


def _open(encoded: bytes, where: str, formats: tuple[str, ...]) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(encoded), formats=formats)
    except UnidentifiedImageError:
        raise Unreadable("not_an_image", f"{where}: {len(encoded)} bytes that are no {' or '.join(formats)}") from None
    except Image.DecompressionBombError as error:
        raise Unreadable("too_large", f"{where}: {error}") from None
    except _WRONG as error:
        raise Unreadable("not_an_image", f"{where}: cannot be decoded ({error})") from None
    if image.width * image.height > MAX_PIXELS:
        raise Unreadable("too_large", f"{where}: declares {image.width}x{image.height}, more than {MAX_PIXELS} pixels")
    return image
