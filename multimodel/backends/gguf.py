"""GGUF files through llama.cpp: `gguf:OWNER/REPO:QUANT`, `gguf:PATH`, `gguf:guide`."""

from __future__ import annotations

from dataclasses import fields

from ..locate import locate
from ..pool import Pool
from ..settings import Settings
from ..types import ModelSpec, SamplingParams
from ..workers.pages import environment
from .local import LocalBackend

TAKES = frozenset(field.name for field in fields(SamplingParams)) - {"tool_choice"}
"""All there are, but for what no chat template knows. Whether it takes tools is known once it is loaded."""


def connect(spec: ModelSpec, settings: Settings, pool: Pool) -> LocalBackend:
    """The GGUF model of an id; found and loaded by its first answer."""
    return LocalBackend(spec, settings, pool, runtime="llama", locate=locate, takes=TAKES, environment=environment())
