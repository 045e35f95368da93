"""What the libraries take beside the model: measured on Linux with the versions in requirements.txt, one thread.

Measured as the resident memory of our worker process with a model of three million parameters loaded, less what that
model takes. A graphics processor's own context is the figure most often reported for current cards.
"""

from __future__ import annotations

from ..hardware import Kind

MIB = 1 << 20

LLAMA = 60 * MIB
LLAMA_TOKEN = 480  # bytes for each token of a vocabulary: its text, and where merges lead
TORCH = 405 * MIB
TORCH_TOKEN = 1040  # bytes for each token that the tokenizer knows
TRAINING = 100 * MIB  # beyond TORCH: what the library loads to train
CONTEXT: dict[Kind, int] = {"cpu": 0, "cuda": 450 * MIB, "mps": 300 * MIB}  # what the device's driver keeps
ON_CPU = "measured on Linux: the libraries of the model's process, and its tokenizer"


def llama(kind: Kind, tokens: int) -> int:
    """Bytes beside a GGUF model with a vocabulary of so many tokens."""
    return CONTEXT[kind] if kind == "cuda" else CONTEXT[kind] + LLAMA + LLAMA_TOKEN * tokens


def torch(kind: Kind, tokens: int, *, training: bool = False) -> int:
    """Bytes beside a transformers model whose tokenizer knows so many tokens; none on a card of its own memory."""
    main = TORCH + TORCH_TOKEN * tokens + TRAINING * training
    return CONTEXT[kind] if kind == "cuda" else CONTEXT[kind] + main


def source(kind: Kind) -> str:
    """Where these figures come from, in words."""
    own = {
        "cpu": "",
        "cuda": "what the driver keeps on the card, as commonly reported",
        "mps": "; on a Mac not measured",
    }
    return own[kind] if kind == "cuda" else ON_CPU + own[kind]
