"""Choosing the next token, in the order of llama.cpp's chain: penalty, top_k, top_p, min_p, temperature, chance."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ..types import SamplingParams

PENALTY_WINDOW = 64  # tokens, prompt included: llama.cpp's, so that both engines say the same


class Sampler:
    """Chooses tokens for one answer. What is not set is off; no temperature, or 0, is greedy."""

    def __init__(self, params: SamplingParams, device: str) -> None:
        self._penalty = params.repetition_penalty or 1.0
        self._temperature = params.temperature or 0.0
        self._top_k = params.top_k or 0
        self._top_p = 1.0 if params.top_p is None else params.top_p
        self._min_p = params.min_p or 0.0
        self._chance = torch.Generator(device)
        if params.seed is None:
            self._chance.seed()
        else:
            self._chance.manual_seed(params.seed)

    def pick(self, logits: torch.Tensor, history: Sequence[int]) -> int:
        """The next token. `logits` has shape (vocabulary,); `history` is prompt and answer so far."""
        if self._penalty != 1.0:
            logits = _penalised(logits.float(), history[-PENALTY_WINDOW:], self._penalty)
        if not self._temperature:
            return int(logits.argmax())
        logits, ids = self._candidates(logits.float())
        chosen = torch.multinomial(torch.softmax(logits / self._temperature, -1), 1, generator=self._chance)
        return int(chosen if ids is None else ids[chosen])

    def _candidates(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The logits that stay in the game, and the token of each; None: its position."""
        ids = None
        if 0 < self._top_k < len(logits):
            logits, ids = logits.topk(self._top_k)
        elif self._top_p < 1.0:
            logits, ids = logits.sort(descending=True)
        if self._top_p < 1.0:
            shares = torch.softmax(logits, -1)
            keep = shares.cumsum(-1) - shares < self._top_p  # up to and with the one that reaches top_p
            keep[0] = True
            logits = logits.masked_fill(~keep, -math.inf)
        if self._min_p > 0.0:
            logits = logits.masked_fill(logits < logits.max() + math.log(self._min_p), -math.inf)
        return logits, ids


def _penalised(logits: torch.Tensor, recent: Sequence[int], penalty: float) -> torch.Tensor:
    seen = torch.tensor(sorted(set(recent)), device=logits.device)
    logits = logits.clone()
    values = logits[seen]
    logits[seen] = torch.where(values > 0, values / penalty, values * penalty)
    return logits
