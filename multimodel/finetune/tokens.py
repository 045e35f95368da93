"""How many tokens a base model makes of texts, counted by its own tokenizer without loading the model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from ..errors import BrokenFile
from .report import Count

FILE = "tokenizer.json"


def counter(folder: Path) -> Count | None:
    """What counts the tokens of texts for a model's folder, special ones included; None where it has no fast tokenizer.

    Raises BrokenFile.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing finer
        hint = "Choose another base model, or download it again."
        raise BrokenFile(f"{FILE} of {folder.name} cannot be read: {error}", hint=hint) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def count(texts: Sequence[str]) -> list[int]:
        return [len(found.ids) for found in tokenizer.encode_batch(list(texts))]

    return count
