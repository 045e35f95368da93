"""Prompts that begin alike, asked of a runtime at once and in turn: what each is told must not depend on it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from multimodel.types import Message, SamplingParams
from multimodel.workers.protocol import Frame, Request

TEXT = "It was a long way to the sea, and nobody knew what the old map meant. Who drew it, and when? " * 8


def told_differently(
    runtime: Any, fresh: Callable[[str], str], *, rounds: int, seed: int, longest: int = 90
) -> list[str]:
    """The prompts of seeded rounds, some stopped midway, whose text is not what `fresh` says alone."""
    chance, said = random.Random(seed), {}
    for number in range(rounds):
        begin = TEXT[chance.randrange(40) :][: chance.randrange(3, longest)]
        prompts = [begin + TEXT[chance.randrange(200) :][: chance.randrange(40)] for _ in range(chance.randrange(1, 7))]
        prompts += prompts[:1] * chance.randrange(3)
        asked = {10 * number + i: prompt for i, prompt in enumerate(prompts)}
        events = _ask(runtime, asked, chance)
        over = {event["id"] for event in events if event["event"] == "done"}
        for id in over:
            said[asked[id]] = "".join(event.get("text", "") for event in events if event["id"] == id)
    return [prompt for prompt, text in said.items() if fresh(prompt) != text]


def _ask(runtime: Any, asked: dict[int, str], chance: random.Random) -> list[Frame]:
    events: list[Frame] = []
    for id, prompt in asked.items():
        events += runtime.admit(Request(id, (Message("user", prompt),), SamplingParams(max_tokens=6)))
        events += runtime.step() if chance.random() < 0.5 else []
    runtime.drop(chance.choice(list(asked)))
    while runtime.active():
        events += runtime.step()
    for id in asked:
        runtime.drop(id)
    return events
