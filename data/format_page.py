"""docs/format.md, generated from the schema."""

from __future__ import annotations

from data.schema import FIELDS, PICTURES, SCHEMA_VERSION, ActionSpec, ClipMeta
from pipeline.config import Settings

PAGE = """# The format of a motion clip

Schema version {version}. This page is generated from `data/schema.py` by `python -m data format`.

One clip is one effector (one hand, one gripper) over one stretch of video: one WebDataset sample, that is a group of
files in a tar archive that share a key matching `[a-z0-9-]+`. T frames, N points, A action and P proprioception
dimensions. Arrays are NumPy files read with `allow_pickle=False`; nothing is ever unpickled. Values are raw and metric:
centring and normalisation happen in the loader. Transforms are named `a_from_b`. Pixel (row r, column c) has its centre
at (c + 0.5, r + 0.5).

| field | dtype, shape | unit, frame | rule |
|---|---|---|---|
{fields}
{pictures}
| `meta.json` | object | - | see below |

## meta.json

| key | meaning |
|---|---|
{meta}

## meta.action_spec

| key | meaning |
|---|---|
{action_spec}
"""


def format_page() -> str:
    """The whole page as Markdown."""
    fields = [
        f"| `{spec.name}.npy` | {spec.dtype} [{', '.join(map(str, spec.shape))}] | {spec.unit} | {spec.rule}"
        f"{'; labelled clips only' if spec.labelled_only else ''}{'; optional' if spec.optional else ''} |"
        for spec in FIELDS
    ]
    pictures = [
        f"| `0000.{spec.suffix}`, `0001.{spec.suffix}`, ... | T images{' or none' if spec.optional else ''} | "
        f"meta.image_size | {spec.rule} |"
        for spec in PICTURES
    ]
    return PAGE.format(
        version=SCHEMA_VERSION,
        fields="\n".join(fields),
        pictures="\n".join(pictures),
        meta=_rows(ClipMeta),
        action_spec=_rows(ActionSpec),
    )


def _rows(model: type[Settings]) -> str:
    return "\n".join(f"| `{name}` | {info.description or ''} |" for name, info in model.model_fields.items())
