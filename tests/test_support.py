"""The models that other tests stand on are one model in two forms."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import is_outside

from .support import needs

TEXT = "the <|user|>cat's café 🙂\n  naïve 12345"


@needs("torch", "transformers", "llama_cpp", "gguf")
def test_both_forms_read_and_say_the_same(tiny_folder: Path, tiny_gguf_file: Path) -> None:
    import torch
    from llama_cpp import Llama
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    model = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
    llama = Llama(str(tiny_gguf_file), n_ctx=256, n_threads=1, n_threads_batch=1, verbose=False, type_k=0, type_v=0)
    try:
        prompt = tokenizer.encode(TEXT, add_special_tokens=False)
        assert llama.tokenize(TEXT.encode(), add_bos=False, special=True) == prompt
        assert tokenizer.decode(prompt) == TEXT
        said = model.generate(torch.tensor([prompt]), max_new_tokens=24, do_sample=False)[0, len(prompt) :].tolist()
        heard = []
        for token in llama.generate(prompt, temp=0.0, repeat_penalty=1.0):
            heard.append(token)
            if len(heard) == len(said):
                break
        assert heard == said
        assert len(set(said)) > 3
    finally:
        llama.close()


@pytest.mark.parametrize("address", [("192.0.2.1", 80), ("2001:db8::1", 80, 0, 0), "huggingface.co", b"example.com"])
def test_other_machines_are_outside(address: object) -> None:
    assert is_outside(address)


@pytest.mark.parametrize("address", [("127.0.0.1", 80), ("::1", 80, 0, 0), "localhost", "/tmp/socket", None])
def test_this_machine_is_not(address: object) -> None:
    assert not is_outside(address)
