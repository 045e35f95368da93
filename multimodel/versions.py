"""Which versions of which packages run the models of a backend."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version

LIBRARIES = {
    "transformers": ("transformers", "torch"),
    "gguf": ("llama_cpp_python",),
    "hf-inference": ("huggingface_hub",),
    "echo": (),
}
"""The packages that run the models of a backend, or ask for them; a named endpoint is asked by openai's."""


@lru_cache(maxsize=64)
def versions(backend: str) -> tuple[tuple[str, str], ...]:
    """(package, version) of those that are installed.

    >>> versions("echo")
    ()
    """
    found = []
    for package in LIBRARIES.get(backend, ("openai",)):
        with suppress(PackageNotFoundError):
            found.append((package, version(package)))
    return tuple(found)
