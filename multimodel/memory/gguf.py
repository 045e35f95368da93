"""The header of a GGUF file: facts about the architecture, and which tensors there are. Never the weights.

The format is described in the GGUF document of the ggml project: magic, version, two counts, key-value pairs, tensor
rows, then the data. Files come from strangers, so every count and length is checked against what the file can hold
before anything is made of it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import BrokenFile
from ..folder import OTHER_MODEL
from .source import Reader, Source

MAGIC = b"GGUF"
VERSIONS = (2, 3)
LIMIT = 128 << 20  # bytes of a header; the largest vocabularies take 20 MB
PAIRS = 1 << 16  # key-value pairs; models have about 50
TENSORS = 1 << 17  # a mixture of 256 experts in files of one tensor each has 47,000
NAME = 1 << 12  # bytes of a key or a tensor's name
TEXT = 1 << 16  # bytes of a text that is kept: a chat template is none of our facts
KEPT = 1 << 12  # elements of an array that is kept: one a layer, never a vocabulary
ALIGNMENT = 32
TOKEN_TYPES = "tokenizer.ggml.token_type_count"  # of the tokenizer, but without it no BERT is laid out
LARGEST = 1 << 60  # bytes

STRING, ARRAY = 8, 9
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
FORMATS: dict[int, tuple[str, int, int]] = {  # number: name, weights in a block, bytes of a block
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18), 42: ("Q2_0", 64, 18),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tensor:
    """One row of the header. `shape`: numbers along each axis, the contiguous one first."""

    name: str
    shape: tuple[int, ...]
    format: int  # a key of FORMATS

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """Its bytes."""
        _, block, width = FORMATS[self.format]
        return self.elements // block * width


@dataclass(frozen=True, slots=True)
class Header:
    """What the header of a GGUF file, or of several that make up one model, says."""

    facts: Mapping[str, Any]  # the values short enough to be kept; of an array of texts only the length
    tensors: tuple[Tensor, ...]
    raw: Mapping[str, bytes]  # every kept pair as it stands in the file, its key included
    size: int  # bytes of the files

    @property
    def architecture(self) -> str:
        """What llama.cpp calls it, for example llama or qwen3moe."""
        return str(self.facts.get("general.architecture", ""))

    @property
    def weights(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.size for tensor in self.tensors)

    def fact(self, key: str, default: Any = None) -> Any:
        """The value of `ARCHITECTURE.key`."""
        return self.facts.get(f"{self.architecture}.{key}", default)

    def tensor(self, name: str) -> Tensor | None:
        """The tensor of that name."""
        return next((tensor for tensor in self.tensors if tensor.name == name), None)


def read_header(sources: Sequence[Source], hint: str = OTHER_MODEL) -> Header:
    """The header of a model in one file or, in order, in several parts. Raises BrokenFile, mostly with `hint`."""
    parts = [_read(source, hint) for source in sources]
    first = parts[0]
    tensors = tuple(tensor for part in parts for tensor in part.tensors)
    if len({tensor.name for tensor in tensors}) < len(tensors):
        raise broken(sources[0].name, "two tensors have the same name", hint)
    return Header(first.facts, tensors, first.raw, sum(part.size for part in parts))


def broken(name: str, why: object, hint: str) -> BrokenFile:
    """The error for a file that is not a whole GGUF file."""
    return BrokenFile(f"{name} is damaged or incomplete ({why}).", hint=hint)


def _read(source: Source, hint: str) -> Header:
    try:
        return _parse(Reader(source, LIMIT), source.size)
    except (ValueError, OverflowError, struct.error) as error:
        raise broken(source.name, error, hint) from error


def _parse(reader: Reader, size: int) -> Header:
    if reader.take(len(MAGIC)) != MAGIC:
        hint = "Choose a model in GGUF format; the names of such files end in .gguf."
        raise BrokenFile(f"{reader.source.name} is no GGUF file.", hint=hint)
    version, tensors, pairs = struct.unpack("<IQQ", reader.take(20))
    if version not in VERSIONS:
        raise ValueError(f"version {version}")
    if pairs > PAIRS or tensors > TENSORS:
        raise ValueError(f"it claims {tensors:,} tensors and {pairs:,} facts")
    facts, raw = _pairs(reader, pairs)
    rows = [_tensor(reader) for _ in range(tensors)]
    _check_extent(rows, _alignment(facts), reader.at, size)
    return Header(facts, tuple(tensor for tensor, _ in rows), raw, size)


def _pairs(reader: Reader, count: int) -> tuple[dict[str, Any], dict[str, bytes]]:
    facts: dict[str, Any] = {}
    raw: dict[str, bytes] = {}
    for _ in range(count):
        start = reader.at
        key = _text(reader, NAME)
        kept, value = _value(reader)
        if key in facts:
            raise ValueError(f"{key!r} stands there twice")
        facts[key] = value
        if kept:
            raw[key] = bytes(reader.need(0)[start : reader.at])
    return facts, raw


def _value(reader: Reader) -> tuple[bool, Any]:
    """(whether it was kept, the value); what is not kept stands for itself by its length."""
    kind = _number(reader, "<I")
    if kind in SCALARS:
        return True, _number(reader, SCALARS[kind])
    if kind == STRING:
        length = _number(reader, "<Q")
        if length > TEXT:
            reader.skip(length)
            return False, length
        return True, reader.take(length).decode("utf-8", "replace")
    if kind == ARRAY:
        return _array(reader)
    raise ValueError(f"a value of type {kind}")


def _array(reader: Reader) -> tuple[bool, Any]:
    kind, count = _number(reader, "<I"), _number(reader, "<Q")
    if kind == STRING:
        _skip_texts(reader, count)
        return False, count
    if kind not in SCALARS:
        raise ValueError(f"an array of type {kind}")
    width = struct.calcsize(SCALARS[kind])
    if count > KEPT:
        reader.skip(count * width)
        return False, count
    return True, list(struct.unpack(f"<{count}{SCALARS[kind][1]}", reader.take(count * width)))


def _skip_texts(reader: Reader, count: int) -> None:
    """Walk over `count` texts: a vocabulary has a quarter of a million, so each step is as short as it can be."""
    data, at = reader.need(8 * count), reader.at  # each takes 8 bytes at least: a claim beyond the file ends here
    unpack = struct.Struct("<Q").unpack_from
    for _ in range(count):
        if at + 8 > len(data):
            reader.at = at
            data = reader.need(8)
        at += 8 + unpack(data, at)[0]
    reader.at = at
    reader.need(0)


def _tensor(reader: Reader) -> tuple[Tensor, int]:
    name = _text(reader, NAME)
    axes = _number(reader, "<I")
    if not 1 <= axes <= 4:
        raise ValueError(f"{name!r} has {axes} axes")
    shape = struct.unpack(f"<{axes}Q", reader.take(8 * axes))
    format, offset = _number(reader, "<I"), _number(reader, "<Q")
    if format not in FORMATS:
        raise ValueError(f"{name!r} is stored in an unknown format, number {format}")
    if not all(shape) or math.prod(shape) > LARGEST or shape[0] % FORMATS[format][1]:
        raise ValueError(f"{name!r} has the shape {shape}")
    return Tensor(name, shape, format), offset


def _check_extent(rows: Iterable[tuple[Tensor, int]], alignment: int, header: int, size: int) -> None:
    """Whether the tensors lie one after another and end where the file does."""
    end = 0
    for tensor, offset in rows:
        if offset != end:
            raise ValueError(f"{tensor.name!r} is not where it should be")
        end += _padded(tensor.size, alignment)
        last = tensor.size + offset
        if _padded(header, alignment) + last > size:
            raise ValueError(f"{tensor.name!r} ends behind the end of the file")


def _alignment(facts: Mapping[str, Any]) -> int:
    found = facts.get("general.alignment", ALIGNMENT)
    if not isinstance(found, int) or not 1 <= found <= 1 << 20:
        raise ValueError(f"an alignment of {found}")
    return found


def _padded(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment


def _text(reader: Reader, longest: int) -> str:
    length = _number(reader, "<Q")
    if length > longest:
        raise ValueError(f"a name of {length:,} bytes")
    return reader.take(length).decode("utf-8", "replace")


def _number(reader: Reader, layout: str) -> Any:
    return struct.unpack(layout, reader.take(struct.calcsize(layout)))[0]


def without_vocabulary(header: Header) -> tuple[bytes, int]:
    """A header of one file that says the same without the vocabulary, and the length of the file it belongs to.

    llama.cpp takes seconds to read a large vocabulary, which has no part in what a context takes but for its size.
    """
    left_out = ("tokenizer.", "split.", "general.alignment")
    kept = [raw for key, raw in header.raw.items() if key == TOKEN_TYPES or not key.startswith(left_out)]
    kept.append(_packed_text("tokenizer.ggml.model") + struct.pack("<I", STRING) + _packed_text("none"))
    if header.fact("vocab_size") is None and (words := vocabulary(header)):
        kept.append(_packed_text(f"{header.architecture}.vocab_size") + struct.pack("<II", 4, words))
    rows, end = bytearray(), 0
    for tensor in header.tensors:
        axes = len(tensor.shape)
        rows += _packed_text(tensor.name) + struct.pack(f"<I{axes}Q", axes, *tensor.shape)
        rows += struct.pack("<IQ", tensor.format, end)
        end += _padded(tensor.size, ALIGNMENT)
    top = MAGIC + struct.pack("<IQQ", VERSIONS[-1], len(header.tensors), len(kept))
    text = top + b"".join(kept) + rows
    text += bytes(-len(text) % ALIGNMENT)
    return text, len(text) + end


def vocabulary(header: Header) -> int:
    """How many tokens the model knows: rows of its embedding, or as it says; 0 where it does not say."""
    embedding = header.tensor("token_embd.weight")
    said = header.fact("vocab_size") or header.facts.get("tokenizer.ggml.tokens")
    return embedding.shape[-1] if embedding else int(said) if isinstance(said, int) else 0


def _packed_text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data
