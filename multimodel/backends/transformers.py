"""A transformers model on this machine: `transformers:OWNER/REPO`, a folder, or the built-in `transformers:guide`."""

from __future__ import annotations

from ..compute import Cores
from ..locate import locate
from ..settings import Settings
from ..types import ModelSpec
from .local import LocalBackend

TAKES = frozenset(
    {"max_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed", "stop"},
)


def connect(spec: ModelSpec, settings: Settings, cores: Cores) -> LocalBackend:
    """The model; nothing is looked for, downloaded or loaded before it is asked."""
    return LocalBackend(spec, settings, cores, runtime="torch", locate=locate, takes=TAKES)
