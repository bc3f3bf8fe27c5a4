"""The tokenizer of a model that reads text with a transformers encoder: it lies beside the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer


class Tokenizing:
    """Part of a model whose ``trunk`` may need a tokenizer. Small models read bytes and need none."""

    config: Any

    @property
    def readers(self) -> list[Any]:
        """The modules that read text with the tokenizer, one for each trunk that does."""
        return [module for module in self.modules() if hasattr(module, "tokenizer")]  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def reader(self) -> Any:
        """The first of them, or None."""
        return next(iter(self.readers), None)

    def read_with(self, tokenizer: Any) -> None:
        """Gives the tokenizer to all that read."""
        for reader in self.readers:
            reader.tokenizer = tokenizer

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *arguments: Any, **options: Any) -> Any:
        """As PreTrainedModel's; the tokenizer is loaded from the same place.

        Raises ValueError when weights are missing, as in files of another version: random ones in their place would
        look like a model.
        """
        asked = options.pop("output_loading_info", False)
        model, told = super().from_pretrained(  # pyright: ignore[reportAttributeAccessIssue]
            pretrained_model_name_or_path, *arguments, output_loading_info=True, **options
        )
        if missing := sorted(told["missing_keys"]):
            raise ValueError(
                f"{pretrained_model_name_or_path}: {len(missing)} weights are missing, the first is {missing[0]}; it "
                "was made by another version of the model. Train again, or load it with the code that made it."
            )
        if model.readers:
            model.read_with(AutoTokenizer.from_pretrained(pretrained_model_name_or_path, config=model.config))
        return (model, told) if asked else model

    def save_tokenizer(self, folder: Path) -> None:
        """Writes the tokenizer's files, if there is one, beside the weights in ``folder``."""
        if self.reader is not None:
            self.reader.tokenizer.save_pretrained(folder)

    def save_pretrained(self, save_directory: Any, *arguments: Any, **options: Any) -> None:
        """As PreTrainedModel's, and the tokenizer."""
        super().save_pretrained(save_directory, *arguments, **options)  # pyright: ignore[reportAttributeAccessIssue]
        self.save_tokenizer(Path(save_directory))
