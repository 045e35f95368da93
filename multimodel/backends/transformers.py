"""A transformers model on this machine: `transformers:OWNER/REPO`, a folder, or the built-in `transformers:guide`."""

from __future__ import annotations

from dataclasses import fields

from ..locate import locate
from ..pool import Pool
from ..settings import Settings
from ..types import ModelSpec, SamplingParams
from .local import LocalBackend

TAKES = frozenset(field.name for field in fields(SamplingParams)) - {"tool_choice"}
"""All there are, but for what no chat template knows. Whether it takes tools is known once it is loaded."""


def connect(spec: ModelSpec, settings: Settings, pool: Pool) -> LocalBackend:
    """The model; nothing is looked for, downloaded or loaded before it is asked."""
    return LocalBackend(spec, settings, pool, runtime="torch", locate=locate, takes=TAKES)
