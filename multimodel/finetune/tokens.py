"""What a report has to know of a base model: how it counts tokens, how many it reads, whether it is small.

Told by its files, without loading the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from ..errors import BrokenFile
from ..folder import CONFIG, read_json, tensors, weight_files
from .report import Base, Count

FILE = "tokenizer.json"
SETTINGS = "tokenizer_config.json"
OFFSET = 2  # positions that RoBERTa and its relatives do not use
SMALL = 30_000_000  # parameters below which a base model has read little and takes larger steps


def base_in(folder: Path) -> Base:
    """The base model of a folder. Raises BrokenFile."""
    parameters = sum(tensor.elements for path in weight_files(folder) for tensor in tensors(path).values())
    return Base(counter(folder), longest(folder), small=0 < parameters < SMALL)


def guesses(config: Mapping[str, Any]) -> bool:
    """Whether a model has a head that guesses masked words, by its configuration."""
    return any("MaskedLM" in str(name) for name in config.get("architectures") or ())


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


def longest(folder: Path, told: object = None) -> int:
    """Tokens that the model of a folder reads at most. `told`: what its tokenizer says; read where not given.

    Raises BrokenFile.
    """
    config = read_json(folder / CONFIG)
    if told is None and (folder / SETTINGS).exists():
        told = read_json(folder / SETTINGS).get("model_max_length")
    limits = [told, config.get("max_position_embeddings") or config.get("max_seq_len")]
    sane = [int(limit) for limit in limits if isinstance(limit, int) and 8 <= limit <= 1_000_000]
    offset = OFFSET if "roberta" in str(config.get("model_type")) and sane and min(sane) == sane[-1] else 0
    return min(sane) - offset if sane else Base().limit
