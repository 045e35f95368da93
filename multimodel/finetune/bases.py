"""Base models: the built-in encoder, a folder, a fine-tuned model, or a repository on the Hub."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

from ..download import snapshot
from ..errors import LoadError, ModelNotFound
from ..folder import CONFIG, complete, read_json, repository_of
from ..locate import locate
from ..settings import Settings
from ..types import ModelId, ModelSpec
from .tokens import guesses
from .types import BUILT_IN

ALIASES = {
    "distilbert-base-uncased": "distilbert/distilbert-base-uncased",
    "distilbert-base-cased": "distilbert/distilbert-base-cased",
    "distilbert-base-multilingual-cased": "distilbert/distilbert-base-multilingual-cased",
}
"""Names without owner that everybody uses."""


def built_in(settings: Settings) -> Path | None:
    """The encoder that comes with the app; None where it is not there."""
    folder = settings.models.assets_dir / BUILT_IN
    return next((path for path in (folder, folder / "hf") if (path / CONFIG).exists()), None)


def base_folder(name: str, settings: Settings) -> Generator[tuple[str, float | None], None, Path]:
    """Find a base model, downloading what is missing: yields (what goes on, fraction), returns its folder.

    Raises LoadError. Closing it stops the download; the next one goes on where it stopped.
    """
    if name == BUILT_IN:
        if found := built_in(settings):
            return found.resolve()
        hint = "Get the whole repository again, or name another base model."
        raise ModelNotFound("The built-in encoder is missing.", hint=hint)
    spec = ModelSpec(ModelId("transformers", ALIASES.get(name, name)))
    steps = locate(spec, settings)
    try:
        while True:
            try:
                chunk = next(steps)
            except StopIteration as end:
                return Path(end.value.path)
            if chunk.stage:
                yield f"downloading {chunk.stage.detail or name}", chunk.stage.fraction
    finally:
        steps.close()


def maskers(settings: Settings) -> list[str]:
    """The masked language models at hand, which can fill a gap: the built-in encoder first, then those in the cache."""
    own = built_in(settings)
    found = [BUILT_IN] if own and _masked(own) else []
    for folder in sorted(settings.models.cache_dir.glob("models--*--*")):
        name = repository_of(folder.name)
        kept = snapshot(name, "main", settings)
        if kept and _masked(kept) and complete(kept):
            found.append(name)
    return found


def _masked(folder: Path) -> bool:
    try:
        return guesses(read_json(folder / CONFIG))
    except LoadError:
        return False


def bases(settings: Settings) -> list[str]:
    """Names to choose from: the built-in encoder first, those with weights at hand next, then well-known ones."""
    own = [BUILT_IN] if built_in(settings) else []
    return [*own, *ALIASES]
