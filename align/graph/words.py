"""An instruction -> the ids that a graph reads, by the rule in its metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from align.graph.contract import PAD_BYTE, START_BYTE, TEXT_RULES, ContractError, at, check

TOKENIZERS = "pip install tokenizers"


def tokenizer_of(document: Mapping[str, Any], stored: str | None) -> Any:
    """The tokenizer that the graph's text wants, or None. stored: the text of its tokenizer.json, data only.

    Raises ContractError for a rule that this code does not know, a tokenizer that is missing, or a missing package.
    """
    kind = at(document, "text.kind")
    if kind not in TEXT_RULES:
        raise ContractError(f"text.kind: the graph says {kind!r}; this code knows {', '.join(TEXT_RULES)}")
    check(document, {"text.rule": TEXT_RULES[kind]}, "this code")
    if kind == "bytes":
        return None
    if stored is None:
        raise ContractError(f"text.kind: the graph says {kind!r}, which needs a tokenizer; the file holds none")
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise ContractError(f"the graph's text needs the package tokenizers: {TOKENIZERS}") from None
    tokenizer = Tokenizer.from_str(stored)
    tokenizer.no_padding()
    if kind == "tokens":
        tokenizer.enable_truncation(at(document, "text.max_tokens"))
    else:
        tokenizer.no_truncation()
    return tokenizer


def ids_of(instruction: str, text: Mapping[str, Any], tokenizer: Any) -> np.ndarray:
    """i64 [1,L], L at least 2."""
    if text["kind"] == "bytes":
        ids = [START_BYTE, *instruction.strip().lower().encode()[: text["max_bytes"]]]
        ids += [PAD_BYTE] * (2 - len(ids))
    elif text["kind"] == "tokens":
        ids = tokenizer.encode(instruction).ids
    else:
        line, end = " ".join(instruction.replace("_", " ").split()), text["end_ids"]
        room = text["max_tokens"] - 1 - len(end)
        ids = [text["bos_id"], *tokenizer.encode(line, add_special_tokens=False).ids[:room], *end]
    return np.array([ids], np.int64)
