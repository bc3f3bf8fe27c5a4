"""Kinds of fields that layouts share."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from data.sources.patterns import sound

PLACE = r"/?[A-Za-z0-9_.\- ]+(/[A-Za-z0-9_.\- ]+)*"
Place = Annotated[str, Field(pattern=f"^{PLACE}$")]
Number = Annotated[float, Field(gt=0, lt=1e6, allow_inf_nan=False)]
Pattern = Annotated[str, AfterValidator(sound)]
Column = Annotated[str, Field(min_length=1, max_length=200)]
MatrixRow = tuple[float, float, float]
