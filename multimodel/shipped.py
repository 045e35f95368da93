"""The catalogue that ships with the app: well-known models with their shapes, so that the Explorer works offline.

The facts are in assets/catalogue.json, with the day they were taken and where each kind comes from. Sizes of
quantisations are not among them: `verdict` computes these.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any

from .hub import Listing
from .quants import Quant
from .settings import Settings

FILE = "catalogue.json"
PACKED = frozenset({"gpt_oss", "deepseek_v3", "kimi_k2"})
FULL = frozenset({"gpt2", "bert", "distilbert"})


@dataclass(frozen=True, slots=True)
class Known:
    """A well-known model."""

    listing: Listing
    config: dict[str, Any]  # what of its config.json decides memory
    gguf: str  # the repository of its quantisations; "" for none
    shape_from: str  # "config.json", or "published" and confirmed by the parameter count
    active_billions: float | None  # parameters a token uses, of a mixture of experts


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All of them, in the order of the file."""

    as_of: date
    models: tuple[Known, ...]
    named: dict[str, Known] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        quantised = {known.gguf.lower(): known for known in self.models if known.gguf}
        object.__setattr__(self, "named", quantised | {known.listing.name.lower(): known for known in self.models})

    def find(self, *names: str) -> Known | None:
        """The model that the first of these repositories holds, as it is or quantised."""
        return next((self.named[name.lower()] for name in names if name.lower() in self.named), None)


def catalogue(settings: Settings) -> Catalogue:
    """The shipped catalogue."""
    return read(settings.models.assets_dir / FILE)


@lru_cache(maxsize=4)
def read(path: Path) -> Catalogue:
    """The catalogue in a file."""
    found = json.loads(path.read_text("utf-8"))
    return Catalogue(date.fromisoformat(found["as_of"]), tuple(_known(row) for row in found["models"]))


def _known(row: dict[str, Any]) -> Known:
    config, gguf = row["config"], row.get("gguf", "")
    year, month = map(int, row["released"].split("-"))
    listing = Listing(
        name=row["id"],
        task=row["task"],
        library="transformers",
        licence=row["licence"],
        architecture=config["model_type"],
        created=date(year, month, 1),
        parameters=row["parameters"],
        stored=_stored(config["model_type"], row["parameters"]),
        context_length=config.get("max_position_embeddings") or config.get("n_positions"),
        quants=tuple(_quant(label, gguf) for label in row.get("quants", ())),
    )
    return Known(listing, config, gguf, row["shape_from"], row.get("active_billions"))


def _stored(kind: str, parameters: int) -> tuple[tuple[str, int], ...]:
    """The number format its weights are published in; nothing for a packed one, whose size it does not tell."""
    if kind in PACKED:
        return ()
    return (("F32" if kind in FULL else "BF16", parameters),)


def _quant(label: str, repository: str) -> Quant:
    return Quant(label, (f"{repository.rpartition('/')[2].removesuffix('-GGUF')}-{label}.gguf",))
