"""Choosing the next token, in the order of llama.cpp's chain: bias, penalties, top_k, top_p, min_p, temperature."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ..types import SamplingParams
from .constraint import Constraint, Mask


class Sampler:
    """Chooses tokens for one answer. What is not set is off; no temperature, or 0, is greedy."""

    def __init__(
        self, params: SamplingParams, device: str, prompt: int = 0, constraint: Constraint | None = None
    ) -> None:
        """`prompt`: how many tokens of the history are not the answer's own."""
        self._bias = params.logit_bias or ()
        self._repetition = params.repetition_penalty or 1.0
        self._presence = params.presence_penalty or 0.0
        self._frequency = params.frequency_penalty or 0.0
        self._temperature = params.temperature or 0.0
        self._top_k = params.top_k or 0
        self._top_p = 1.0 if params.top_p is None else params.top_p
        self._min_p = params.min_p or 0.0
        self._changes = bool(self._bias or self._repetition != 1.0 or self._presence or self._frequency)
        self._prompt = prompt
        self._constraint = constraint
        self._chance = torch.Generator(device)
        if params.seed is None:
            self._chance.seed()
        else:
            self._chance.manual_seed(params.seed)

    def pick(self, logits: torch.Tensor, history: Sequence[int]) -> int | None:
        """The next token; None where the grammar allows none. Raises BadRequest where it cannot be followed.

        `logits` has shape (vocabulary,); `history` is prompt and answer so far.
        """
        if self._changes:
            logits = self._changed(logits.float().clone(), history)
        if self._constraint:
            return self._constraint.choose(
                lambda mask: self._draw(_masked(logits, mask)),
                lambda count: logits.topk(min(count, len(logits))).indices.tolist(),
            )
        return self._draw(logits)

    def _draw(self, logits: torch.Tensor) -> int:
        if not self._temperature:
            return int(logits.argmax())
        logits, ids = self._candidates(logits.float())
        chosen = torch.multinomial(torch.softmax(logits / self._temperature, -1), 1, generator=self._chance)
        return int(chosen if ids is None else ids[chosen])

    def _changed(self, logits: torch.Tensor, history: Sequence[int]) -> torch.Tensor:
        """Bias and penalties, written into `logits`."""
        for token, bias in self._bias:
            logits[token] += bias
        if self._repetition != 1.0:
            seen, _ = _counted(history, logits)
            values = logits[seen]
            logits[seen] = torch.where(values > 0, values / self._repetition, values * self._repetition)
        if self._presence or self._frequency:
            said, counts = _counted(history[self._prompt :], logits)
            logits[said] -= self._presence + self._frequency * counts
        return logits

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


def _counted(tokens: Sequence[int], logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The different tokens, and how often each is there."""
    counts = torch.bincount(torch.tensor(tokens, dtype=torch.long, device=logits.device))
    seen = counts.nonzero()[:, 0]
    return seen, counts[seen]


def _masked(logits: torch.Tensor, mask: Mask | None) -> torch.Tensor:
    if mask is None:
        return logits
    return logits.masked_fill(~torch.from_numpy(mask).to(logits.device), -math.inf)
