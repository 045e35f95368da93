"""`Llama.create_completion(stream=True)`, greedy: `bench.bare_llama FILE FLASH THREADS`; FLASH: "flash" or "plain"."""

from __future__ import annotations

import sys
import time

import llama_cpp
from llama_cpp import Llama
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

from .bare import Said, serve


def main(path: str, flash: str, threads: str) -> None:
    """Load the file and answer, with flash attention or plain."""
    without_amx()
    count = int(threads)
    model = Llama(path, n_ctx=0, n_threads=count, n_threads_batch=count, flash_attn=flash == "flash", verbose=False)
    serve(lambda prompt, max_tokens: _answer(model, prompt, max_tokens))
    model.close()


def without_amx() -> None:
    """As the engine does: with AMX buffers the first prompt of a quantised model can end the process (SIGSEGV)."""
    defaults = llama_cpp.llama_cpp.llama_model_default_params

    def changed() -> llama_cpp.llama_model_params:
        params = defaults()
        params.use_extra_bufts = b"AMX_INT8 = 1" not in llama_cpp.llama_print_system_info()
        return params

    llama_cpp.llama_cpp.llama_model_default_params = changed


def _answer(model: Llama, prompt: str, max_tokens: int) -> Said:
    tokens = rendered(model, prompt)
    first = None
    for _ in model.create_completion(tokens, max_tokens=max_tokens, temperature=0.0, stream=True):
        first = first or time.perf_counter()
    return Said(len(tokens), written(model.n_tokens - len(tokens), max_tokens), first)


def written(evaluated: int, limit: int) -> int:
    """Tokens of an answer: the last one before the limit was never evaluated."""
    return limit if evaluated >= limit - 1 else evaluated


def rendered(model: Llama, prompt: str) -> list[int]:
    """The tokens of a prompt in the model's chat template."""
    template = model.metadata["tokenizer.chat_template"]
    bos, eos = (model._model.token_get_text(token) for token in (model.token_bos(), model.token_eos()))
    text = Jinja2ChatFormatter(template, eos, bos)(messages=[{"role": "user", "content": prompt}]).prompt
    return list(model.tokenize(text.encode(), add_bos=False, special=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
