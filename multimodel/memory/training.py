"""What training takes: weights, gradients, the optimizer's state, and the activations kept for the backward pass.

Activations: what a layer keeps of each token is counted in numbers of its widths E (embedding) and F (feed-forward),
as in Korthikanti et al., "Reducing Activation Recomputation in Large Transformer Models" (2022), with the coefficients
measured on DistilBERT in float32 with PyTorch on a processor: 9.5 E + 2 F, and 12 bytes for each pair of tokens and
each head where attention has dropout, which keeps its scores. What the backward pass takes beside them is fitted to
the peaks of four encoders and judged by those of five others (`bench.memory`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .plan import Term, Training
from .shape import Shape

if TYPE_CHECKING:
    from collections.abc import Iterator

FLOAT = 4
ADAM = 8  # bytes a trained parameter: first and second moment, in float32
SCORES = 12  # bytes for each head and pair of tokens: scores, their softmax, what dropout left of it
AUTOCAST = 0.88  # of the activations in float32: much is kept in float32 all the same
BACKWARD = 1.12  # of the activations: with what the backward pass takes beside them
RECOMPUTED = 1.4  # with checkpointing, of the activations of one layer: that which is made again
INPUTS = 9.7  # with checkpointing, of the inputs of all layers: they, their gradients and what is freed late
LOGITS = 3  # copies of the logits of every token: in float32, their softmax, their gradient
GUESSED = 4  # the same of masked tokens, by measurement


def terms(shape: Shape, parameters: int, how: Training, *, writes: bool) -> Iterator[Term]:
    """The terms of training a model. `writes`: it learns to continue text, so every token has logits."""
    trained = parameters if how.method == "full" else adapter(shape, how.rank)
    extra = 0 if how.method == "full" else trained
    yield Term("weights", FLOAT * (parameters + extra), "exact", "parameters in float32")
    yield Term("gradients", FLOAT * trained, "exact", "one for each trained parameter, in float32")
    yield Term("optimizer", ADAM * trained, "exact", "AdamW: two moments of each trained parameter, in float32")
    yield Term("kv_cache", 0, "exact", "training keeps no cache")
    yield Term("recurrent", 0, "exact", "training keeps no state")
    yield Term("compute", _compute(shape, how), "formula", "activations kept for the backward pass, and its buffers")
    yield _output(shape, how, writes=writes)


def adapter(shape: Shape, rank: int) -> int:
    """Parameters of LoRA adapters on the queries and values of every layer: rank × (in + out) each."""
    attending = [layer for layer in shape.layers if layer.value] or list(shape.layers)
    query = shape.query or shape.embedding
    return sum(rank * (2 * shape.embedding + query + (layer.value or query)) for layer in attending)


def _output(shape: Shape, how: Training, *, writes: bool) -> Term:
    """What the last layer takes: a vocabulary of logits for each token that is written, or guessed."""
    words, tokens = FLOAT * shape.vocabulary, how.batch_size * how.sequence_length
    if writes:
        return Term("output", LOGITS * words * tokens, "formula", "logits of every token, three times")
    if not how.masked:
        return Term("output", 0, "formula", "a few labels a text")
    guessed = round(words * (GUESSED * how.masked * tokens + shape.embedding))
    said = "logits of the masked tokens, four times, and the gradient of the word embeddings once more"
    return Term("output", guessed, "formula", said)


def _compute(shape: Shape, how: Training) -> int:
    tokens = how.batch_size * how.sequence_length
    each = layer_bytes(shape, how.sequence_length)
    kept = BACKWARD * len(shape.layers) * each
    if how.checkpointing:
        kept = RECOMPUTED * each + INPUTS * len(shape.layers) * FLOAT * shape.embedding
    return int(tokens * kept * (AUTOCAST if how.autocast else 1))


def layer_bytes(shape: Shape, sequence_length: int) -> float:
    """Bytes that one layer keeps of a token for the backward pass."""
    width = max(shape.feed_forward, shape.experts_used * shape.expert_width)
    numbers = 9.5 * shape.embedding + (4 if shape.gated else 2) * width
    return FLOAT * numbers + (0 if shape.gated else SCORES * shape.heads * sequence_length)
