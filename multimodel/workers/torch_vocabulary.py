"""The bytes that the tokens of a tokenizer stand for, which it never says itself."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
SPACE = "\u2581"  # a blank, as SentencePiece writes it


def pieces(tokenizer: Any, size: int) -> list[bytes]:
    """By token id, up to `size`: the bytes of each token, empty for a special one and for an id without a token.

    A word that begins with a blank has it, wherever it stands. Where the decoder is of a kind that joins words by
    rules of its own, a token is its name.
    """
    kinds = set(_kinds(tokenizer))
    found = [b""] * size
    for name, token in tokenizer.get_vocab().items():
        if token < size:
            found[token] = _bytes(name, kinds)
    for token, added in tokenizer.added_tokens_decoder.items():
        if token < size:
            found[token] = b"" if added.special else added.content.encode()
    return found


def exact(tokenizer: Any) -> bool:
    """Whether the bytes of tokens, joined, are the text: what a grammar needs."""
    return bool({"ByteLevel", "ByteFallback", "Metaspace"} & set(_kinds(tokenizer)))


def _kinds(tokenizer: Any) -> Iterator[str]:
    """The parts of the decoder, by their types in tokenizer.json."""
    fast = getattr(tokenizer, "backend_tokenizer", None)
    decoder = json.loads(fast.to_str())["decoder"] if fast is not None else None
    for part in (decoder or {}).get("decoders", [decoder] if decoder else []):
        yield part["type"]


def _bytes(name: str, kinds: set[str]) -> bytes:
    if "ByteLevel" in kinds:
        return bytes(ALPHABET[letter] for letter in name if letter in ALPHABET)
    if found := _BYTE.fullmatch(name):
        return bytes([int(found[1], 16)])
    return name.replace(SPACE, " ").encode("utf-8", "replace")


def _alphabet() -> dict[str, int]:
    """The letter that stands for each byte in a byte-level vocabulary, as GPT-2 has it: itself where it can be seen,
    else one of the letters from U+0100 on, in order."""
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in seen]
    return {chr(byte): byte for byte in seen} | {chr(256 + i): byte for i, byte in enumerate(hidden)}


ALPHABET = _alphabet()
