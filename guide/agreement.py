"""Compare the two engines that run `guide`: transformers on safetensors and llama.cpp on GGUF."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path

import llama_cpp
from llama_cpp import Llama
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from guide.batches import ID
from guide.dialogues import Answers, Turn
from guide.evaluate import continuations
from guide.model import CONTEXT, END

LONGEST_ANSWER = 120


@dataclass(frozen=True)
class Agreement:
    """How many of all test prompts the engines treat alike."""

    prompts: int
    same_tokens: int
    same_answers: int
    ended: int

    def percent(self, count: int) -> float:
        """Return a count as a share of all prompts."""
        return 100 * count / max(1, self.prompts)


def messages(turns: list[Turn], answers: Answers) -> list[dict[str, str]]:
    """Write a conversation up to its last question as chat messages."""
    chat: list[dict[str, str]] = []
    for turn in turns:
        chat.append({"role": "user", "content": turn.question})
        chat.append({"role": "assistant", "content": answers.variants(turn.label)[0]})
    return chat[:-1]


def until_end(tokens: Iterable[int]) -> list[int]:
    """Keep what comes before the end token."""
    return list(takewhile(lambda token: token != ID[END], tokens))


def open_llama(gguf: Path) -> Llama:
    """Open a GGUF file without AMX buffers, with which llama-cpp-python 0.3.36 crashes on quantised weights."""
    native = llama_cpp.llama_cpp
    defaults = native.llama_model_default_params

    def plain() -> llama_cpp.llama_model_params:
        settings = defaults()
        settings.use_extra_bufts = False
        return settings

    native.llama_model_default_params = plain
    try:
        return Llama(str(gguf), n_ctx=CONTEXT, n_threads=1, verbose=False)
    finally:
        native.llama_model_default_params = defaults


def llama_answer(llama: Llama, prompt: list[int]) -> list[int]:
    """Answer greedily with llama.cpp."""
    llama.reset()
    stream = llama.generate(prompt, temp=0.0, top_k=1, repeat_penalty=1.0)
    return until_end(islice(stream, LONGEST_ANSWER))


def compare(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, gguf: Path, chats: list[list[dict[str, str]]]
) -> Agreement:
    """Tokenise and answer every chat with both engines."""
    texts = [tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for chat in chats]
    prompts = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    answers = continuations(model, prompts, LONGEST_ANSWER)
    with closing(open_llama(gguf)) as llama:
        tokenised = [llama.tokenize(text.encode(), add_bos=False, special=True) for text in texts]
        answered = [llama_answer(llama, prompt) for prompt in prompts]
    return Agreement(
        len(prompts),
        sum(ours == theirs for ours, theirs in zip(prompts, tokenised, strict=True)),
        sum(until_end(ours) == theirs for ours, theirs in zip(answers, answered, strict=True)),
        sum(ID[END] in ours for ours in answers),
    )
