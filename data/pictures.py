"""Pictures of clips as they are stored: opened as what the format says they are, and as nothing else.

Pillow would try all formats that it knows, and hand PostScript to Ghostscript, whatever the name of the file.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

from data.schema import PictureSpec


class BadPicture(ValueError):
    """A picture that is not what the format asks for; the text says what was found."""


def decoded(content: bytes, spec: PictureSpec, size: tuple[int, int] | None = None) -> np.ndarray:
    """Pixels of a stored picture, [H,W,3] or [H,W]. Raises BadPicture, before decoding where the header tells it.

    size: width and height that it must have, as in meta.image_size.
    """
    try:
        with Image.open(io.BytesIO(content), formats=(spec.format,)) as image:
            wanted = size or image.size
            if image.size != wanted or image.mode not in spec.modes:
                found = f"{list(image.size)} and {image.mode}"
                raise BadPicture(f"{found}, expected {list(wanted)} and {spec.modes[0]}")
            return np.asarray(image)
    except BadPicture:
        raise
    except UnidentifiedImageError:
        raise BadPicture(f"not a readable image ({len(content)} bytes that are no {spec.format})") from None
    except Exception as error:  # of whatever kind: Pillow has many for damaged and for huge pictures
        raise BadPicture(f"cannot be decoded ({error})") from None
