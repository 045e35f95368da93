"""Reading the header of a GGUF file: what it says, and that no lie in it is believed."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bench.shapes import MODELS, Gguf, dense, gemma4, nemotron_h, qwen35
from multimodel.errors import BrokenFile
from multimodel.memory.gguf import KEPT, PAIRS, TENSORS, Header, read_header, vocabulary, without_vocabulary
from multimodel.memory.gguf_shape import shape_of
from multimodel.memory.shape import Layer
from multimodel.memory.source import CHUNK, FileSource
from multimodel.memory.subject import on_disk

from .support import GUIDE_GGUF, needs


@dataclass
class Bytes:
    """A file in memory that counts what is read of it."""

    content: bytes
    size: int = 0
    name: str = "some.gguf"
    reads: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.size = self.size or len(self.content)

    def read(self, start: int, length: int) -> bytes:
        """See `Source`."""
        self.reads.append((start, length))
        return self.content[start : start + length]


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def tensor(name: str = "t", shape: tuple[int, ...] = (32,), format: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape) + struct.pack("<IQ", format, offset)


def file(pairs: list[bytes], tensors: list[bytes], *, data: int = 4096, counts: tuple[int, int] | None = None) -> bytes:
    """A GGUF file of these parts, with so many bytes of weights."""
    claimed = counts or (len(tensors), len(pairs))
    head = b"GGUF" + struct.pack("<IQQ", 3, *claimed) + b"".join(pairs) + b"".join(tensors)
    return head + bytes(-len(head) % 32 + data)


def read(content: bytes, size: int = 0) -> Header:
    return read_header([Bytes(content, size)])


ARCH = pair("general.architecture", 8, text("llama"))


def test_facts_tensors_and_sizes() -> None:
    many = pair("llama.attention.head_count_kv", 9, struct.pack("<IQ", 4, 3) + struct.pack("<3I", 8, 0, 4))
    found = read(file([ARCH, many], [tensor("a", (64, 2), 8), tensor("b", (5,), 0, 160)]))
    assert (found.architecture, found.fact("attention.head_count_kv")) == ("llama", [8, 0, 4])
    assert [(t.name, t.elements, t.size) for t in found.tensors] == [("a", 128, 136), ("b", 5, 20)]
    assert found.weights == 156


def test_a_vocabulary_is_counted_and_not_kept() -> None:
    words = b"".join(text(f"word{i}") for i in range(KEPT + 1))
    tokens = pair("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, KEPT + 1) + words)
    scores = pair("tokenizer.ggml.scores", 9, struct.pack("<IQ", 6, KEPT + 1) + bytes(4 * (KEPT + 1)))
    found = read(file([tokens, ARCH, scores], [tensor()]))
    assert found.facts["tokenizer.ggml.tokens"] == found.facts["tokenizer.ggml.scores"] == KEPT + 1
    assert vocabulary(found) == KEPT + 1
    assert set(found.raw) == {"general.architecture"}


def test_only_the_header_is_read_in_growing_pieces() -> None:
    long = pair("tokenizer.chat_template", 8, text("x" * (3 * CHUNK)))
    source = Bytes(file([long, ARCH], [tensor()], data=1 << 25))
    read_header([source])
    assert [length // CHUNK for _, length in source.reads] == [1, 2, 4]
    assert source.reads[-1][0] + source.reads[-1][1] < source.size // 4


LIES = {
    "no magic": b"GGUX" + file([ARCH], [tensor()])[4:],
    "empty": b"",
    "version of long ago": b"GGUF" + struct.pack("<I", 1) + file([ARCH], [tensor()])[8:],
    "other byte order": b"GGUF" + struct.pack(">I", 3) + file([ARCH], [tensor()])[8:],
    "2^60 tensors": file([ARCH], [tensor()], counts=(1 << 60, 1)),
    "2^60 facts": file([ARCH], [tensor()], counts=(1, 1 << 60)),
    "more tensors than any model": file([ARCH], [], counts=(TENSORS + 1, 1)),
    "more facts than any model": file([], [], counts=(0, PAIRS + 1)),
    "more tensors than there are": file([ARCH], [tensor()], counts=(2, 1), data=0),
    "a key of 2^62 bytes": file([struct.pack("<Q", 1 << 62)], []),
    "a text of 2^62 bytes": file([pair("a", 8, struct.pack("<Q", 1 << 62))], []),
    "an array of 2^61 numbers": file([pair("a", 9, struct.pack("<IQ", 4, 1 << 61))], []),
    "an array of 2^61 texts": file([pair("a", 9, struct.pack("<IQ", 8, 1 << 61))], []),
    "an array of texts with one of 2^63 bytes": file(
        [pair("a", 9, struct.pack("<IQ", 8, 2) + struct.pack("<QQ", 1 << 63, 0))], []
    ),
    "an array of arrays": file([pair("a", 9, struct.pack("<IQ", 9, 1))], []),
    "a value of an unknown type": file([pair("a", 13, b"")], []),
    "the same key twice": file([ARCH, ARCH], [tensor()]),
    "the same tensor twice": file([ARCH], [tensor(), tensor(offset=128)]),
    "a tensor without axes": file([ARCH], [tensor(shape=())]),
    "a tensor of five axes": file([ARCH], [tensor(shape=(32,) * 5)]),
    "a tensor of nothing": file([ARCH], [tensor(shape=(32, 0))]),
    "a tensor of 2^128 numbers": file([ARCH], [tensor(shape=(1 << 63, 1 << 63))]),
    "a tensor in a format that was removed": file([ARCH], [tensor(format=4)]),
    "rows that are no whole blocks": file([ARCH], [tensor(shape=(33,), format=8)]),
    "a tensor behind the end": file([ARCH], [tensor(shape=(32, 1 << 40))]),
    "a tensor elsewhere": file([ARCH], [tensor(offset=64)]),
    "a hole between tensors": file([ARCH], [tensor("a"), tensor("b", offset=256)]),
    "an alignment of nothing": file([ARCH, pair("general.alignment", 4, bytes(4))], [tensor()]),
    "an alignment that is a text": file([ARCH, pair("general.alignment", 8, text("x"))], [tensor()]),
}


@pytest.mark.parametrize("content", LIES.values(), ids=LIES)
def test_no_lie_is_believed(content: bytes) -> None:
    source = Bytes(content)
    with pytest.raises(BrokenFile, match=r"some\.gguf is (damaged|no GGUF file)") as caught:
        read_header([source])
    assert caught.value.hint
    assert sum(length for _, length in source.reads) <= CHUNK


def test_nobody_is_told_to_delete_a_file_that_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "passwd"
    path.write_text("root:x:0:0:root:/root:/bin/sh\n")
    with pytest.raises(BrokenFile, match="passwd is no GGUF file") as caught:
        on_disk(path, "x")
    assert "Choose a model" in caught.value.hint and "elete" not in caught.value.hint


@pytest.mark.parametrize("content", [file([ARCH], [tensor()])[:-4000], b""], ids=["cut", "empty"])
def test_only_a_download_of_ours_is_to_be_deleted(tmp_path: Path, content: bytes) -> None:
    for folder, says in (("own", "from where it came"), ("models--o--r/snapshots/1", "Delete o/r in the Explorer")):
        path = tmp_path / folder / "m.gguf"
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        with pytest.raises(BrokenFile, match=r"m\.gguf is damaged or incomplete") as caught:
            on_disk(path, "x")
        assert says in caught.value.hint


def test_a_cut_file_is_refused_wherever_it_is_cut() -> None:
    whole = file([ARCH, pair("llama.block_count", 4, struct.pack("<I", 1))], [tensor("a", (8, 8))], data=256)
    assert read(whole).weights == 256
    for end in range(0, len(whole), 7):
        with pytest.raises(BrokenFile):
            read(whole[:end])


def test_damaged_headers_are_read_or_refused(tmp_path: Path) -> None:
    """Nothing but our own error comes out, and no figure is beyond what the file can hold."""
    chance = random.Random(7)
    whole = MODELS["gpt2"]().write(tmp_path / "whole.gguf").read_bytes()[:9000]
    refused = 0
    for _ in range(400):
        content = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        try:
            found = read(bytes(content), 1 << 33)
            shape = shape_of(found)
        except BrokenFile:
            refused += 1
        else:
            assert 0 <= found.weights <= 1 << 33
            assert len(shape.layers) <= 4096
    assert refused > 20


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(BrokenFile, match="cannot be read"):
        read_header([FileSource(tmp_path / "none.gguf")])


def test_parts_are_one_model() -> None:
    one = file([ARCH, pair("split.count", 2, struct.pack("<H", 2))], [tensor("a", (8, 4)), tensor("b", (8,), 0, 128)])
    two = file([pair("split.no", 2, struct.pack("<H", 1))], [tensor("c", (16,))])
    whole = read_header([Bytes(one), Bytes(two)])
    assert [t.name for t in whole.tensors] == ["a", "b", "c"]
    content, length = without_vocabulary(whole)
    again = read(content, length)
    assert (again.tensors, again.facts["tokenizer.ggml.model"]) == (whole.tensors, "none")
    assert not any(key.startswith("split") for key in again.facts)


def test_the_vocabulary_can_be_left_out() -> None:
    header = read_header([FileSource(GUIDE_GGUF)])
    content, length = without_vocabulary(header)
    again = read(content, length)
    assert again.tensors == header.tensors
    assert vocabulary(again) == again.fact("vocab_size") == header.facts["tokenizer.ggml.tokens"]
    assert len(content) < 4000 < GUIDE_GGUF.stat().st_size


@needs("gguf")
def test_what_the_format_s_own_library_writes(tiny_gguf_file: Path) -> None:
    import gguf

    reader = gguf.GGUFReader(tiny_gguf_file)
    header = read_header([FileSource(tiny_gguf_file)])
    assert {t.name: (tuple(map(int, t.shape)), int(t.n_bytes)) for t in reader.tensors} == {
        t.name: (t.shape, t.size) for t in header.tensors
    }
    shape = shape_of(header)
    assert (shape.layers, shape.heads, shape.context_limit) == ((Layer(32, 32), Layer(32, 32)), 2, 512)


@needs("gguf")
def test_formats_are_those_of_the_library() -> None:
    from gguf.constants import GGML_QUANT_SIZES

    from multimodel.memory.gguf import FORMATS

    differing = {"Q8_1"}  # whose scale has another width in llama.cpp itself
    for kind, (block, size) in GGML_QUANT_SIZES.items():
        assert kind.name in differing or FORMATS[int(kind)] == (kind.name, block, size)


def shape_for(gguf: Gguf, tmp_path: Path) -> tuple[Layer, ...]:
    return shape_of(read_header([FileSource(gguf.write(tmp_path / "x.gguf"))])).layers


def test_layers_with_a_window(tmp_path: Path) -> None:
    gemma = dense("gemma3", 12, 256, 512, 4, 2, 1000, 8192, head=64, norms=True, gemma=True, window=512)
    assert [layer.window for layer in shape_for(gemma, tmp_path)] == ([512] * 5 + [0]) * 2
    plain = dense("llama", 2, 256, 512, 4, 2, 1000, 8192, window=512)
    assert [layer.window for layer in shape_for(plain, tmp_path)] == [0, 0]  # llama.cpp ignores Mistral's


def test_heads_of_every_layer(tmp_path: Path) -> None:
    layers = shape_for(gemma4(6), tmp_path)
    assert layers[0] == Layer(16 * 256, 16 * 256, 1024)
    assert layers[5] == Layer(4 * 512, 4 * 512)


def test_recurrent_layers(tmp_path: Path) -> None:
    mixed = shape_for(qwen35(8, 512, 1024, 4, 2, 16), tmp_path)
    assert [bool(layer.state) for layer in mixed] == [True, True, True, False] * 2
    assert mixed[0].state == 3 * (2 * 16 * 128 + 128 * 16) + 128 * 128 * 16
    kinds = [("state" if x.state else "cache" if x.key else "") for x in shape_for(nemotron_h("ME*M"), tmp_path)]
    assert kinds == ["state", "", "cache", "state"]
