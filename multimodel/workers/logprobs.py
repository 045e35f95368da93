"""Log-probabilities as the model gives them, before anything is done to its logits; and how far its vocabulary goes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BadRequest, BrokenFile
from ..types import SamplingParams

Bytes = Callable[[int], bytes]
"""What a token is made of."""


def logprob_frame(logits: NDArray[np.float32], token: int, top: int, piece: Bytes, name: Bytes) -> list[Any]:
    """What the protocol says of one token. `logits` has shape (vocabulary,).

    `piece` gives the text of the token, `name` that of the `top` likeliest, special ones too. A log-probability is the
    logit less the logarithm of the sum of all their exponentials.
    """
    precise = logits.astype(np.float64)
    highest = precise.max()
    logprobs = precise - (highest + np.log(np.exp(precise - highest).sum()))
    best = np.argpartition(-logprobs, min(top, len(logprobs) - 1))[:top]
    best = best[np.lexsort((best, -logprobs[best]))]
    others = [[_text(name(int(other))), float(logprobs[other])] for other in best]
    return [_text(piece(token)), float(logprobs[token]), others]


def _text(data: bytes) -> str:
    return data.decode("latin-1")


def check_number(logit: float) -> None:
    """Raise BrokenFile for a logit that is none: too large for its format, or made from such a weight.

    >>> check_number(-math.inf), check_number(3.5)
    (None, None)
    """
    if not logit < math.inf:
        raise BrokenFile(
            "What this model computes are no numbers: its file is damaged, or they are too large for their format.",
            hint="Download the file again, or choose another number format or quantisation.",
        )


def check_bias(params: SamplingParams, vocabulary: int) -> None:
    """Raise BadRequest for a bias of a token that the model does not have."""
    beyond = [token for token, _ in params.logit_bias or () if token >= vocabulary]
    if beyond:
        raise BadRequest(
            f"logit_bias names token {beyond[0]}, but this model has {vocabulary} tokens.",
            hint="Token ids differ from model to model: use those of this one.",
        )
