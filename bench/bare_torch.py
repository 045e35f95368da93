"""`model.generate`, greedy, without a streamer: `bench.bare_torch FOLDER DTYPE THREADS`."""

from __future__ import annotations

import sys
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from .bare import Said, serve


def main(folder: str, dtype: str, threads: str) -> None:
    """Load the folder and answer."""
    torch.set_num_threads(int(threads))
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    model.generation_config.max_length = None
    serve(lambda prompt, max_tokens: _answer(model, tokenizer, prompt, max_tokens))


def _answer(model: Any, tokenizer: Any, prompt: str, max_tokens: int) -> Said:
    turns = [{"role": "user", "content": prompt}]
    inputs = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    count = inputs["input_ids"].shape[1]
    with torch.inference_mode():
        out = model.generate(**inputs, max_new_tokens=max_tokens, do_sample=False)
    ids = out[0, count:].tolist()
    ends = model.generation_config.eos_token_id
    stopped = ids[-1] in (ends if isinstance(ends, list) else [ends])
    return Said(count, len(ids) - stopped)


if __name__ == "__main__":
    main(*sys.argv[1:])
