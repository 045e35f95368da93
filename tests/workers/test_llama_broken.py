"""GGUF files whose header is whole and whose content is not: what is wrong is said in plain words first."""

from __future__ import annotations

from pathlib import Path

import pytest

from multimodel.errors import BrokenFile

from ..support import needs

pytestmark = needs("llama_cpp", "gguf", "torch", "transformers")


@pytest.mark.parametrize(
    ("there", "instead", "says"),
    [
        (
            b"blk.1.ffn_norm.weight",
            b"blk.1.ffn_nonesu.chxx",
            "a part of it is missing or does not fit. llama.cpp says: ",
        ),
        (
            b"tokenizer.ggml.model",
            b"tokenizer.ggml.nones",
            "its tokenizer is missing or does not fit. llama.cpp says: ",
        ),
    ],
)
def test_what_is_missing_is_said_in_plain_words(
    tiny_gguf_file: Path, tmp_path: Path, there: bytes, instead: bytes, says: str
) -> None:
    from multimodel.workers.llama_native import Model

    content = tiny_gguf_file.read_bytes()
    assert content.count(there) == 1 and len(there) == len(instead)
    path = tmp_path / "broken.gguf"
    path.write_bytes(content.replace(there, instead))
    with pytest.raises(BrokenFile) as caught:
        Model(path, 0, lambda done: None)
    assert str(caught.value).startswith(f"broken.gguf cannot be loaded: {says}")
    assert "llama_model_load" not in str(caught.value) and "elete" not in caught.value.hint
