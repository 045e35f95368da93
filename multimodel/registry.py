"""Which backends there are. Adding one is one file under backends/ and one row here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec

from .errors import InvalidModelId, InvalidParameter, MissingDependency
from .pool import Pool
from .settings import Settings
from .types import Backend, LoadOptions, ModelSpec


@dataclass(frozen=True, slots=True)
class BackendSource:
    """Where a backend lives and what it needs."""

    module: str  # imported on first use, never before; its `connect(spec, settings, pool)` returns the Backend
    title: str  # how the model picker calls the group
    package: str = ""  # what must be installed
    install: str = ""  # how
    loads: frozenset[str] = frozenset()  # the fields of LoadOptions that it honours


ANY_LOCAL = frozenset(
    {"device", "context_length", "revision", "rope_scaling", "rope_factor", "adapter", "adapter_scale"}
    | {"chat_template", "anyway"}
)
"""What of LoadOptions every local model takes."""

BACKENDS: dict[str, BackendSource] = {
    "transformers": BackendSource(
        "multimodel.backends.transformers",
        "Transformers",
        "transformers",
        "python -m pip install transformers torch",
        ANY_LOCAL | {"dtype"},
    ),
    "gguf": BackendSource(
        "multimodel.backends.gguf",
        "GGUF (llama.cpp)",
        "llama_cpp",
        "install a C++ compiler, then python -m pip install llama-cpp-python",
        ANY_LOCAL | {"flash_attention", "gpu_layers", "kv_type", "sequences"},
    ),
    "openai": BackendSource("multimodel.backends.openai", "OpenAI", "openai", "python -m pip install openai"),
    "hf-inference": BackendSource(
        "multimodel.backends.hf_inference",
        "Hugging Face Inference",
        "huggingface_hub",
        "python -m pip install huggingface_hub",
    ),
    "echo": BackendSource("multimodel.backends.echo", "Echo"),
}


def source(backend: str, settings: Settings) -> BackendSource:
    """The row of a backend; a named endpoint is served by the `openai` module. Raises InvalidModelId."""
    if backend in BACKENDS:
        return BACKENDS[backend]
    if settings.endpoint(backend):
        return BACKENDS["openai"]
    known = [*BACKENDS, *(e.name for e in settings.api.endpoints)]
    near = get_close_matches(backend, known, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]}?" if near else f"Use one of {', '.join(known)}, or add it to ENDPOINTS in .env."
    raise InvalidModelId(f"There is no backend called {backend!r}.", hint=hint)


def honoured(spec: ModelSpec, settings: Settings) -> ModelSpec:
    """The spec with only those of its options that its backend honours. Raises InvalidModelId."""
    kept = spec.load.changed() & source(spec.id.backend, settings).loads
    return replace(spec, load=LoadOptions(**{name: getattr(spec.load, name) for name in kept}))


def missing(row: BackendSource) -> MissingDependency | None:
    """The error of a backend whose package is not installed."""
    if not row.package or find_spec(row.package):
        return None
    return MissingDependency(f"{row.title} needs the package {row.package}.", hint=f"To add it: {row.install}.")


def connect(spec: ModelSpec, settings: Settings, pool: Pool) -> Backend:
    """The backend for a model, imported and checked. Raises ConfigError or LoadError."""
    row = source(spec.id.backend, settings)
    if error := missing(row):
        raise error
    _check_load(spec, row)
    backend: Backend = import_module(row.module).connect(spec, settings, pool)
    return backend


def _check_load(spec: ModelSpec, row: BackendSource) -> None:
    """Refuse what would have no effect."""
    if unknown := sorted(spec.load.changed() - row.loads):
        known = f"It takes {', '.join(sorted(row.loads))}." if row.loads else "It runs elsewhere, as it is."
        raise InvalidParameter(f"{spec.id} takes no {' or '.join(unknown)}.", hint=known)


def listed(backend: str, settings: Settings) -> tuple[str, ...]:
    """The models a remote service says it has. Raises MultimodelError where it does not say."""
    row = source(backend, settings)
    if error := missing(row):
        raise error
    names: tuple[str, ...] = import_module(row.module).listed(backend, settings)
    return names
