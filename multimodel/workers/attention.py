"""Whether a model decodes faster with flash attention on this processor, found by a short trial.

It depends on the processor and on the heads of the model: measured with llama.cpp of summer 2026 on one machine, 85M
parameters decode a quarter faster with it at the beginning of a conversation and a tenth at 2,000 tokens; a model with
heads of eight numbers takes four times as long.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack, closing

from ..errors import NotEnoughMemory
from ..types import LoadOptions
from .llama_native import Context, Model

DEPTHS = (64, 256, 512)  # tokens before those that are decoded: conversations from short to long
BUDGET = 1.5  # seconds to read a depth: a model that takes longer is judged by those that take less
ROUNDS = 6  # the quickest of each counts
WORTH = 0.97  # of the time without it: a difference below is noise


def quicker_with_flash(model: Model, length: int) -> bool:
    """Whether decoding takes less time with it, over the depths that are soon reached; False where none is."""
    ways = (LoadOptions(flash_attention=False), LoadOptions(flash_attention=True))
    try:
        with ExitStack() as stack:
            room = min(length, DEPTHS[-1] + 1)
            contexts = [stack.enter_context(closing(Context(model, room, 1, 1, options))) for options in ways]
            plain, flash = _trial(contexts, room)
            return flash < WORTH * plain
    except (NotEnoughMemory, RuntimeError):  # it is loaded as it always was; what is wrong with it will show there
        return False


def _trial(contexts: Sequence[Context], room: int) -> list[float]:
    """Of each context the seconds of a token, summed over the depths.

    They are tried in turn, and seconds are those of the processor, so that other work of the machine meets them alike.
    """
    at, taken = 0, _quickest(contexts, 0)
    sums = [0.0 for _ in contexts]
    for depth in DEPTHS:
        if depth >= room or (depth - at) * max(taken) / 2 > BUDGET:  # reading takes about half as long as decoding
            break
        for context in contexts:
            _decode(context, at, depth - at)
        at, taken = depth, _quickest(contexts, depth)
        sums = [known + new for known, new in zip(sums, taken, strict=True)]
    return sums


def _quickest(contexts: Sequence[Context], depth: int) -> list[float]:
    rounds = [[_step(context, depth) for context in contexts] for _ in range(ROUNDS)]
    return [min(found) for found in zip(*rounds, strict=True)]


def _step(context: Context, depth: int) -> float:
    """Decode one token after so many. Raises RuntimeError for a model whose state only goes forward."""
    began = time.thread_time()  # with one thread llama.cpp computes in the one that calls
    _decode(context, depth, 1)
    took = time.thread_time() - began
    if not context.cut(0, depth):
        raise RuntimeError("A token cannot be taken back.")
    return took


def _decode(context: Context, position: int, count: int) -> None:
    context.clear()
    context.add([0] * count, position, 0, want_logits=True)
    context.decode()
