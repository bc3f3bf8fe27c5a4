"""Tiny encoders and contexts for the predictor: real classes, random weights, saved as real checkpoints are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    Dinov2Config,
    Dinov2Model,
    GemmaTokenizer,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PI0Config,
    PI0ForConditionalGeneration,
    SiglipConfig,
    SiglipModel,
)

WORDS = ["open", "close", "drawer", "push", "the", "red", "puck"]
HALF = [0.5, 0.5, 0.5]
TOKENS = 5 + 256 + 1  # special ones, bytes, a space
_GEMMA = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}


def paligemma_config(text: str = "gemma", **changes: Any) -> dict[str, Any]:
    """PaliGemma of two layers and 64 channels that sees 28 x 28 pixels as four patches."""
    language = _GEMMA | {"model_type": text, "hidden_size": 64, "intermediate_size": 128, "vocab_size": TOKENS}
    vision = {
        "model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 2, "image_size": 28, "patch_size": 14, "vision_use_head": False,
    }  # fmt: skip
    sizes = {"projection_dim": 64, "hidden_size": 64, "vocab_size": TOKENS, "image_token_index": TOKENS}
    return {"model_type": "paligemma", "text_config": language | changes, "vision_config": vision, **sizes}


def pi0_config(text: str = "gemma", **changes: Any) -> PI0Config:
    """PI0Model with that context and an expert of 32 channels. changes: of context and expert alike."""
    expert = _GEMMA | {"model_type": "gemma", "hidden_size": 32, "intermediate_size": 64} | changes
    return PI0Config(vlm_config=paligemma_config(text, **changes), dit_config=expert)


def gemma_tokenizer() -> GemmaTokenizer:
    """Gemma's tokenizer that knows bytes only."""
    vocabulary = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    return GemmaTokenizer(vocab={token: number for number, token in enumerate(vocabulary)})


def tiny_pi0(folder: Path, **changes: Any) -> Path:
    """A pi0 policy as its checkpoints are: context, expert, action projections."""
    torch.manual_seed(0)
    PI0ForConditionalGeneration(pi0_config(**changes)).save_pretrained(folder)
    return _processing(folder)


def tiny_paligemma(folder: Path, **changes: Any) -> Path:
    """PaliGemma with its language head."""
    torch.manual_seed(1)
    PaliGemmaForConditionalGeneration(PaliGemmaConfig(**paligemma_config(**changes))).save_pretrained(folder)
    return _processing(folder)


def _processing(folder: Path) -> Path:
    gemma_tokenizer().save_pretrained(folder)
    _pixels(folder, HALF, HALF)
    return folder


def tiny_siglip(folder: Path) -> Path:
    """SigLIP's two towers in one checkpoint; the image side is 32 pixels in patches of 8."""
    torch.manual_seed(2)
    size = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    text: dict[str, Any] = {"vocab_size": 40, "max_position_embeddings": 16, "projection_size": 24, **size, **ends}
    config = SiglipConfig(text_config=text, vision_config={"image_size": 32, "patch_size": 8, **size})
    SiglipModel(config).save_pretrained(folder)
    word_tokenizer(folder, model_input_names=["input_ids"])
    _pixels(folder, HALF, HALF)
    return folder


def tiny_dinov2(folder: Path) -> Path:
    """DINOv2 whose table of places is for 56 x 56 pixels in patches of 14."""
    torch.manual_seed(3)
    config = Dinov2Config(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=56, patch_size=14
    )
    Dinov2Model(config).save_pretrained(folder)
    _pixels(folder, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    return folder


def tiny_minilm(folder: Path) -> Path:
    """MiniLM's architecture (BERT) with a tokenizer of a few words."""
    torch.manual_seed(4)
    config = BertConfig(
        vocab_size=40, hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    word_tokenizer(folder)
    return folder


def word_tokenizer(folder: Path, **options: Any) -> None:
    """BERT's tokenizer with the words of the tests, and single letters."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join([*words, *(f"[unused{n}]" for n in range(40 - len(words)))]) + "\n")
    BertTokenizer(vocab=str(vocabulary), **options).save_pretrained(folder)


def _pixels(folder: Path, mean: list[float], std: list[float]) -> None:
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": mean, "image_std": std}))
