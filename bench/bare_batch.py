"""A bare greedy loop over llama.cpp's low-level API, all prompts in one batch: `bench.bare_batch FILE FLASH THREADS`.

A line in: {"prompts": [...], "max_tokens": n}. A line out: {"tokens", "seconds", "first"}.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import llama_cpp as native
from llama_cpp import Llama

from .bare_llama import rendered, without_amx

SEQUENCES = 8
CELLS = 512  # tokens of each sequence
BATCH = 512


class Loop:
    """A context with room for eight sequences, each with a KV stream of its own, as the engine has it."""

    def __init__(self, path: str, flash: bool, threads: int) -> None:
        without_amx()
        self.words = Llama(path, n_ctx=CELLS, n_threads=threads, n_threads_batch=threads, verbose=False)
        self.model = self.words._model.model
        params = native.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = SEQUENCES * CELLS, BATCH, BATCH
        params.n_seq_max, params.kv_unified = SEQUENCES, False
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = (
            native.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash else native.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )
        self.context = native.llama_init_from_model(self.model, params)
        self.vocab = native.llama_model_get_vocab(self.model)
        self.greedy = native.llama_sampler_init_greedy()
        self.batch = native.llama_batch_init(BATCH, 0, 1)

    def answer(self, prompts: list[str], max_tokens: int) -> dict[str, Any]:
        """Answer all prompts at once."""
        began = time.perf_counter()
        native.llama_memory_clear(native.llama_get_memory(self.context), False)
        asked = [rendered(self.words, prompt) for prompt in prompts]
        newest, first = [], []
        for sequence, tokens in enumerate(asked):
            newest.append(self._decode([(sequence, at, token) for at, token in enumerate(tokens)], last=True)[0])
            first.append(time.perf_counter() - began)
        count, places = len(asked), [len(tokens) for tokens in asked]
        running = list(range(len(asked)))
        for _ in range(max_tokens - 1):
            running = [s for s in running if not native.llama_vocab_is_eog(self.vocab, newest[s])]
            if not running:
                break
            found = self._decode([(s, places[s], newest[s]) for s in running])
            for s, token in zip(running, found, strict=True):
                newest[s], places[s], count = token, places[s] + 1, count + 1
        return {"tokens": count, "seconds": time.perf_counter() - began, "first": first}

    def _decode(self, parts: list[tuple[int, int, int]], last: bool = False) -> list[int]:
        """One forward pass over (sequence, position, token); the next token of each, or of the last one only."""
        batch = self.batch
        batch.n_tokens = len(parts)
        for i, (sequence, position, token) in enumerate(parts):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = token, position, 1, sequence
            batch.logits[i] = not last or i == len(parts) - 1
        if native.llama_decode(self.context, batch):
            raise RuntimeError("llama_decode failed")
        wanted = [len(parts) - 1] if last else range(len(parts))
        return [native.llama_sampler_sample(self.greedy, self.context, i) for i in wanted]


def main(path: str, flash: str, threads: str) -> None:
    """Load the file and answer lines until the input ends."""
    loop = Loop(path, flash == "flash", int(threads))
    for line in sys.stdin:
        print(json.dumps(loop.answer(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
