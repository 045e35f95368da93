"""Models that many tests share, each made once a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from .support import tiny_gguf, tiny_llama


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer Llama with a chat template, as a Transformers folder."""
    return tiny_llama(tmp_path_factory.mktemp("tiny") / "hf")


@pytest.fixture(scope="session")
def tiny_gguf_file(tiny_folder: Path) -> Path:
    """The same weights as a GGUF file."""
    return tiny_gguf(tiny_folder, tiny_folder.parent / "tiny-f32.gguf")


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model without a chat template."""
    return tiny_llama(tmp_path_factory.mktemp("base") / "hf", template=None)
